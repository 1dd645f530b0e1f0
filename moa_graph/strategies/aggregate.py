"""Strategies that replace the aggregator model: `create_moa(proposers, Rank(...))`.

Each is a value of the `aggregator` argument of `create_moa`. With a plain model as `aggregator`,
that model synthesizes the answer, as in the paper.
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
    """Base class of the strategies that produce the answer.

    Attributes:
        whole: Whether the strategy returns a complete proposal, so proposals must not be shortened.
        comes_back: Whether the graph visits the node again until its draft is complete.
    """

    whole: bool = False
    comes_back: bool = False

    @property
    def models(self) -> Sequence[Model]:
        """Models that the strategy calls."""
        return ()

    @property
    def writer(self) -> Model | None:
        """Model that writes the answer; None if the strategy chooses a proposal."""
        return None

    def members(self, width: int) -> list[Member]:
        """Return the proposers of an extra last layer; an empty list by default.

        Args:
            width: Number of proposers in the last layer.

        Raises:
            ValueError: If the strategy cannot work with this number of proposers.
        """
        del width
        return []

    def before(self, plan: Plan) -> DecidingNode | None:
        """Return the node that runs before the answer node, or None."""
        del plan
        return None

    @abstractmethod
    def node(self, plan: Plan) -> AnswerNode:
        """Return the node that produces the answer."""

    def check(self, proposers: Collection[str]) -> None:
        """Check that each name in the strategy's arguments is the name of a proposer.

        Args:
            proposers: Names of the proposers in the last layer, and of their models.

        Raises:
            ValueError: If a name is unknown. The message suggests the nearest known name.
        """


class ChoosingNode(AnswerNode):
    """Node that returns a proposal unchanged as the answer.

    Args:
        plan: Plan shared by all nodes of the graph.
        title: Name of the strategy in errors and records.
    """

    def __init__(self, plan: Plan, title: str) -> None:
        super().__init__(plan, None, title)

    async def answer(self, step: Step) -> dict[str, Any]:
        """See `AnswerNode`."""
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
        """Return the answer and the record of the decision.

        Args:
            references: Usable proposals, at least one.
            step: Current step of the run.
        """
        raise NotImplementedError


def word_for_word(proposal: Proposal) -> AIMessage:
    """Return a proposal as a message: its unchanged text, with its proposer and layer."""
    chosen = {"proposer": proposal["proposer"], "layer": proposal["layer"]}
    return AIMessage(
        proposal["content"], id=f"run--{uuid4()}", response_metadata={"chosen_proposal": chosen}
    )
