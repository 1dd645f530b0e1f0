"""One node's view of a run: its layer, and the decisions and drafts so far."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.runtime import Runtime, get_runtime

from moa_graph.calling import sync
from moa_graph.context import MoAContext
from moa_graph.events import LayerEnded, ProposalMade
from moa_graph.models.text import utf8
from moa_graph.nodes.plan import Plan, Policy
from moa_graph.nodes.reading import Reading
from moa_graph.nodes.shared import Run
from moa_graph.nodes.spending import Spending
from moa_graph.nodes.timing import Timing
from moa_graph.prompts import (
    check_conversation,
    fence_of,
)
from moa_graph.state import (
    Decision,
    Draft,
    MoAState,
    Proposal,
    decisions_of,
    proposals_of_layer,
    turn_of,
    usable,
)

T = TypeVar("T")

_NO_CONTEXT = MoAContext()


@dataclass(frozen=True, slots=True)
class Step:
    """One node's view of the run."""

    plan: Plan
    layer: int
    messages: list[AnyMessage]
    proposals: list[Proposal]
    context: MoAContext
    config: RunnableConfig
    runtime: Runtime[Any]
    earlier_decisions: list[Decision] = field(default_factory=list)
    """Decisions in the state, which may include those of an earlier turn."""
    earlier_drafts: dict[str, Draft] = field(default_factory=dict)
    """Drafts in the state, which may belong to an earlier question."""
    opens: bool = False
    """Whether the step comes before the proposers and begins the turn."""

    @classmethod
    def of(
        cls,
        plan: Plan,
        layer: int,
        state: MoAState,
        config: RunnableConfig | None,
        *,
        after: bool = False,
        opens: bool = False,
    ) -> Step | None:
        """Return the step, or None if the run's context skips this layer.

        Args:
            plan: Settings that all nodes of the graph share.
            layer: The layer, from 1.
            state: The node's input.
            config: Configuration of the node's run.
            after: Whether the step follows that layer and reads its proposals.
            opens: Whether the step comes before the first layer.

        Raises:
            ValueError: If the conversation or the context is not valid.
        """
        runtime = get_runtime(MoAContext)
        # LangGraph passes a parent graph's context to subgraphs. Ignore it.
        context = runtime.context if isinstance(runtime.context, MoAContext) else _NO_CONTEXT
        _check_context(plan, context)
        context.check_state(state)
        if layer < plan.layers and layer >= (context.layers or plan.layers):
            return None
        if after:
            layer += 1
        if layer == 1:
            check_conversation(state["messages"])
        return cls(
            plan,
            layer,
            state["messages"],
            state.get("proposals", []),
            context,
            config or {},
            runtime,
            decisions_of(state),
            state.get("drafts") or {},  # type: ignore[arg-type]
            opens,
        )

    @property
    def reading(self) -> Reading:
        """Input for its models."""
        return Reading(self)

    @property
    def timing(self) -> Timing:
        """Time limits of the step."""
        return Timing(self)

    @property
    def spending(self) -> Spending:
        """Budget and terms of its calls."""
        return Spending(self)

    @property
    def policy(self) -> Policy:
        """Policy of this layer, if it is a layer of proposers."""
        return self.plan.policies[self.layer - 1]

    @property
    def asked(self) -> str:
        """The text of the latest human message."""
        questions = [m.text for m in self.messages if isinstance(m, HumanMessage)]
        return utf8(str(questions[-1])) if questions else ""

    @property
    def decisions(self) -> list[Decision]:
        """Decisions of this turn so far."""
        return [d for d in self.earlier_decisions if d["turn"] == self.turn]

    def decision(self, step: str) -> Decision | None:
        """Return this turn's decision of a step, by node name; None if there is none."""
        return next((d for d in self.decisions if d["step"] == step), None)

    @property
    def streams_proposals(self) -> bool:
        """Whether a stream of messages includes the proposers' tokens."""
        streams = self.context.stream_proposals
        return self.plan.stream_proposals if streams is None else streams

    @property
    def run(self) -> Run:
        """Objects that this run's nodes share."""
        return self.plan.runs.of(self.runtime.control, self.namespace)

    def end_run(self) -> None:
        """Remove the shared objects of a run that has ended."""
        self.plan.runs.end(self.runtime.control, self.namespace)

    async def within(self, node: Coroutine[Any, Any, T]) -> T:
        """Run a node's coroutine, and end the run if the coroutine is cancelled."""
        try:
            update = await node
        except sync.Cancelled:
            self.end_run()
            raise
        _tell_proposals(self.context, update)
        return update

    def tell_layer_ended(self) -> None:
        """Write an event to the custom stream that the previous layer has ended."""
        if self.layer == 1:
            return
        before = proposals_of_layer(self.proposals, self.layer_before)
        ok = len(usable(before))
        self.runtime.stream_writer(
            LayerEnded(type="layer_ended", layer=self.layer_before, ok=ok, failed=len(before) - ok)
        )

    @property
    def layer_before(self) -> int:
        """The layer with this step's references; 0 if this is the first layer."""
        if self.layer == self.plan.layers:
            for decision in self.decisions:
                if decision["outcome"] == "exit":
                    return decision["layer"]
        return min(self.layer, self.context.layers or self.plan.layers) - 1

    @property
    def turn(self) -> int:
        """The current turn of the conversation, from 1."""
        for draft in self.drafts.values():
            return draft["turn"]
        before = turn_of(self.proposals)
        if self.layer > 1:
            return before
        begun = turn_of(self.earlier_decisions)
        return begun if self.plan.routed and not self.opens else max(before, begun) + 1

    @property
    def drafts(self) -> dict[str, Draft]:
        """Drafts for this turn's question, by node."""
        return {
            node: draft
            for node, draft in self.earlier_drafts.items()
            if draft["question"] == self.question_key
        }

    def draft(self, node: str) -> Draft:
        """Return the draft of a node; an empty draft if it has not written anything."""
        return self.drafts.get(node) or Draft(
            node=node,
            question=self.question_key,
            turn=self.turn,
            pieces=[],
            tail="",
            tokens=0,
            ended=False,
            closed=False,
            views=[],
            usage=None,
            attempts=0,
            latency=0.0,
            message_id=f"run--{uuid4()}",
        )

    @property
    def question_key(self) -> str:
        """Key of this turn's question, unique in the thread."""
        last = self.messages[-1]
        return f"{last.id} {fence_of(str(last.content))}"

    @property
    def record_id(self) -> str:
        """Id for this node's record: the id of LangGraph's task, which is unique."""
        info = self.runtime.execution_info
        return info.task_id if info else uuid4().hex

    @property
    def namespace(self) -> str:
        """The run's checkpoint namespace in its parent graphs."""
        info = self.runtime.execution_info
        return info.checkpoint_ns.rpartition("|")[0] if info else ""


def _tell_proposals(context: MoAContext, update: Any) -> None:
    """Tell the new proposals to the listener of the run, if it has one."""
    tell = context.on_proposal
    if tell is not None and isinstance(update, dict):
        for proposal in update.get("proposals", ()):
            tell(ProposalMade(type="proposal", proposal=proposal))


def _check_context(plan: Plan, context: MoAContext) -> None:
    if context.layers is not None and context.layers > plan.layers:
        raise ValueError(
            f"The context asks for {context.layers} layers, but this graph was built with "
            f"{plan.layers}: give create_moa(layers={context.layers}) or ask for fewer."
        )
    if context.quorum is None:
        return
    run = plan.policies[: (context.layers or plan.layers) - 1]
    if not any(policy.has_room(context.quorum) for policy in run):
        rooms = ", ".join(f"{policy.min_proposals} to {policy.width}" for policy in run)
        raise ValueError(
            f"The context sets quorum={context.quorum}, which is out of range for every layer. "
            f"Ranges (min_proposals to number of proposers): {rooms}."
        )
