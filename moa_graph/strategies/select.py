"""What of a layer goes on to the next: `Layer(..., select=TopK(3, judge=...))`.

Several are applied in their order: `select=[Deduplicate(), TopK(3), Shuffle(seed=7)]`.
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
    """What goes on, and why the rest does not."""

    kept: list[Proposal]
    left_out: dict[str, str] = field(default_factory=dict)
    by: str = "agreement"
    error: str | None = None
    usage: UsageMetadata | None = None
    attempts: int = 0


class Selection(Strategy, ABC):
    """A step of a layer's `select`.

    Attributes:
        rewrites: Whether it changes the texts of what it keeps.
    """

    rewrites: bool = False

    @property
    def models(self) -> Sequence[Model]:
        """The models that it calls."""
        return ()

    def check(self, width: int) -> None:
        """Refuse a layer of that many proposers.

        Raises:
            ValueError: If it makes no sense for it; says why.
        """

    @abstractmethod
    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """Return what goes on of these usable proposals (at least one), in which order.

        Args:
            references: The proposals.
            step: Which step of the run it is; `step.asked` is the question.
        """


def agreement_first(references: Sequence[Proposal], matrix: Sequence[Sequence[float]]) -> list[int]:
    """Return the places of the proposals, from the one that agrees most with the others on."""
    scores = centrality([list(row) for row in matrix])
    return sorted(range(len(references)), key=lambda i: (-round(scores[i], 9), i))


class TopK(Selection):
    """Keep the best k of a layer: chosen by a judge, or by agreement with the others.

    The judge costs one call a layer, whatever k is (Sparse Mixture-of-Agents). A judge that
    answers nonsense is asked once more; then agreement decides, and the record says so.

    Args:
        k: How many go on, at least 1.
        judge: A model that chooses; None for agreement, which calls no model.
        embeddings: Measures agreement by meaning; by default words are compared.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `k` is below 1, or nothing can compare texts.

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
        """As `Selection`."""
        return [self.judge] if self.judge else []

    def check(self, width: int) -> None:
        """As `Selection`."""
        _check_leaves_some_out(f"TopK({self.k})", self.k, width)

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """As `Selection`."""
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
                Case(step.asked, references, task),
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
    """Keep the k that differ most, chosen greedily from the most central one on.

    Args:
        k: How many go on, at least 1.
        embeddings: Compares meanings; by default words are compared.

    Raises:
        TypeError: If `k` is not an integer.
        ValueError: If `k` is below 1, or nothing can compare texts.

    Source: RMoA (arXiv 2505.24442), greedy diversity embedding selection.
    """

    def __init__(self, k: int, *, embeddings: Embeddings | str | None = None) -> None:
        check_whole("Diverse(k=…)", k)
        check_comparable("Diverse", embeddings)
        self.k = k
        self.embeddings = embeddings

    def check(self, width: int) -> None:
        """As `Selection`."""
        _check_leaves_some_out(f"Diverse({self.k})", self.k, width)

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """As `Selection`."""
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
    """Keep only the first of references that are nearly the same.

    Args:
        threshold: From which similarity on, above 0 and at most 1.
        embeddings: Compares meanings; by default words are compared.

    Raises:
        TypeError: If `threshold` is not a number.
        ValueError: If it is out of range, or nothing can compare texts.
    """

    def __init__(
        self, threshold: float = 0.95, *, embeddings: Embeddings | str | None = None
    ) -> None:
        check_share("Deduplicate(threshold=…)", threshold)
        check_comparable("Deduplicate", embeddings)
        self.threshold = threshold
        self.embeddings = embeddings

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """As `Selection`."""
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
    """Keep all, in a random order: models prefer what they read first.

    Each layer of each turn has an order of its own, which the seed and the question determine.

    Args:
        seed: Of the order.
        letters: Whether the references are called A, B, … instead of 1, 2, …, so that no number
            looks like a rank.

    Raises:
        TypeError: If `seed` is not an integer, or `letters` neither True nor False.
    """

    def __init__(self, seed: int = 0, *, letters: bool = False) -> None:
        check_whole("Shuffle(seed=…)", seed, least=0)
        if not isinstance(letters, bool):
            raise TypeError(f"Shuffle(letters={letters!r}) must be True or False.")
        self.seed = seed
        self.letters = letters

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """As `Selection`."""
        order = random.Random(f"{self.seed} {step.layer_before} {step.asked}")  # noqa: S311
        shuffled = list(references)
        order.shuffle(shuffled)
        return Chosen(shuffled, by="shuffle")


class Tree(Selection):
    """Every model of a later layer sees only some of the references; the aggregator sees all.

    A reader at place i sees `fan_in` of them, from place i × `fan_in` on, around the end. The
    prompts are short, and the drawn edges are those that are used.

    Args:
        fan_in: How many each sees, at least 1.

    Raises:
        TypeError: If it is not an integer.
        ValueError: If it is below 1.

    Source: the tree topology of arXiv 2512.18126.
    """

    def __init__(self, fan_in: int = 2) -> None:
        check_whole("Tree(fan_in=…)", fan_in)
        self.fan_in = fan_in

    def check_readers(self, width: int, readers: int) -> None:
        """Refuse a layer whose readers would miss something, or nothing.

        Args:
            width: How many proposers its layer has.
            readers: How many the next layer has.

        Raises:
            ValueError: Says which.
        """
        if readers * self.fan_in < width:
            raise ValueError(
                f"Layer(select=Tree({self.fan_in})) would leave out some of {width} proposers: the "
                f"{readers} of the next layer see {readers * self.fan_in}. Give a larger fan_in."
            )
        if self.fan_in >= width:
            raise ValueError(
                f"Layer(select=Tree({self.fan_in})) leaves nothing out of a layer of {width} "
                "proposers: give a smaller fan_in."
            )

    def places(self, reader: int, width: int) -> list[int]:
        """Return the places, in a layer of that width, that a reader of the next layer sees."""
        return sorted({(reader * self.fan_in + i) % width for i in range(self.fan_in)})

    def reads(self, reader: int, width: int) -> Reads:
        """Return what that reader is shown of the references."""
        places = set(self.places(reader, width))
        return lambda references: [p for p in references if p.get("position", 0) in places]

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """As `Selection`: all, as each reader chooses for itself."""
        return Chosen(references, by="all")


class SelectNode(DecidingNode):
    """Applies selections to a layer, one after the other.

    Args:
        plan: What all nodes of the graph share.
        layer: The layer.
        selections: The selections.
    """

    def __init__(self, plan: Plan, layer: int, selections: Sequence[Selection]) -> None:
        super().__init__(plan, f"select_{layer}", layer)
        self.selections = selections

    async def decide(self, step: Step) -> dict[str, Any]:
        """As `DecidingNode`."""
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
            f"Layer(select={name}) leaves nothing out of a layer of {width} proposers: give a "
            "smaller k, or more proposers."
        )


def _keeping(
    chosen: Chosen, references: Sequence[Proposal], places: Sequence[int], why: str
) -> Chosen:
    chosen.kept = [references[i] for i in places]
    chosen.left_out = {p["proposer"]: why for i, p in enumerate(references) if i not in set(places)}
    return chosen
