"""What a proposer and the aggregator do when their turn comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphBubbleUp, ParentCommand
from langgraph.runtime import Runtime, get_runtime
from langgraph.types import RetryPolicy

from moa_graph.calls import Call, options_in
from moa_graph.context import MoAContext
from moa_graph.errors import (
    AggregationFailed,
    MoAError,
    NotEnoughProposals,
    refused_credentials,
)
from moa_graph.events import AggregatorStarted, LayerEnded, ProposerEnded, ProposerStarted
from moa_graph.models import Model, as_message, with_call_options, with_settings
from moa_graph.prompts import check_conversation, extend_system_message, inject_references
from moa_graph.retries import is_last_attempt
from moa_graph.state import (
    MoAState,
    Proposal,
    ProposalStatus,
    proposals_of_layer,
    turn_of,
    usable,
)
from moa_graph.streaming import ProposerTokens, without_message_stream

logger = logging.getLogger("moa_graph")

_HANDED_OVER = "the agent handed over to its parent graph (Command.PARENT) instead of answering"
_SAYS_NOTHING = {"text", "reasoning", "thinking", "redacted_thinking", "refusal"}


@dataclass(frozen=True)
class Plan:
    """What all nodes of a graph share."""

    layers: int
    """Layers built, the aggregator's included."""
    models: Sequence[Model]
    """Every model of the graph."""
    aggregation_prompt: str
    min_proposals: int
    stream_proposals: bool
    concurrency: int
    """Proposers that run at once; what LangGraph is given as `max_concurrency`."""
    retries: Sequence[RetryPolicy] = ()


@dataclass(frozen=True)
class _Step:
    """One node's view of the run: where it stands, and what it may see."""

    plan: Plan
    layer: int
    messages: list[AnyMessage]
    proposals: list[Proposal]
    context: MoAContext
    config: RunnableConfig
    runtime: Runtime[Any]

    @classmethod
    def of(
        cls, plan: Plan, layer: int, state: MoAState, config: RunnableConfig | None
    ) -> _Step | None:
        """The step, or None if the run's context leaves this layer out.

        Raises:
            ValueError: If the conversation or the context is not usable.
        """
        runtime = get_runtime(MoAContext)
        # A parent graph's own context reaches its subgraphs: it is not meant for us.
        context = runtime.context if isinstance(runtime.context, MoAContext) else MoAContext()
        if context.layers is not None and context.layers > plan.layers:
            raise ValueError(
                f"The context asks for {context.layers} layers, but this graph was built with "
                f"{plan.layers}: give create_moa(layers={context.layers}) or ask for fewer."
            )
        if layer < plan.layers and layer >= (context.layers or plan.layers):
            return None
        if layer == 1:
            check_conversation(state["messages"])
        proposals = state.get("proposals", [])
        return cls(plan, layer, state["messages"], proposals, context, config or {}, runtime)

    def call(
        self,
        model: Runnable[Any, Any],
        messages: Sequence[AnyMessage],
        config: RunnableConfig,
        callbacks: Sequence[BaseCallbackHandler] = (),
    ) -> Call:
        """A call of a model within this step."""
        own = config.get("max_concurrency") == self.plan.concurrency
        call = Call.of(model, messages, config, callbacks)
        if own:  # the graph's own, and no limit for an agent's tools
            call.config.pop("max_concurrency", None)
        return call

    def conversation(self, role: str | None = None) -> list[AnyMessage]:
        """The messages for a model of this layer: the references of the layer before included.

        Raises:
            NotEnoughProposals: If that layer gave too few.
        """
        messages = extend_system_message(self.messages, role) if role else list(self.messages)
        if self.layer == 1:
            return messages
        references = [p["content"] for p in self._references()]
        prompt = self.context.aggregation_prompt or self.plan.aggregation_prompt
        return inject_references(messages, references, prompt)

    def _references(self) -> list[Proposal]:
        before = proposals_of_layer(self.proposals, self.layer_before)
        references = usable(before)
        if len(references) < self.plan.min_proposals:
            reasons = "; ".join(
                f"{p['proposer']}: {p['error'] or p['status']}"
                for p in before
                if p["status"] != "ok"
            )
            raise NotEnoughProposals(
                f"Layer {self.layer_before} gave {len(references)} usable proposals of "
                f"{len(before)}, and {self.plan.min_proposals} are needed. {reasons}",
                self.proposals,
            )
        return references

    def tell_layer_ended(self) -> None:
        """Tell the custom stream that the layer before is done."""
        if self.layer == 1:
            return
        before = proposals_of_layer(self.proposals, self.layer_before)
        ok = len(usable(before))
        self.runtime.stream_writer(
            LayerEnded(type="layer_ended", layer=self.layer_before, ok=ok, failed=len(before) - ok)
        )

    @property
    def layer_before(self) -> int:
        """The layer whose proposals are this step's references; 0 for the first."""
        return min(self.layer, self.context.layers or self.plan.layers) - 1

    @property
    def attempt(self) -> int:
        info = self.runtime.execution_info
        return info.node_attempt if info else 1

    def seconds_since(self, started: float) -> float:
        """Seconds since the node's first attempt; `started` is this attempt's `perf_counter`."""
        info = self.runtime.execution_info
        if info and info.node_attempt > 1 and info.node_first_attempt_time:
            return time.time() - info.node_first_attempt_time
        return time.perf_counter() - started


class _NoAnswer(MoAError):
    """A model answered, and its answer is none."""


class ProposerNode(Runnable[MoAState, dict[str, Any]]):
    """Asks one model, and returns one `Proposal`, whatever happens.

    A model's failure is the proposal's status, never an exception: its siblings go on, and no
    other model sees it.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        layer: int,
        position: int,
        proposer: str,
        model: Model,
        prompt: str | None,
    ) -> None:
        self.plan = plan
        self.layer = layer
        self.position = position
        self.proposer = proposer
        self.model = model
        self.prompt = prompt

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := _Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        for model in self.plan.models:
            model.get()
        call = self._start(step)
        try:
            return self._end(step, call, call.invoke())
        except ParentCommand:
            return self._record(step, call, "failed", error=_HANDED_OVER)
        except GraphBubbleUp:
            raise
        except Exception as error:
            return self._fail(step, call, error)

    async def ainvoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := _Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        for model in self.plan.models:
            await model.aget()
        call = self._start(step)
        try:
            return self._end(step, call, await call.ainvoke())
        except ParentCommand:
            return self._record(step, call, "failed", error=_HANDED_OVER)
        except GraphBubbleUp:
            raise
        except Exception as error:
            return self._fail(step, call, error)

    def _start(self, step: _Step) -> Call:
        messages = step.conversation(self.prompt)
        if self.position == 0:
            step.tell_layer_ended()
        write = step.runtime.stream_writer
        write(
            ProposerStarted(
                type="proposer_started",
                layer=self.layer,
                proposer=self.proposer,
                model=self.model.name,
            )
        )
        model = with_settings(
            self.model.get(),
            temperature=step.context.proposer_temperature,
            max_tokens=step.context.proposer_max_tokens,
        )
        streams = self.plan.stream_proposals
        config = step.config if streams else without_message_stream(step.config)
        progress = ProposerTokens(self.layer, self.proposer, write)
        return step.call(model, messages, config, [progress] if streams else [])

    def _end(self, step: _Step, call: Call, output: Any) -> dict[str, Any]:
        message = as_message(output)
        if message.text.strip():
            return self._record(step, call, "ok", message)
        return self._record(step, call, "failed", message, error=_why_empty(message))

    def _fail(self, step: _Step, call: Call, error: Exception) -> dict[str, Any]:
        if not is_last_attempt(self.plan.retries, error, step.attempt):
            raise error
        return self._record(step, call, "failed", error=call.explain(error))

    def _record(
        self,
        step: _Step,
        call: Call,
        status: ProposalStatus,
        message: AIMessage | None = None,
        error: str | None = None,
    ) -> dict[str, Any]:
        usage = call.tokens(message)
        proposal = Proposal(
            layer=self.layer,
            proposer=self.proposer,
            model=self.model.name,
            content=message.text if message and status == "ok" else "",
            status=status,
            error=error,
            usage=usage,
            latency=step.seconds_since(call.started),
            attempts=step.attempt,
            position=self.position,
            turn=turn_of(step.proposals) + (1 if self.layer == 1 else 0),
        )
        if error:
            logger.warning("Proposer %s of layer %d: %s", self.proposer, self.layer, error)
        step.runtime.stream_writer(
            ProposerEnded(
                type="proposer_ended",
                layer=self.layer,
                proposer=self.proposer,
                status=status,
                latency=proposal["latency"],
                tokens=usage["output_tokens"] if usage else None,
                error=error,
            )
        )
        return {"proposals": [proposal]}


class AggregatorNode(Runnable[MoAState, dict[str, Any]]):
    """Synthesizes the answer from the last layer's proposals."""

    def __init__(self, plan: Plan, model: Model) -> None:
        self.plan = plan
        self.model = model

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        step, call = self._start(input, config)
        try:
            return self._end(step, call, call.invoke())
        except GraphBubbleUp:
            raise
        except Exception as error:
            self._fail(step, call, error)

    async def ainvoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        await self.model.aget()
        step, call = self._start(input, config)
        try:
            return self._end(step, call, await call.ainvoke())
        except GraphBubbleUp:
            raise
        except Exception as error:
            self._fail(step, call, error)

    def _start(self, state: MoAState, config: RunnableConfig | None) -> tuple[_Step, Call]:
        step = _Step.of(self.plan, self.plan.layers, state, config)
        assert step is not None  # the aggregator's layer is never left out
        messages = step.conversation()
        step.tell_layer_ended()
        step.runtime.stream_writer(
            AggregatorStarted(
                type="aggregator_started", layer=self.plan.layers, model=self.model.name
            )
        )
        model = with_settings(
            self.model.get(),
            temperature=step.context.aggregator_temperature,
            max_tokens=step.context.aggregator_max_tokens,
        )
        model = with_call_options(model, options_in(step.config))
        return step, step.call(model, messages, step.config)

    def _end(self, step: _Step, call: Call, output: Any) -> dict[str, Any]:
        message = as_message(output)
        if not _says_something(message):
            raise _NoAnswer(_why_empty(message))
        known = {m.id for m in step.messages}
        update: dict[str, Any] = {"usage_metadata": call.tokens(message)}
        if message.id in known:
            update["id"] = None  # the reducer would take it for a correction of that message
        return {"messages": [message.model_copy(update=update)]}

    def _fail(self, step: _Step, call: Call, error: Exception) -> NoReturn:
        if not is_last_attempt(self.plan.retries, error, step.attempt):
            raise error
        # A provider's refusal of a key may quote it, and a traceback would print its cause.
        cause = None if refused_credentials(error) else error
        reason = str(error) if isinstance(error, _NoAnswer) else call.explain(error)
        raise AggregationFailed(
            f"The aggregator {self.model.name} failed: {reason}. The proposals are "
            "kept in this error's `proposals`; with a checkpointer, invoke the same thread with "
            "None to call only the aggregator again.",
            step.proposals,
        ) from cause


def _says_something(message: AIMessage) -> bool:
    """Whether there is an answer in it: text, a tool call, a picture …"""
    if message.text.strip() or message.tool_calls or message.invalid_tool_calls:
        return True
    blocks = message.content if isinstance(message.content, list) else []
    return any(isinstance(b, dict) and b.get("type") not in _SAYS_NOTHING for b in blocks)


def _why_empty(message: AIMessage) -> str:
    if message.additional_kwargs.get("refusal"):
        return "the model refused to answer"
    if message.tool_calls:
        return "the model only called tools; give an agent that runs them instead"
    reason = message.response_metadata.get("finish_reason")
    return f"the answer was empty (finish_reason: {reason})" if reason else "the answer was empty"
