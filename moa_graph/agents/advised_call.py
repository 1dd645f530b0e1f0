"""One call of an agent's own model, with what the proposers of a mixture say."""

from __future__ import annotations

import json
import logging
from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Any, NotRequired, TypeAlias, cast

from langchain.agents.middleware import (
    AgentState,
    ExtendedModelResponse,
    ModelRequest,
    ModelResponse,
)
from langchain.agents.middleware.types import OmitFromInput
from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command
from typing_extensions import TypedDict

from moa_graph.calling.owner import owner_in, thread_in
from moa_graph.calling.references import Question
from moa_graph.calling.turn import (
    VERSION,
    Consult,
    Panel,
    Turn,
    as_panel,
    digest,
    last_layer_of,
    references_of,
    wants_panel,
)
from moa_graph.context import MoAContext
from moa_graph.models import max_tokens_of, window_of
from moa_graph.nodes.plan import Plan
from moa_graph.prompts import (
    FRAMEWORK_MARK,
    REVIEW_THE_DRAFT,
    USE_THE_ADVICE,
    USE_THE_REVIEWS,
    letters,
)
from moa_graph.state import Decision, Proposal, proposals_of_layer, usable

logger = logging.getLogger("moa_graph")


class Consulted(TypedDict):
    """What the proposers said in the current turn of an agent."""

    turn: str
    """Key of the turn."""
    question: str
    """Digest of its question."""
    uses: int
    """How often they were asked in this turn."""
    asked_at: str
    """Digest of the conversation that they were shown last."""
    proposals: list[Proposal]
    """Their newest answers."""
    decisions: NotRequired[list[Decision]]
    error: NotRequired[str]
    """Why the answer is a draft: it was not reviewed, or not written again."""


class MoAAgentState(AgentState[Any]):
    """State of an agent with `MoAMiddleware`."""

    moa: NotRequired[Annotated[Consulted, OmitFromInput]]


@dataclass(frozen=True)
class Ask:
    """Ask the proposers."""

    input: dict[str, Any]
    context: MoAContext


@dataclass(frozen=True)
class Call:
    """Call the agent's own model; with `hidden`, without its tokens in streams of messages."""

    request: ModelRequest[Any]
    hidden: bool = False


@dataclass(frozen=True)
class Wait:
    """Wait for a coroutine of the stored panels."""

    coroutine: Any


Step: TypeAlias = Ask | Call | Wait
Steps: TypeAlias = Generator[Step, Any, Any]


@dataclass(frozen=True)
class Advice:
    """Who advises an agent's model, and when.

    Args:
        plan: The mixture.
        consult: As in `MoAMiddleware`.
        max_uses: As in `MoAMiddleware`.
        context: Settings of each run of the proposers.
    """

    plan: Plan
    consult: Consult
    max_uses: int | None
    context: MoAContext


class AdvisedCall:
    """One call of the agent's model, as steps that a sync or an async method takes.

    Args:
        advice: Who advises, and when.
        request: The call.
        config: Configuration of the agent's run.
    """

    def __init__(self, advice: Advice, request: ModelRequest[Any], config: RunnableConfig) -> None:
        self._advice = advice
        self._plan = advice.plan
        self._request = request
        self._owner = owner_in(config)
        system = [request.system_message] if request.system_message else []
        self._messages: list[AnyMessage] = [*system, *request.messages]
        ask = wants_panel(advice.consult, request.messages)
        way = "review" if advice.consult == "final" else "advice"
        mixture = digest([way, self._plan.identity, advice.context.for_proposers])
        self._turn = Turn.of(
            mixture, self._messages, ask=ask, thread=thread_in(config), trusted=False
        )
        known = cast(Any, request.state).get("moa") or {}
        # A summary may have replaced the question. The system prompt may change within a turn.
        same = not self._turn.question or known.get("question") == self._turn.question
        ours = same or known.get("turn") in self._turn.keys
        self._known: dict[str, Any] = known if ours else {}
        if self._known:
            self._turn.keys.insert(0, self._known["turn"])
        self._turn.known = as_panel({"version": VERSION, **self._known})

    def advised(self) -> Steps:
        """Call the model with advice on what to do next."""
        panel, _ = yield Wait(self._plan.panels.find(self._turn, self._owner))
        if panel is None and self._may_ask():
            panel = yield from self._asked(self._messages)
        panel = panel or self._turn.known
        request = self._request
        if panel is not None:
            request = self._with(panel, self._plan.references.prompt or USE_THE_ADVICE)
        response = yield Call(request)
        return self._told(response, panel)

    def reviewed(self) -> Steps:
        """Call the model, and again with reviews if its answer is the last one of the turn."""
        if self._known:  # reviewed already
            return (yield Call(self._request))
        panel, _ = yield Wait(self._plan.panels.find(self._turn, self._owner))
        response: Any = None
        if panel is None or panel["asked_at"] != self._turn.asked_at:
            response = yield Call(self._request, hidden=True)
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
        try:
            return self._told((yield Call(self._with(panel, prompt))), panel)
        except GraphBubbleUp:
            raise
        except Exception as error:
            if response is None:
                raise
            logger.warning("The reviewed answer was not written, so the draft is it: %s", error)
            return self._told(response, panel, str(error))

    def _may_ask(self) -> bool:
        most = self._advice.max_uses
        return self._turn.ask is not False and (most is None or self._known.get("uses", 0) < most)

    def _asked(self, messages: list[AnyMessage]) -> Generator[Any, Any, Panel]:
        """Ask the proposers and keep their answers."""
        context = self._advice.context.with_call_options({"tools": self._request.tools})
        state = yield Ask({"messages": messages}, context)
        panel = self._turn.panel(state["proposals"], state.get("decisions", []))
        if self._advice.consult == "final":
            panel["draft"] = str(state["messages"][-2].text)
        self._check(panel)
        yield Wait(self._plan.panels.keep(self._turn, self._owner, panel))
        return panel

    def _check(self, panel: Panel) -> None:
        """Check that the last layer has enough usable proposals.

        Raises:
            NotEnoughProposals: If it has not.
        """
        layer = last_layer_of(panel)
        last = proposals_of_layer(panel["proposals"], layer)
        if len(usable(last)) < self._plan.policies[layer - 1].min_proposals:
            raise self._plan.not_enough(layer, panel["proposals"])

    def _with(self, panel: Panel, prompt: str) -> ModelRequest[Any]:
        """Return the request with the proposals at the end of the latest question."""
        model, shown = self._request.model, self._plan.references
        references, layer = references_of(panel), last_layer_of(panel)
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
            question=self._turn.question or self._known.get("question", ""),
            uses=self._known.get("uses", 0) + new,
            asked_at=panel["asked_at"] if panel else "",
            proposals=panel["proposals"] if panel else [],
        )
        if panel and panel.get("decisions"):
            record["decisions"] = panel["decisions"]
        if error:
            record["error"] = error
        return ExtendedModelResponse(response, Command(update={"moa": record}))


def _draft_in(response: ModelResponse[Any]) -> str:
    """Return the answer of a response that ends the turn; "" if it has tool calls."""
    answers = [m for m in response.result if isinstance(m, AIMessage)]
    if not answers:
        return ""
    if response.structured_response is not None:
        called = answers[-1].tool_calls
        return json.dumps(called[0]["args"], ensure_ascii=False) if called else answers[-1].text
    return "" if answers[-1].tool_calls else str(answers[-1].text).strip()
