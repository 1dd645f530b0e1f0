"""When no further layer is needed: `create_moa(Layer(..., until=Agree()), …, layers=4)`.

An exit is drawn as a conditional edge behind each layer, and behind what was selected of it. It
leads to the aggregator, or with `then="answer"` to the end: the consensus is the answer, word for
word, and is not written again.
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

_FEWEST = 2  # one proposal agrees with itself

Then = Literal["aggregate", "answer"]
"""Where an exit leads: to the aggregator, or to the end."""

_AGREE = (
    "You compare responses of several models to a user's query. Do they give the same answer in "
    "substance, so that another round of discussion would change nothing? Different words, "
    "examples or details do not matter; different facts, numbers, choices or advice do. Reply with "
    "yes or no and nothing else."
)


@dataclass
class Consensus:
    """Whether a layer agrees, and on what."""

    reached: bool
    place: int = 0
    """The place of the proposal that speaks for it."""
    by: str = "agreement"
    error: str | None = None
    usage: UsageMetadata | None = None
    attempts: int = 0


class Until(Strategy, ABC):
    """A condition for an early exit.

    Args:
        then: Where it leads: `"aggregate"` goes straight to the aggregator, `"answer"` returns
            the consensus without it.

    Raises:
        ValueError: If `then` is neither.
    """

    def __init__(self, then: Then = "aggregate") -> None:
        if then not in ("aggregate", "answer"):
            raise ValueError(f"then={then!r} must be 'aggregate' or 'answer'.")
        self.then: Then = then

    @property
    def models(self) -> Sequence[Model]:
        """The models that it calls."""
        return ()

    @abstractmethod
    async def reached(self, proposals: list[Proposal], step: Step) -> Consensus:
        """Return whether these usable proposals of one layer (two or more) agree.

        Args:
            proposals: The proposals.
            step: Which step of the run it is.
        """


class Agree(Until):
    """Exit when enough proposals of a layer give the same answer, parsed and normalized.

    Args:
        share: Which part of the usable proposals, above 0 and at most 1.
        parse: From a proposal's text to its answer, as for `Vote`.
        then: As for `Until`.

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
        """As `Until`."""
        answers, _ = parsed_answers(proposals, self.parse)
        if not answers:
            return Consensus(reached=False, by="votes")
        voters = [i for i, p in enumerate(proposals) if p["proposer"] in answers]
        places, _ = majority([str(answers[proposals[i]["proposer"]]) for i in voters])
        enough = len(places) >= _FEWEST and len(places) >= self.share * len(proposals)
        return Consensus(enough, voters[places[0]], by="votes")


class Similar(Until):
    """Exit when every two proposals of a layer are at least this similar.

    Args:
        threshold: Similarity, above 0 and at most 1.
        embeddings: Compares meanings; by default words are compared.
        then: As for `Until`.

    Raises:
        TypeError: If `threshold` is not a number.
        ValueError: If a value is out of range, or nothing can compare texts.
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
        """As `Until`."""
        texts = [p["content"] for p in proposals]
        matrix = await similarities(texts, step.asked, self.embeddings)
        least = min(min(row) for row in matrix)
        return Consensus(least >= self.threshold, most_central(matrix), by="similarity")


class JudgedAgreement(Until):
    """Exit when a judge says that the proposals of a layer agree; one call a layer.

    A judge that answers nonsense is asked once more; then the run goes on, and the record says so.

    Args:
        judge: The model.
        then: As for `Until`.

    Raises:
        TypeError: If `judge` is not a model.
        ValueError: If `then` is out of range, or nothing can compare texts.
    """

    def __init__(self, judge: ModelLike, *, then: Then = "aggregate") -> None:
        super().__init__(then)
        check_comparable("JudgedAgreement", None)
        self.judge = as_model(judge, "JudgedAgreement(judge=…)")

    @property
    def models(self) -> Sequence[Model]:
        """As `Until`."""
        return [self.judge]

    async def reached(self, proposals: list[Proposal], step: Step) -> Consensus:
        """As `Until`."""
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
    """Exit when a layer adds nothing to the layer before (RMoA's termination).

    Args:
        new: Which part of a layer's sentences may be new, from 0 to 1.
        then: As for `Until`.

    Raises:
        TypeError: If `new` is not a number.
        ValueError: If a value is out of range, or nothing can compare texts.

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
        """As `Until`."""
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
    """Decides behind a layer whether the run goes on to the next.

    Args:
        plan: What all nodes of the graph share.
        layer: The layer.
        until: The condition.
    """

    def __init__(self, plan: Plan, layer: int, until: Until) -> None:
        super().__init__(plan, f"until_{layer}", layer)
        self.until = until

    async def decide(self, step: Step) -> dict[str, Any]:
        """As `DecidingNode`."""
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
