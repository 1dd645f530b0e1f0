"""Use a Mixture-of-Agents graph as a LangChain chat model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple, cast

from langchain_core.caches import BaseCache
from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import (
    ensure_config,
    get_async_callback_manager_for_config,
    get_callback_manager_for_config,
)
from langchain_core.tools import BaseTool
from pydantic import ConfigDict, Field, field_validator
from typing_extensions import override

from moa_graph._compat import ChatModelWithRuns, inherited
from moa_graph.agents.arguments import STANDARD, arguments_checked, wrong_graph
from moa_graph.agents.chat_turn import Consulting, record_of
from moa_graph.building.compiled import MoAGraph
from moa_graph.building.for_agents import once_a_turn
from moa_graph.calling.chat_answer import (
    StreamedAnswer,
    bindable,
    chunk_with_usage,
    finished,
    neutral,
    with_ids_of_questions,
    with_usage,
)
from moa_graph.calling.parent_run import (
    CalledWithConfig,
    ParentRun,
    called_with,
    current_parent,
    inside,
    surrounding_writer,
    users_configurable,
)
from moa_graph.calling.turn import Consult, as_consult
from moa_graph.context import MoAContext
from moa_graph.models import Model, chat_models_in, map_chat_models, with_call_options
from moa_graph.nodes.aggregator import AnswerNode
from moa_graph.nodes.plan import AGGREGATOR
from moa_graph.state import MoAState

_STREAM_MODES = ["messages", "values"]


@arguments_checked("ChatMoA(graph=create_moa([…], aggregator))", ignored=STANDARD)
class ChatMoA(CalledWithConfig, ChatModelWithRuns):
    """A Mixture-of-Agents graph as one chat model.

    Use it like any chat model: `prompt | ChatMoA(graph=moa) | parser`,
    `create_agent(ChatMoA(graph=moa), tools=...)`, `with_structured_output`, `batch`. Tools,
    response format, `stop` and other call options are passed only to the aggregator, not to the
    proposers.

    Each call is a separate run: the messages of the call are the whole conversation, and the
    graph's checkpointer, if it has one, is not used.

    As the model of an agent, it asks the proposers once for each human message (`consult="turn"`).
    The later calls of this turn show the aggregator the same proposals, from the record in the
    turn's first answer, from memory, or from the graph's cache. Proposers see tool calls and
    their results as text, never as tool messages.

    The answer is the aggregator's message, and its tokens are streamed as they arrive. Its
    `usage_metadata` is the sum of all model calls. `response_metadata["moa"]` has `proposals`
    (those that this call asked for) and, under `aggregator`, the aggregator's own `model` and
    `usage`. `source` names the origin of the proposals that the aggregator was shown.

    Example:
        ```python
        moa = create_moa(["together:openai/gpt-oss-120b", "together:zai-org/GLM-5.2"],
                         "together:deepseek-ai/DeepSeek-V4-Pro")
        chain = prompt | ChatMoA(graph=moa) | StrOutputParser()
        ```
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    graph: Any = Field(exclude=True, repr=False)
    """The compiled graph, from `create_moa`."""
    context: MoAContext | None = None
    """Settings of every run."""
    consult: Consult = "turn"
    """When an agent's call asks the proposers: `"turn"`, once for each human message; `"always"`,
    in every call; or a function that takes the messages of the call and returns whether to ask
    them in this call. If it returns False, the aggregator is shown this turn's newest proposals,
    or answers alone if there are none. A call without tools always asks them, unless `consult`
    is a function."""
    keep_references: bool = False
    """Whether the aggregator of an agent is shown the proposals of earlier turns, too, each after
    its question. Slightly more of each prompt is then read from a provider's cache, but prompts
    grow with every turn. It has no effect on a server, where clients send the messages."""
    temperature: float | None = None
    """Sampling temperature of the aggregator; None keeps the model's own setting."""
    max_tokens: int | None = None
    """Maximum length of the answer, in tokens; None keeps the model's own setting."""
    stop: list[str] | None = None
    """Stop sequences of the aggregator."""
    cache: BaseCache | bool | None = Field(default=False, exclude=True)
    """Off by default, because each inner model uses LangChain's cache itself."""

    @field_validator("consult", mode="before")
    @classmethod
    def _known_cadence(cls, consult: Any) -> Consult:
        return as_consult(consult, "ChatMoA", ("turn", "always"))

    @field_validator("graph")
    @classmethod
    def _made_by_create_moa(cls, graph: Any) -> MoAGraph:
        if not isinstance(_aggregator_node(graph), AnswerNode):
            raise wrong_graph("ChatMoA(graph=…)", graph)
        if graph.interrupt_before_nodes or graph.interrupt_after_nodes:
            raise ValueError(
                "ChatMoA does not support interrupts, but its graph was built with "
                "interrupt_before or interrupt_after. Use the graph itself, or remove these "
                "arguments."
            )
        # Each call has its whole conversation: a thread would append it to that of the last call.
        return cast(MoAGraph, graph.copy({"checkpointer": None}))

    # --- properties -----------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "moa"

    @property
    def _node(self) -> AnswerNode:
        return cast(AnswerNode, _aggregator_node(self.graph))

    @property
    def models(self) -> Sequence[Model]:
        """All models that a run may call: proposers, aggregator and judges."""
        return self._node.plan.models

    @property
    def _identifying_params(self) -> dict[str, Any]:
        plan = self._node.plan
        return {
            "graph": self.graph.name,
            "layers": plan.layers,
            "models": [model.name for model in plan.models],
            "nodes": [name for name in self.graph.nodes if name != "__start__"],
            "references": repr(plan.references),
            "context": self.context.model_dump() if self.context else None,
            "consult": self.consult if isinstance(self.consult, str) else repr(self.consult),
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
        }

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = LangSmithParams(
            ls_provider="moa",
            ls_model_type="chat",
            ls_model_name=kwargs.get("model") or self.graph.name,
        )
        if (temperature := kwargs.get("temperature", self.temperature)) is not None:
            params["ls_temperature"] = temperature
        if (max_tokens := kwargs.get("max_tokens", self.max_tokens)) is not None:
            params["ls_max_tokens"] = max_tokens
        if stop := stop or self.stop:
            params["ls_stop"] = stop
        return params

    def _resolve_model_profile(self) -> Any:
        """Return the profile of the aggregator's model."""
        built = self._node.writer.built if self._node.writer else None
        model = next(chat_models_in(built), None) if built else None
        return model.profile if model else None

    # --- tools and structured output ------------------------------------------------

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools to the aggregator.

        Args:
            tools: Tools in any form that LangChain supports. Definitions in a provider's own
                format are passed on unchanged.
            tool_choice: The tool that it must call, as in the aggregator's own `bind_tools`.
            **kwargs: Other options of the aggregator's own `bind_tools`.

        Raises:
            ValueError: If the aggregator has no chat model that supports tools.
        """
        options: dict[str, Any] = {"tools": [neutral(tool) for tool in tools], **kwargs}
        if tool_choice is not None:
            options["tool_choice"] = tool_choice
        bindable(self._node.writer, self._node.model_name, "tools")
        assert self._node.writer is not None
        with_call_options(
            self._node.writer.get(), options
        )  # raises now what a call would raise later
        return self.bind(**options)

    @override
    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Make the aggregator answer in a schema, with its own model's method.

        Args:
            schema: A pydantic class, a TypedDict or a JSON schema, as for every chat model.
            include_raw: Whether to return `{"raw", "parsed", "parsing_error"}`.
            **kwargs: Other options of the aggregator's own `with_structured_output`, such as
                `method` and `strict`.

        Raises:
            ValueError: If the aggregator has no chat model.
        """
        model = bindable(self._node.writer, self._node.model_name, "a schema")
        structured = model.with_structured_output(schema, include_raw=include_raw, **kwargs)
        return map_chat_models(structured, lambda inner: self if inner is model else inner)

    # --- answering ------------------------------------------------------------------

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        run = self._run(messages, stop, run_manager, kwargs)
        with inherited(None):
            state = run.graph.invoke(run.input, run.config, context=run.context)
        return ChatResult(generations=[ChatGeneration(message=finished(state, run.record))])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        if self._node.writer:
            await self._node.writer.ready()
        run = self._run(messages, stop, run_manager, kwargs)
        with inherited(None):
            state = await run.graph.ainvoke(run.input, run.config, context=run.context)
        return ChatResult(generations=[ChatGeneration(message=finished(state, run.record))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        run = self._run(messages, stop, run_manager, kwargs)
        answer = StreamedAnswer()
        events = run.graph.stream(
            run.input, run.config, context=run.context, stream_mode=_STREAM_MODES
        )
        while True:
            with inherited(None):
                event = next(events, None)
            if event is None:
                break
            if chunk := answer.take(*event):
                yield chunk
        yield answer.last(run.record)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        if self._node.writer:
            await self._node.writer.ready()
        run = self._run(messages, stop, run_manager, kwargs)
        answer = StreamedAnswer()
        events = run.graph.astream(
            run.input, run.config, context=run.context, stream_mode=_STREAM_MODES
        )
        try:
            while True:
                with inherited(None):
                    event = await anext(events, None)
                if event is None:
                    break
                if chunk := answer.take(*event):
                    yield chunk
        finally:
            await events.aclose()
        yield answer.last(run.record)

    def _run(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None,
        run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
        kwargs: dict[str, Any],
    ) -> _Run:
        options = {"stop": stop, **kwargs} if (stop := stop or self.stop) else kwargs
        config: RunnableConfig = {"configurable": users_configurable()}
        if parent := ParentRun.started(run_manager) or current_parent():
            config["callbacks"] = parent.child_callbacks()
        copies = with_ids_of_questions(messages)
        own = {
            "aggregator_temperature": self.temperature,
            "aggregator_max_tokens": self.max_tokens,
        }
        own = {setting: value for setting, value in own.items() if value is not None}
        settings = (self.context or MoAContext()).model_copy(update=own)
        consulting = Consulting(self.consult, keep_references=self.keep_references)
        turn = consulting.turn(self._node.plan.identity, messages, settings, options)
        graph = once_a_turn(self.graph) if turn else self.graph
        context = settings.with_call_options(options).with_turn(turn)
        context = context.with_listener(surrounding_writer())
        record = partial(record_of, turn, self._node.model_name)
        return _Run({"messages": copies}, config, context, graph, record)

    # --- usage: added after the callbacks, which have already counted every call ----------

    @override
    def generate(self, *args: Any, **kwargs: Any) -> LLMResult:
        return with_usage(super().generate(*args, **kwargs))

    @override
    async def agenerate(self, *args: Any, **kwargs: Any) -> LLMResult:
        return with_usage(await super().agenerate(*args, **kwargs))

    @override
    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        config = ensure_config(config)
        parent = ParentRun.settled(get_callback_manager_for_config(config), config)
        chunks = super().stream(input, config, **kwargs)
        while True:
            with inside(parent), called_with(config):
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk_with_usage(chunk)

    @override
    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        config = ensure_config(config)
        parent = ParentRun.settled(get_async_callback_manager_for_config(config), config)
        chunks = super().astream(input, config, **kwargs)
        try:
            while True:
                with inside(parent), called_with(config):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk_with_usage(chunk)
        finally:
            await cast(AsyncGenerator[AIMessageChunk, None], chunks).aclose()

    # --- parent of the inner runs in traces -------------------------------------------
    # LangChain passes the run manager to `_generate`, but not to `_stream`.

    @override
    def _within(
        self, run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None
    ) -> AbstractContextManager[None]:
        return inside(ParentRun.started(run_manager))


class _Run(NamedTuple):
    input: dict[str, Any]
    config: RunnableConfig
    context: MoAContext
    graph: Any
    record: Callable[[AIMessage, MoAState], dict[str, Any]]


def _aggregator_node(graph: Any) -> Any:
    spec = getattr(getattr(graph, "builder", None), "nodes", {}).get(AGGREGATOR)
    return getattr(spec, "runnable", None)
