"""Strategies that select references for the next layer: `Layer(..., select=TopK(3, judge=...))`.

A list of strategies is applied in order: `select=[Deduplicate(), TopK(3), Shuffle(seed=7)]`.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.messages.ai import UsageMetadata

from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes.decision import DecidingNode, decided
from moa_graph.nodes.plan import Plan, Reads
from moa_graph.nodes.step import Step
from moa_graph.state import Proposal, digest_of, total_usage
from moa_graph.strategies.base import Strategy
from moa_graph.strategies.checks import check_comparable, check_share, check_whole
from moa_graph.strategies.judge import Case, judge, numbers_in
from moa_graph.strategies.similarity import centrality, similarities

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

_CHOOSE = (
    "You compare responses of several models to a user's query. Choose the {count} that would help "
    "most to write one accurate and complete answer. Judge what they say, neither their length "
    "nor their order. Reply with the {numbers} and nothing else."
)
_CHOOSE_AGAIN = "Reply with {count} different {numbers} from 1 to {highest}, and nothing else."


@dataclass
class Chosen:
    """Result of a selection: the kept proposals, and the reason for each one left out."""

    kept: list[Proposal]
    left_out: dict[str, str] = field(default_factory=dict)
    by: str = "agreement"
    error: str | None = None
    usage: UsageMetadata | None = None
    attempts: int = 0


class Selection(Strategy, ABC):
    """Base class of the strategies for a layer's `select`.

    Attributes:
        rewrites: Whether the strategy changes the texts of the proposals that it keeps.
    """

    rewrites: bool = False

    @property
    def models(self) -> Sequence[Model]:
        """Models that the strategy calls."""
        return ()

    def check(self, width: int) -> None:
        """Check that the strategy works with a layer of `width` proposers.

        Raises:
            ValueError: If it does not.
        """

    @abstractmethod
    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """Return the proposals to keep, in the order for the next layer.

        Args:
            references: Usable proposals, at least one.
            step: Current step of the run; `step.asked` is the question.
        """


def agreement_first(references: Sequence[Proposal], matrix: Sequence[Sequence[float]]) -> list[int]:
    """Return the positions of the proposals; the most similar to the others comes first."""
    scores = centrality([list(row) for row in matrix])
    return sorted(range(len(references)), key=lambda i: (-round(scores[i], 9), i))


class TopK(Selection):
    """Keep the best `k` proposals of a layer, chosen by a judge or by similarity to the others.

    The judge needs one call per layer for any `k` (Sparse Mixture-of-Agents). If its verdict
    cannot be parsed, the judge is asked again once. If there is still no verdict, similarity
    decides, and the failure is recorded.

    Args:
        k: Number of proposals to keep, at least 1.
        judge: Model that chooses; None to use similarity, without a model call.
        embeddings: Embeddings that compare meaning; by default words are compared.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `k` is less than 1, or scikit-learn is not installed and no embeddings are
            given.

    Source: SMoA (arXiv 2411.03284), response selection.
    """

    def __init__(
        self, k: int, *, judge: ModelLike | None = None, embeddings: Embeddings | str | None = None
    ) -> None:
        check_whole("TopK(k=…)", k)
        check_comparable("TopK", embeddings)
        self.k = k
        self.judge = None if judge is None else as_model(judge, "TopK(judge=…)")
        self.embeddings = embeddings

    @property
    def models(self) -> Sequence[Model]:
        """See `Selection`."""
        return [self.judge] if self.judge else []

    def check(self, width: int) -> None:
        """See `Selection`."""
        _check_leaves_some_out(f"TopK({self.k})", self.k, width)

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """See `Selection`."""
        if len(references) <= self.k:
            return Chosen(references, by="all")
        chosen = Chosen([])
        places: list[int] | None = None
        if self.judge:
            numbers = "number" if self.k == 1 else "numbers"
            task = _CHOOSE.format(count=self.k, numbers=numbers)
            verdict = await judge(
                step,
                self.judge,
                Case(step.asked, references, task, choose=self.k),
                lambda said: numbers_in(said, len(references), self.k),
                _CHOOSE_AGAIN.format(count=self.k, numbers=numbers, highest=len(references)),
            )
            chosen.usage, chosen.attempts = verdict.usage, verdict.attempts
            chosen.error = verdict.error
            if verdict.value is not None:
                places = [n - 1 for n in verdict.value]
                chosen.by = "judge"
        if places is None:
            texts = [p["content"] for p in references]
            matrix = await similarities(texts, step.asked, self.embeddings)
            places = agreement_first(references, matrix)[: self.k]
        return _keeping(chosen, references, sorted(places), f"not among the best {self.k}")


class Diverse(Selection):
    """Keep the `k` most different proposals of a layer.

    The selection is greedy. It begins with the most central proposal.

    Args:
        k: Number of proposals to keep, at least 1.
        embeddings: Embeddings that compare meaning; by default words are compared.

    Raises:
        TypeError: If `k` is not an integer.
        ValueError: If `k` is less than 1, or scikit-learn is not installed and no embeddings are
            given.

    Source: RMoA (arXiv 2505.24442), greedy diversity embedding selection.
    """

    def __init__(self, k: int, *, embeddings: Embeddings | str | None = None) -> None:
        check_whole("Diverse(k=…)", k)
        check_comparable("Diverse", embeddings)
        self.k = k
        self.embeddings = embeddings

    def check(self, width: int) -> None:
        """See `Selection`."""
        _check_leaves_some_out(f"Diverse({self.k})", self.k, width)

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """See `Selection`."""
        if len(references) <= self.k:
            return Chosen(references, by="all")
        texts = [p["content"] for p in references]
        matrix = await similarities(texts, step.asked, self.embeddings)
        places = agreement_first(references, matrix)[:1]
        while len(places) < self.k:
            others = (i for i in range(len(texts)) if i not in places)
            places.append(min(others, key=lambda i: (max(matrix[i][j] for j in places), i)))
        return _keeping(
            Chosen([], by="diversity"), references, sorted(places), "too similar to those kept"
        )


class Deduplicate(Selection):
    """Keep only the first of several references that are nearly the same.

    Args:
        threshold: Minimum similarity of duplicates, above 0 and at most 1.
        embeddings: Embeddings that compare meaning; by default words are compared.

    Raises:
        TypeError: If `threshold` is not a number.
        ValueError: If `threshold` is out of range, or scikit-learn is not installed and no
            embeddings are given.
    """

    def __init__(
        self, threshold: float = 0.95, *, embeddings: Embeddings | str | None = None
    ) -> None:
        check_share("Deduplicate(threshold=…)", threshold)
        check_comparable("Deduplicate", embeddings)
        self.threshold = threshold
        self.embeddings = embeddings

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """See `Selection`."""
        matrix = await similarities([p["content"] for p in references], "", self.embeddings)
        chosen = Chosen([], by="similarity")
        places: list[int] = []
        for i, proposal in enumerate(references):
            twin = next((j for j in places if matrix[i][j] >= self.threshold), None)
            if twin is None:
                places.append(i)
                chosen.kept.append(proposal)
            else:
                same = references[twin]["proposer"]
                chosen.left_out[proposal["proposer"]] = f"nearly the same as {same}"
        return chosen


class Shuffle(Selection):
    """Keep all references, in a random order, because models prefer the first references.

    The seed, the layer and the question determine the order.

    Args:
        seed: Seed for the order, at least 0.
        letters: Whether to label the references A, B, … instead of 1, 2, …, so that the labels do
            not look like ranks.

    Raises:
        TypeError: If `seed` is not an integer, or `letters` is not a boolean.
        ValueError: If `seed` is less than 0.
    """

    def __init__(self, seed: int = 0, *, letters: bool = False) -> None:
        check_whole("Shuffle(seed=…)", seed, least=0)
        if not isinstance(letters, bool):
            raise TypeError(f"Shuffle(letters={letters!r}) must be True or False.")
        self.seed = seed
        self.letters = letters

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """See `Selection`."""
        order = random.Random(f"{self.seed} {step.layer_before} {step.asked}")  # noqa: S311
        shuffled = list(references)
        order.shuffle(shuffled)
        return Chosen(shuffled, by="shuffle")


class Tree(Selection):
    """Show each proposer of the next layer only some of the references.

    The proposer at position i sees `fan_in` references, beginning at position i × `fan_in` and
    continuing at the first reference after the last. The aggregator sees all references. Prompts
    are shorter, and the drawn graph has only the edges that are used.

    Args:
        fan_in: Number of references that each proposer sees, at least 1.

    Raises:
        TypeError: If `fan_in` is not an integer.
        ValueError: If `fan_in` is less than 1.

    Source: the tree topology of arXiv 2512.18126.
    """

    def __init__(self, fan_in: int = 2) -> None:
        check_whole("Tree(fan_in=…)", fan_in)
        self.fan_in = fan_in

    def check_readers(self, width: int, readers: int) -> None:
        """Check that each reference has a reader, and that no reader sees all references.

        Args:
            width: Number of proposers in this layer.
            readers: Number of proposers in the next layer.

        Raises:
            ValueError: If a reference has no reader, or each reader sees all references.
        """
        if readers * self.fan_in < width:
            raise ValueError(
                f"Layer(select=Tree({self.fan_in})) would leave out some of {width} proposers: the "
                f"{readers} of the next layer see {readers * self.fan_in}. Give a larger fan_in."
            )
        if self.fan_in >= width:
            raise ValueError(
                f"Layer(select=Tree({self.fan_in})) has no effect: the layer has only {width} "
                "proposers. Use a smaller fan_in."
            )

    def places(self, reader: int, width: int) -> list[int]:
        """Return the positions that a reader of the next layer sees, in a layer of `width`."""
        return sorted({(reader * self.fan_in + i) % width for i in range(self.fan_in)})

    def reads(self, reader: int, width: int) -> Reads:
        """Return a function that filters the references for a reader."""
        places = set(self.places(reader, width))
        return lambda references: [p for p in references if p.get("position", 0) in places]

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """See `Selection`. Keep all references; `reads` filters them for each reader."""
        return Chosen(references, by="all")


class SelectNode(DecidingNode):
    """Node that applies selections to a layer, in order.

    Args:
        plan: Plan shared by all nodes of the graph.
        layer: Number of the layer.
        selections: Selections to apply.
    """

    def __init__(self, plan: Plan, layer: int, selections: Sequence[Selection]) -> None:
        super().__init__(plan, f"select_{layer}", layer)
        self.selections = selections

    async def decide(self, step: Step) -> dict[str, Any]:
        """See `DecidingNode`."""
        given = step.reading.usable_before()
        kept = given
        left_out: dict[str, str] = {}
        errors: list[str] = []
        by: list[str] = []
        usages: list[UsageMetadata | None] = []
        attempts = 0
        for selection in self.selections if given else ():
            chosen = await selection.choose(kept, step)
            kept = chosen.kept
            left_out |= chosen.left_out
            errors += [chosen.error] if chosen.error else []
            by.append(chosen.by)
            usages.append(chosen.usage)
            attempts += chosen.attempts
        originals = {p["proposer"]: p["content"] for p in given}
        decision = decided(
            step,
            self.step_name,
            step.layer_before,
            "kept",
            kept=kept,
            left_out=left_out,
            by=", ".join(dict.fromkeys(by)),
            error="; ".join(errors) or None,
            usage=total_usage(usages),
            attempts=attempts,
            texts={
                p["proposer"]: p["content"]
                for p in kept
                if p["content"] != originals[p["proposer"]]
            },
        )
        if texts := decision.get("texts"):
            decision["texts_of"] = {name: digest_of(originals[name]) for name in texts}
        return {"decisions": [decision]}


def _check_leaves_some_out(name: str, k: int, width: int) -> None:
    if k >= width:
        raise ValueError(
            f"Layer(select={name}) has no effect: the layer has only {width} proposers. Use a "
            "smaller k, or more proposers."
        )


def _keeping(
    chosen: Chosen, references: Sequence[Proposal], places: Sequence[int], why: str
) -> Chosen:
    chosen.kept = [references[i] for i in places]
    chosen.left_out = {p["proposer"]: why for i, p in enumerate(references) if i not in set(places)}
    return chosen
