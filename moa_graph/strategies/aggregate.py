"""Ways from references to an answer, in place of an aggregator: `create_moa(proposers, Rank(...))`.

Each is a value of `create_moa`'s `aggregator`. A plain model there synthesizes, as in the paper.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage

from moa_graph.calling.answer import NoAnswer
from moa_graph.models import Model
from moa_graph.nodes.aggregator import AnswerNode
from moa_graph.nodes.decision import DecidingNode
from moa_graph.nodes.plan import Member, Plan
from moa_graph.nodes.step import Step
from moa_graph.state import Decision, Proposal
from moa_graph.strategies.base import Strategy


class AnswerStrategy(Strategy, ABC):
    """What gives the answer.

    Attributes:
        whole: Whether it chooses among whole proposals, so that they must not be shortened.
        comes_back: Whether its node is visited until its draft has ended.
    """

    whole: bool = False
    comes_back: bool = False

    @property
    def models(self) -> Sequence[Model]:
        """The models that it calls."""
        return ()

    @property
    def writer(self) -> Model | None:
        """The model that writes the answer; None where the answer is chosen."""
        return None

    def members(self, width: int) -> list[Member]:
        """Return proposers of a layer of its own, behind the others; mostly none.

        Args:
            width: How many proposers the last layer has.

        Raises:
            ValueError: If it makes no sense for so many; says why.
        """
        del width
        return []

    def before(self, plan: Plan) -> DecidingNode | None:
        """Return a node that comes before the answer's, if it needs one."""
        del plan
        return None

    @abstractmethod
    def node(self, plan: Plan) -> AnswerNode:
        """Return the node that gives the answer."""

    def check(self, proposers: Collection[str]) -> None:
        """Refuse names that no proposer has.

        Args:
            proposers: The names of the last layer's proposers, and of their models.

        Raises:
            ValueError: Names the nearest that there is.
        """


class ChoosingNode(AnswerNode):
    """Gives the answer without writing one: a proposal, word for word.

    Args:
        plan: What all nodes of the graph share.
        title: What errors and records call it.
    """

    def __init__(self, plan: Plan, title: str) -> None:
        super().__init__(plan, None, title)

    async def answer(self, step: Step) -> dict[str, Any]:
        """As `AnswerNode`."""
        references = step.reading.references()
        if not references:
            self._fail(step, None, NoAnswer("no proposal is usable"))
        try:
            self._tell_started(step)
            message, decision = await self.choose(references, step)
        except Exception as error:
            self._fail(step, None, error)
        step.end_run()
        return {"messages": [message], "decisions": [decision]}

    async def choose(self, references: list[Proposal], step: Step) -> tuple[AIMessage, Decision]:
        """Return the answer, and the record of how it was chosen.

        Args:
            references: The usable proposals, at least one.
            step: The node's view of the run.
        """
        raise NotImplementedError


def word_for_word(proposal: Proposal) -> AIMessage:
    """Return a proposal as the answer: its text byte for byte, and whose it is."""
    chosen = {"proposer": proposal["proposer"], "layer": proposal["layer"]}
    return AIMessage(
        proposal["content"], id=f"run--{uuid4()}", response_metadata={"chosen_proposal": chosen}
    )
