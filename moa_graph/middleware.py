"""Let the proposers of a mixture advise an agent whose model stays the user's own."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, TypeAlias, cast

from langchain.agents.middleware import (
    AgentMiddleware,
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
)
from langchain.agents.middleware.types import OmitFromInput
from langchain.tools import ToolRuntime
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.tools import BaseTool, StructuredTool
from langgraph.config import get_config
from langgraph.constants import TAG_NOSTREAM
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command
from pydantic import BaseModel, Field
from typing_extensions import TypedDict, override

from moa_graph.building.compiled import MoAGraph
from moa_graph.building.for_agents import is_progressive, without_answer
from moa_graph.calling import sync
from moa_graph.calling.owner import owner_in, thread_in
from moa_graph.calling.references import Question
from moa_graph.calling.turn import RECORD, Consult, Panel, Turn, as_consult, as_panel, digest
from moa_graph.chat_model import ChatMoA
from moa_graph.context import MoAContext
from moa_graph.events import CONSULT, ProposalStream
from moa_graph.models import max_tokens_of, window_of
from moa_graph.prompts import (
    FRAMEWORK_MARK,
    REVIEW_THE_DRAFT,
    USE_THE_ADVICE,
    USE_THE_REVIEWS,
    is_question,
    letters,
    question_place,
)
from moa_graph.state import Decision, Proposal, proposals_of_layer, selected, usable

logger = logging.getLogger("moa_graph")


class Consulted(TypedDict):
    """What the proposers said in the current turn of an agent."""

    turn: str
    """Key of the turn."""
    uses: int
    """How often they were asked in this turn."""
    asked_at: str
    """Digest of the conversation that they were shown last."""
    proposals: list[Proposal]
    """Their newest answers."""
    decisions: NotRequired[list[Decision]]
    error: NotRequired[str]
    """Why there are no reviews of the last draft."""


class MoAAgentState(AgentState[Any]):
    """State of an agent with `MoAMiddleware`."""

    moa: NotRequired[Annotated[Consulted, OmitFromInput]]


@dataclass(frozen=True)
class _Ask:
    """Ask the proposers."""

    input: dict[str, Any]
    context: MoAContext


@dataclass(frozen=True)
class _Call:
    """Call the agent's own model."""

    request: ModelRequest[Any]


@dataclass(frozen=True)
class _Wait:
    """Wait for a coroutine of the stored panels."""

    coroutine: Any


_Steps: TypeAlias = Generator[_Ask | _Call | _Wait, Any, Any]
Handler: TypeAlias = Callable[[ModelRequest[Any]], ModelResponse[Any]]
AsyncHandler: TypeAlias = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]


class MoAMiddleware(AgentMiddleware[MoAAgentState, Any, Any]):
    """Middleware for `create_agent`: the proposers of a mixture advise the agent's own model.

    The proposers are asked for advice, and the agent's model is shown it at the end of the latest
    question. The advice is not added to the conversation. The mixture's aggregator is not called,
    because the agent's model takes its place. A model call that is repeated by another middleware
    and a run that is resumed do not ask the proposers again.

    The proposers see the conversation with tool calls and results as text, and the names and
    descriptions of the agent's tools. Their newest answers are in the agent's state under `moa`.

    Args:
        moa: A graph of `create_moa` without `progressive`.
        consult: When to ask the proposers: `"turn"`, once for each human message, before the first
            model call; `"final"`, once for each human message, to review the draft of the answer,
            which is not streamed; or a function that takes the messages of a model call and
            returns whether to ask them before this call, such as `after_tool_error`.
        max_uses: Maximum number of times that they are asked in one turn (at least 1); no maximum
            by default.
        context: Settings of each run of the proposers.

    Raises:
        TypeError: If `moa` is not a graph of `create_moa`, or `max_uses` is not an integer.
        ValueError: If an argument is out of range, or the graph is progressive.

    An agent's run raises `NotEnoughProposals` if a layer has too few usable proposals. A draft
    that cannot be reviewed is the answer, and `state["moa"]["error"]` says why.

    Example:
        ```python
        moa = create_moa(["openai:gpt-5.2", "anthropic:claude-opus-5"], "openai:gpt-5.2")
        agent = create_agent("openai:gpt-5.2", tools=[search], middleware=[MoAMiddleware(moa)])
        ```
    """

    state_schema = MoAAgentState
    transformers = (ProposalStream,)

    def __init__(
        self,
        moa: MoAGraph,
        consult: Literal["turn", "final"] | Callable[[Sequence[BaseMessage]], bool] = "turn",
        max_uses: int | None = None,
        *,
        context: MoAContext | None = None,
    ) -> None:
        super().__init__()
        check_graph(moa, "MoAMiddleware")
        if is_progressive(moa):
            raise ValueError(
                "MoAMiddleware needs whole proposals, but the graph was built with progressive=…. "
                "Build it without."
            )
        self.max_uses = checked_uses(max_uses, "MoAMiddleware")
        self.consult: Consult = as_consult(consult, "MoAMiddleware", ("turn", "final"))
        self.moa = moa
        self.context = context or MoAContext()
        self._proposers = without_answer(moa)

    @override
    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> Any:
        """Call the agent's model with what the proposers say."""
        steps = self._steps(request)
        step, result = _next(steps)
        while step is not None:
            error: Exception | None = None
            answer: Any = None
            try:
                if isinstance(step, _Call):
                    answer = handler(step.request)
                elif isinstance(step, _Ask):
                    answer = self._proposers.invoke(step.input, context=step.context)
                else:
                    answer = sync.run(step.coroutine)
            except Exception as raised:  # noqa: BLE001 - given to the steps
                error = raised
            step, result = _next(steps, answer, error)
        return result

    @override
    async def awrap_model_call(self, request: ModelRequest[Any], handler: AsyncHandler) -> Any:
        """Call the agent's model with what the proposers say."""
        steps = self._steps(request)
        step, result = _next(steps)
        while step is not None:
            error: Exception | None = None
            answer: Any = None
            try:
                if isinstance(step, _Call):
                    answer = await handler(step.request)
                elif isinstance(step, _Ask):
                    answer = await self._proposers.ainvoke(step.input, context=step.context)
                else:
                    answer = await step.coroutine
            except Exception as raised:  # noqa: BLE001 - given to the steps
                error = raised
            step, result = _next(steps, answer, error)
        return result

    def _steps(self, request: ModelRequest[Any]) -> _Steps:
        call = _AgentCall(self, request)
        return call.reviewed() if self.consult == "final" else call.advised()


class _AgentCall:
    """One call of the agent's model, as steps that a sync or an async method takes."""

    def __init__(self, middleware: MoAMiddleware, request: ModelRequest[Any]) -> None:
        self._own = middleware
        self._plan = middleware.moa.plan
        self._request = request
        self._owner = owner_in(get_config())
        system = [request.system_message] if request.system_message else []
        self._messages: list[AnyMessage] = [*system, *request.messages]
        ask = (
            None
            if isinstance(middleware.consult, str)
            else bool(middleware.consult(request.messages))
        )
        settings = middleware.context.for_proposers
        way = "review" if middleware.consult == "final" else "advice"
        mixture = digest([way, self._plan.identity, settings])
        self._turn = Turn.of(
            mixture, self._messages, ask=ask, thread=thread_in(get_config()), trusted=False
        )
        known = cast(Any, request.state).get("moa") or {}
        if known and not any(map(is_question, self._messages)):  # a summary has replaced it
            self._turn.keys.insert(0, known["turn"])
        self._known: dict[str, Any] = known if known.get("turn") in self._turn.keys else {}
        self._turn.known = as_panel({"version": 1, **self._known})

    def advised(self) -> _Steps:
        """Call the model with advice on what to do next."""
        panel, _ = yield _Wait(self._plan.panels.find(self._turn, self._owner))
        if self._must_ask(panel):
            panel = yield from self._asked(self._messages)
        request = self._request
        if panel is not None:
            request = self._with(panel, self._plan.references.prompt or USE_THE_ADVICE)
        response = yield _Call(request)
        return self._told(response, panel)

    def reviewed(self) -> _Steps:
        """Call the model, and again with reviews if its answer is the last one of the turn."""
        panel, _ = yield _Wait(self._plan.panels.find(self._turn, self._owner))
        if self._known:  # reviewed already
            return (yield _Call(self._request))
        if panel is None:
            silent = self._request.override(model=_silent(self._request.model))
            response = yield _Call(silent)
            draft = _draft_in(response)
            if not draft:
                return response
            question = HumanMessage(REVIEW_THE_DRAFT, additional_kwargs={FRAMEWORK_MARK: "moa"})
            try:
                panel = yield from self._asked([*self._messages, AIMessage(draft), question])
            except GraphBubbleUp:
                raise
            except Exception as error:  # noqa: BLE001 - the draft is paid for
                logger.warning("The draft of the answer was not reviewed: %s", error)
                return self._told(response, None, str(error))
        # A run that is resumed gets the reviews of its first draft.
        prompt = USE_THE_REVIEWS.replace("{draft}", panel.get("draft", ""))
        return self._told((yield _Call(self._with(panel, prompt))), panel)

    def _must_ask(self, panel: Panel | None) -> bool:
        if self._turn.ask is False or (panel is not None and self._turn.serves(panel)):
            return False
        most = self._own.max_uses
        return most is None or self._known.get("uses", 0) < most

    def _asked(self, messages: list[AnyMessage]) -> Generator[Any, Any, Panel]:
        """Ask the proposers and keep their answers."""
        context = self._own.context.with_call_options({"tools": self._request.tools})
        state = yield _Ask({"messages": messages}, context)
        panel = self._turn.panel(state["proposals"], state.get("decisions", []))
        if self._own.consult == "final":
            panel["draft"] = str(state["messages"][-2].text)
        self._check(panel["proposals"])
        yield _Wait(self._plan.panels.keep(self._turn, self._owner, panel))
        return panel

    def _check(self, proposals: Sequence[Proposal]) -> None:
        """Check that the last layer has enough usable proposals.

        Raises:
            NotEnoughProposals: If it has not.
        """
        layer = _last_layer(proposals)
        policy = self._plan.policies[layer - 1]
        last = proposals_of_layer(proposals, layer)
        if len(usable(last)) < policy.min_proposals:
            raise self._plan.not_enough(layer, list(proposals))

    def _with(self, panel: Panel, prompt: str) -> ModelRequest[Any]:
        """Return the request with the proposals at the end of the latest question."""
        model, shown = self._request.model, self._plan.references
        layer = _last_layer(panel["proposals"])
        references = selected(panel["proposals"], panel.get("decisions", []), layer)
        question = Question(
            self._request.messages,
            references,
            prompt,
            labels=letters(len(references)) if self._plan.policies[layer - 1].lettered else None,
            fenced=shown.fenced,
            place="human",
            reasoning=shown.reasoning,
            window=shown.window or window_of(model),
            answer=max_tokens_of(model),
        )
        return self._request.override(messages=question.messages)

    def _told(self, response: Any, panel: Panel | None, error: str = "") -> Any:
        """Return the response, with the agent's record of what the proposers said."""
        new = panel is not None and panel["asked_at"] != self._known.get("asked_at")
        if not (new or error):
            return response
        record = Consulted(
            turn=self._turn.key,
            uses=self._known.get("uses", 0) + new,
            asked_at=panel["asked_at"] if panel else "",
            proposals=panel["proposals"] if panel else [],
        )
        if panel and panel.get("decisions"):
            record["decisions"] = panel["decisions"]
        if error:
            record["error"] = error
        return ExtendedModelResponse(response, Command(update={"moa": record}))


def _next(
    steps: _Steps, answer: Any = None, error: Exception | None = None
) -> tuple[_Ask | _Call | _Wait | None, Any]:
    """Return the next step, or None and the result if there is none."""
    try:
        return (steps.send(answer) if error is None else steps.throw(error)), None
    except StopIteration as end:
        return None, end.value


def _silent(model: BaseChatModel) -> BaseChatModel:
    """Return the model without its tokens in streams of messages."""
    return model.model_copy(update={"tags": [*(model.tags or []), TAG_NOSTREAM]})


def _draft_in(response: ModelResponse[Any]) -> str:
    """Return the answer of a response that ends the turn; "" if it has tool calls."""
    answers = [m for m in response.result if isinstance(m, AIMessage)]
    if not answers:
        return ""
    if response.structured_response is not None:
        called = answers[-1].tool_calls
        return json.dumps(called[0]["args"], ensure_ascii=False) if called else answers[-1].text
    return "" if answers[-1].tool_calls else str(answers[-1].text).strip()


def _last_layer(proposals: Sequence[Proposal]) -> int:
    return max((p["layer"] for p in proposals), default=1)


# --- when to ask --------------------------------------------------------------------------------


def after_tool_error(messages: Sequence[BaseMessage]) -> bool:
    """Return whether a tool has failed since the model's last answer; a value of `consult`."""
    for message in reversed(messages):
        if isinstance(message, AIMessage):
            return False
        if isinstance(message, ToolMessage) and message.status == "error":
            return True
    return False


def when_repeating(messages: Sequence[BaseMessage]) -> bool:
    """Return whether the model's last two answers call the same tools; a value of `consult`."""
    place = question_place(messages)
    since = messages[place + 1 :] if place is not None else messages
    calls = [
        [(call["name"], call["args"]) for call in message.tool_calls]
        for message in since
        if isinstance(message, AIMessage)
    ]
    return len(calls) > 1 and bool(calls[-1]) and calls[-1] == calls[-2]


# --- the tool -----------------------------------------------------------------------------------

# LangGraph fills in `runtime` only if its type is exactly this, and not optional.
_NO_RUNTIME = cast("ToolRuntime[Any, Any]", None)
_AT_THE_LIMIT = (
    "The panel has been asked {uses} times for this question, which is the limit. Answer with what "
    "you know."
)


def consult_tool(moa: MoAGraph, max_uses: int = 3) -> BaseTool:
    """Return a tool named `consult` with which an agent asks a mixture.

    Its arguments are `question` and, optionally, `context`: what the agent knows. The mixture sees
    these and not the conversation. The result is the mixture's answer; the artifact of the tool
    message is its record, with the `proposals`.

    Args:
        moa: A graph of `create_moa`.
        max_uses: Maximum number of calls for each human message (at least 1). Further calls
            return a text that says so, and ask nobody.

    Raises:
        TypeError: If `moa` is not a graph of `create_moa`, or `max_uses` is not an integer.
        ValueError: If `max_uses` is below 1.

    Example: `create_agent(model, tools=[search, consult_tool(moa)])`
    """
    check_graph(moa, "consult_tool")
    most = checked_uses(max_uses, "consult_tool")
    model = ChatMoA(graph=moa, consult="always").with_config(tags=[TAG_NOSTREAM])

    def consult(
        question: str, context: str = "", *, runtime: ToolRuntime[Any, Any] = _NO_RUNTIME
    ) -> tuple[str, dict[str, Any] | None]:
        if _used(runtime) >= most:
            return _AT_THE_LIMIT.format(uses=most), None
        return _answer(model.invoke(_asked(question, context)))

    async def aconsult(
        question: str, context: str = "", *, runtime: ToolRuntime[Any, Any] = _NO_RUNTIME
    ) -> tuple[str, dict[str, Any] | None]:
        if _used(runtime) >= most:
            return _AT_THE_LIMIT.format(uses=most), None
        return _answer(await model.ainvoke(_asked(question, context)))

    return StructuredTool.from_function(
        consult,
        aconsult,
        name=CONSULT,
        description=_DESCRIPTION,
        args_schema=_Question,
        response_format="content_and_artifact",
    )


_DESCRIPTION = (
    "Ask a panel of several models, and get one answer that combines theirs. It is slower and "
    "costs more than answering yourself: use it for hard questions, for decisions that matter, and "
    "when you are stuck. The panel does not see this conversation."
)


class _Question(BaseModel):
    question: str = Field(description="The whole question, understandable on its own.")
    context: str = Field(default="", description="What the panel needs to know to answer it.")


def _asked(question: str, context: str) -> list[BaseMessage]:
    return [HumanMessage(f"{question}\n\nContext:\n{context}" if context.strip() else question)]


def _answer(message: AIMessage) -> tuple[str, dict[str, Any]]:
    return str(message.text), message.response_metadata[RECORD]


def _used(runtime: ToolRuntime[Any, Any] | None) -> int:
    """Return how often the tool was called in this turn before this call; 0 without an agent."""
    if runtime is None:
        return 0
    state = runtime.state
    messages = state.get("messages", []) if isinstance(state, Mapping) else state
    place = question_place(messages)
    calls = [
        call["id"]
        for message in messages[place or 0 :]
        if isinstance(message, AIMessage)
        for call in message.tool_calls
        if call["name"] == CONSULT
    ]
    own = runtime.tool_call_id
    return calls.index(own) if own in calls else len(calls)


def check_graph(moa: Any, owner: str) -> None:
    """Check that a value is a graph of `create_moa`.

    Raises:
        TypeError: If it is not.
    """
    if not isinstance(moa, MoAGraph):
        raise TypeError(
            f"{owner}(moa=…) must be a graph of create_moa, not {type(moa).__name__}: "
            f"{owner}(create_moa([…], aggregator))."
        )


def checked_uses(given: Any, owner: str) -> Any:
    """Return `max_uses` after checking it.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 1.
    """
    if given is None and owner == MoAMiddleware.__name__:
        return None
    if isinstance(given, bool) or not isinstance(given, int):
        raise TypeError(f"{owner}(max_uses={given!r}) must be an integer.")
    if given < 1:
        raise ValueError(f"{owner}(max_uses={given}) must be at least 1.")
    return given
