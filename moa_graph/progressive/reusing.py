"""The aggregator of a progressive graph in the calls of an agent."""

from __future__ import annotations

from typing import Any

from moa_graph.nodes.aggregator import AggregatorNode, AnswerNode
from moa_graph.nodes.plan import AGGREGATOR
from moa_graph.nodes.step import Step
from moa_graph.progressive.chunkwise import ChunkAggregator
from moa_graph.progressive.staircase import StaircaseAggregator
from moa_graph.state import Proposal


class ReusingAggregator(AnswerNode):
    """An aggregator that answers at once if the proposals are of an earlier call of the turn.

    Otherwise it waits for whole proposals, as the progressive aggregator does with tools.

    Args:
        node: The aggregator of the progressive graph.
    """

    def __init__(self, node: StaircaseAggregator | ChunkAggregator) -> None:
        super().__init__(node.plan, node.model)
        self._node = node
        self._at_once = AggregatorNode(node.plan, node.model)

    def paid_for(self, step: Step) -> list[Proposal]:
        """Return the proposals to put in an error, including unfinished ones."""
        return self._node.paid_for(step)

    async def answer(self, step: Step) -> Any:
        """Return the state update with the answer, or with nothing yet."""
        written = step.earlier_drafts.get(AGGREGATOR)
        answered_already = written is not None and written["message_id"] == step.messages[-1].id
        if step.drafts or answered_already:  # the proposers were asked in this call
            return await self._node.answer(step)
        answered = await self._at_once.answer(step)
        ended = {
            **step.draft(AGGREGATOR),
            "ended": True,
            "message_id": answered["messages"][0].id,
        }
        return {**answered, "drafts": {AGGREGATOR: ended}}
