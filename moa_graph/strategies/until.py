"""Conditions for an early exit: `create_moa(Layer(..., until=Agree()), …, layers=4)`.

The exit is a conditional edge after each layer and its selection. It leads to the aggregator. With
`then="answer"` it leads to the end of the graph, and the answer is the consensus proposal,
unchanged.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from langchain_core.messages.ai import UsageMetadata

from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes.decision import DecidingNode, decided
from moa_graph.nodes.plan import Plan
from moa_graph.nodes.settings import must_act
from moa_graph.nodes.step import Step
from moa_graph.state import Proposal, proposals_of_layer, usable
from moa_graph.strategies.aggregate import word_for_word
from moa_graph.strategies.base import Strategy
from moa_graph.strategies.checks import check_comparable, check_share
from moa_graph.strategies.judge import Case, judge, yes_or_no
from moa_graph.strategies.residual import residue, sentences
from moa_graph.strategies.similarity import majority, most_central, normalize, similarities
from moa_graph.strategies.vote import Parse, parsed_answers

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

_FEWEST = 2  # a single proposal always agrees with itself

Then = Literal["aggregate", "answer"]
"""Target of an exit: the aggregator, or the end of the graph."""

_AGREE = (
    "You compare responses of several models to a user's query. Do they give the same answer in "
    "substance, so that another round of discussion would change nothing? Different words, "
    "examples or details do not matter; different facts, numbers, choices or advice do. Reply with "
    "yes or no and nothing else."
)


@dataclass
class Consensus:
    """Whether the proposals of a layer agree, and which proposal represents them."""

    reached: bool
    place: int = 0
    """Position of the proposal that represents the consensus."""
    by: str = "agreement"
    error: str | None = None
    usage: UsageMetadata | None = None
    attempts: int = 0


class Until(Strategy, ABC):
    """Base class of the conditions for an early exit.

    Args:
        then: Target of the exit: `"aggregate"` goes directly to the aggregator, `"answer"`
            returns the consensus proposal without the aggregator.

    Raises:
        ValueError: If `then` has another value.
    """

    def __init__(self, then: Then = "aggregate") -> None:
        if then not in ("aggregate", "answer"):
            raise ValueError(f"then={then!r} must be 'aggregate' or 'answer'.")
        self.then: Then = then

    @property
    def models(self) -> Sequence[Model]:
        """Models that the strategy calls."""
        return ()

    @abstractmethod
    async def reached(self, proposals: list[Proposal], step: Step) -> Consensus:
        """Return whether the proposals of a layer agree.

        Args:
            proposals: Usable proposals of one layer, at least two.
            step: Current step of the run.
        """


class Agree(Until):
    """Exit when enough proposals of a layer have the same parsed answer.

    Args:
        share: Share of the usable proposals that must agree, above 0 and at most 1.
        parse: Function from the text of a proposal to its answer, see `Vote`.
        then: See `Until`.

    Raises:
        TypeError: If `share` is not a number, or `parse` cannot be called.
        ValueError: If a value is out of range.
    """

    def __init__(
        self, share: float = 1.0, *, parse: Parse | None = None, then: Then = "aggregate"
    ) -> None:
        super().__init__(then)
        check_share("Agree(share=…)", share)
        if parse is not None and not callable(parse):
            raise TypeError(f"Agree(parse={parse!r}) must be a function from a text to an answer.")
        self.share = share
        self.parse = parse or normalize

    async def reached(
        self,
        proposals: list[Proposal],
        step: Step,
    ) -> Consensus:
        """See `Until`."""
        answers, _ = parsed_answers(proposals, self.parse)
        if not answers:
            return Consensus(reached=False, by="votes")
        voters = [i for i, p in enumerate(proposals) if p["proposer"] in answers]
        places, _ = majority([str(answers[proposals[i]["proposer"]]) for i in voters])
        enough = len(places) >= _FEWEST and len(places) >= self.share * len(proposals)
        return Consensus(enough, voters[places[0]], by="votes")


class Similar(Until):
    """Exit when each pair of proposals of a layer is similar enough.

    Args:
        threshold: Minimum similarity of each pair, above 0 and at most 1.
        embeddings: Embeddings that compare meaning; by default words are compared.
        then: See `Until`.

    Raises:
        TypeError: If `threshold` is not a number.
        ValueError: If a value is out of range, or scikit-learn is not installed and no embeddings
            are given.
    """

    def __init__(
        self,
        threshold: float = 0.8,
        *,
        embeddings: Embeddings | str | None = None,
        then: Then = "aggregate",
    ) -> None:
        super().__init__(then)
        check_share("Similar(threshold=…)", threshold)
        check_comparable("Similar", embeddings)
        self.threshold = threshold
        self.embeddings = embeddings

    async def reached(
        self,
        proposals: list[Proposal],
        step: Step,
    ) -> Consensus:
        """See `Until`."""
        texts = [p["content"] for p in proposals]
        matrix = await similarities(texts, step.asked, self.embeddings)
        least = min(min(row) for row in matrix)
        return Consensus(least >= self.threshold, most_central(matrix), by="similarity")


class JudgedAgreement(Until):
    """Exit when a judge model says that the proposals of a layer agree.

    The judge needs one call per layer. If its verdict cannot be parsed, the judge is asked again
    once. If there is still no verdict, the run continues, and the failure is recorded.

    Args:
        judge: Judge model.
        then: See `Until`.

    Raises:
        TypeError: If `judge` is not a model.
        ValueError: If `then` has an invalid value, or scikit-learn is not installed.
    """

    def __init__(self, judge: ModelLike, *, then: Then = "aggregate") -> None:
        super().__init__(then)
        check_comparable("JudgedAgreement", None)
        self.judge = as_model(judge, "JudgedAgreement(judge=…)")

    @property
    def models(self) -> Sequence[Model]:
        """See `Until`."""
        return [self.judge]

    async def reached(self, proposals: list[Proposal], step: Step) -> Consensus:
        """See `Until`."""
        verdict = await judge(
            step,
            self.judge,
            Case(step.asked, proposals, _AGREE),
            yes_or_no,
            "Reply with yes or no, and nothing else.",
        )
        place = 0
        if verdict.value:
            texts = [p["content"] for p in proposals]
            place = most_central(await similarities(texts, step.asked))
        return Consensus(
            bool(verdict.value), place, "judge", verdict.error, verdict.usage, verdict.attempts
        )


class Unchanged(Until):
    """Exit when a layer adds almost nothing to the previous layer (RMoA's termination).

    Args:
        new: Maximum share of new sentences in a layer, from 0 to 1.
        then: See `Until`.

    Raises:
        TypeError: If `new` is not a number.
        ValueError: If a value is out of range, or scikit-learn is not installed.

    Source: RMoA (arXiv 2505.24442), adaptive termination.
    """

    def __init__(self, new: float = 0.05, *, then: Then = "aggregate") -> None:
        super().__init__(then)
        if new != 0:
            check_share("Unchanged(new=…)", new)
        check_comparable("Unchanged", None)
        self.new = new

    async def reached(
        self,
        proposals: list[Proposal],
        step: Step,
    ) -> Consensus:
        """See `Until`."""
        before = usable(proposals_of_layer(step.proposals, proposals[0]["layer"] - 1))
        if not before:
            return Consensus(reached=False, by="change")
        earlier = [p["content"] for p in before]
        said = [s for p in proposals for s in sentences(p["content"])]
        new = [s for p in proposals for s in residue(p["content"], earlier)]
        texts = [p["content"] for p in proposals]
        place = most_central(await similarities(texts, step.asked))
        return Consensus(len(new) <= self.new * len(said), place, by="change")


class UntilNode(DecidingNode):
    """Node after a layer that decides whether the run continues with the next layer.

    Args:
        plan: Plan shared by all nodes of the graph.
        layer: Number of the layer.
        until: Condition for the exit.
    """

    def __init__(self, plan: Plan, layer: int, until: Until) -> None:
        super().__init__(plan, f"until_{layer}", layer)
        self.until = until

    async def decide(self, step: Step) -> dict[str, Any]:
        """See `DecidingNode`."""
        chosen = {p["proposer"] for p in step.reading.references()}
        proposals = [p for p in step.reading.usable_before() if p["proposer"] in chosen]
        consensus = Consensus(reached=False)
        if len(proposals) >= _FEWEST:
            consensus = await self.until.reached(proposals, step)
        answers = consensus.reached and self.until.then == "answer" and not must_act(step)
        outcome = "answer" if answers else "exit" if consensus.reached else "go_on"
        spokesman = [proposals[consensus.place]] if answers else proposals
        update: dict[str, Any] = {
            "decisions": [
                decided(
                    step,
                    self.step_name,
                    self.layer,
                    outcome,
                    kept=spokesman,
                    by=consensus.by,
                    error=consensus.error,
                    usage=consensus.usage,
                    attempts=consensus.attempts,
                )
            ]
        }
        if answers:
            step.tell_layer_ended()
            step.end_run()
            update["messages"] = [word_for_word(proposals[consensus.place])]
        return update
