"""The node that decides whether an agent's proposers are asked in this call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.runtime import get_runtime
from langgraph.types import Command

from moa_graph.calling import sync
from moa_graph.calling.owner import owner_in
from moa_graph.calling.turn import Panel, Turn, digest, uses_tools_since_question
from moa_graph.context import MoAContext
from moa_graph.nodes.plan import AGGREGATOR, Plan
from moa_graph.nodes.step import Step
from moa_graph.state import MoAState, decisions_of, proposals_of_layer, turn_of, usable


class ConsultNode(Runnable[MoAState, Any]):
    """A node that leads to the proposers, or to the aggregator with this turn's proposals.

    Args:
        plan: Settings that all nodes of the graph share.
        first: Nodes of the first stage.
    """

    def __init__(self, plan: Plan, first: Sequence[str]) -> None:
        self.plan = plan
        self.first = list(first)

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Command[Any]:
        return sync.run(self._next(input, config or {}))

    async def ainvoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Command[Any]:
        return await self._next(input, config or {})

    async def _next(self, state: MoAState, config: RunnableConfig) -> Command[Any]:
        context = get_runtime(MoAContext).context
        turn = turn_of_run(self.plan, context, state) if isinstance(context, MoAContext) else None
        if turn is None:
            return Command(goto=self.first)
        panel, source = await self.plan.panels.find(turn, owner_in(config))
        if panel is not None:
            turn.source = source
            return Command(goto=AGGREGATOR, update=_update(panel, state))
        if turn.ask is False:
            turn.source = "none"
            return Command(goto=AGGREGATOR)
        return Command(goto=self.first)


def turn_of_run(plan: Plan, context: MoAContext, state: Mapping[str, Any]) -> Turn | None:
    """Return the turn of a run; None if it always asks the proposers.

    A graph gives messages new ids in each run. Without a `turn` in the context, a turn is
    therefore identified by the whole conversation.
    """
    if context.turn is not None:
        return context.turn
    messages = state["messages"]
    acts = bool(context.options.get("tools")) or uses_tools_since_question(messages)
    if not (context.once_a_turn and acts):
        return None
    mixture = digest([plan.identity, context.for_proposers])
    return Turn.of(mixture, messages, by_id=False, trusted=False)


async def keep_panel(step: Step) -> None:
    """Keep this turn's proposals for later calls, before the aggregator is asked."""
    turn = turn_of_run(step.plan, step.context, {"messages": step.messages})
    if turn is None or turn.source != "asked":
        return
    last = proposals_of_layer(step.proposals, step.layer_before)
    policy = step.plan.policies[step.layer_before - 1]
    # A staircase may not have finished them, and too few are an error.
    if len(last) < policy.width or len(usable(last)) < max(1, policy.min_proposals):
        return
    panel = turn.panel(step.proposals, step.decisions)
    await step.plan.panels.keep(turn, owner_in(step.config), panel)


def _update(panel: Panel, state: MoAState) -> dict[str, Any]:
    """Return the state update with the panel, as the newest turn of the thread."""
    turn = 1 + max(turn_of(state.get("proposals", [])), turn_of(decisions_of(state)))
    update: dict[str, Any] = {"proposals": [{**p, "turn": turn} for p in panel["proposals"]]}
    if decisions := panel.get("decisions"):
        update["decisions"] = [{**d, "turn": turn} for d in decisions]
    return update
