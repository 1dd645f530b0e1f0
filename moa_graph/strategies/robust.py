"""Against a deceptive or hijacked proposer: leave out who contradicts the majority.

Source: Wolf, Yoon, Bogunovic, "This Is Your Doge, If It Please You" (arXiv 2503.05856). None of
it helps when half of the proposers or more deceive, and then none of it claims to.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes.aggregator import AnswerNode
from moa_graph.nodes.plan import Member, Plan, Reads
from moa_graph.nodes.step import Step
from moa_graph.state import Proposal
from moa_graph.strategies.aggregate import AnswerStrategy
from moa_graph.strategies.checks import check_embeddings, check_whole
from moa_graph.strategies.judge import Case, judge
from moa_graph.strategies.rank import MostCentral
from moa_graph.strategies.select import Chosen, Selection
from moa_graph.strategies.similarity import Matrix, similarities
from moa_graph.strategies.vote import Parse, Vote

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

_FEWEST = 3  # of two that differ, neither is the odd one
_CONTRADICTS = (
    "You compare responses of several models to a user's query. Name those that contradict, in "
    "substance, what a clear majority of the others says: another fact, number, choice or advice. "
    "Leaving something out, or saying it in other words, is not a contradiction. Reply with their "
    "numbers, or with none if there are none, and with nothing else."
)
_CONTRADICTS_AGAIN = "Reply with numbers from 1 to {highest}, or with none, and nothing else."
_APART = 0.15  # by so much embeddings must be more similar within the majority than to an outlier


class ClusterAndFilter(Selection):
    """Leave out the proposals that a majority of the others contradicts.

    With embeddings, the texts are parted into the two clusters that are least similar, and the
    smaller one is left out, as in the paper. With a judge, a model says which contradict what most
    of the others say; one call a layer.

    Where no majority is plain, everybody stays, and the record says so: with three of six, nobody
    knows who is right.

    Args:
        embeddings: Compares meanings.
        judge: A model that says who contradicts the majority.

    Raises:
        TypeError: If `judge` is not a model.
        ValueError: If neither is given, or both are.

    Source: arXiv 2503.05856, "Cluster & Filter".
    """

    def __init__(
        self, *, embeddings: Embeddings | str | None = None, judge: ModelLike | None = None
    ) -> None:
        if (embeddings is None) == (judge is None):
            raise ValueError("ClusterAndFilter() needs embeddings or a judge: one of them.")
        check_embeddings("ClusterAndFilter", embeddings)
        self.embeddings = embeddings
        self.judge = None if judge is None else as_model(judge, "ClusterAndFilter(judge=…)")

    @property
    def models(self) -> Sequence[Model]:
        """As `Selection`."""
        return [self.judge] if self.judge else []

    def check(self, width: int) -> None:
        """As `Selection`."""
        if width < _FEWEST:
            raise ValueError(
                f"Layer(select=ClusterAndFilter(…)) needs {_FEWEST} proposers or more in the "
                "layer, so that there can be a plain majority."
            )

    async def choose(
        self,
        references: list[Proposal],
        step: Step,
    ) -> Chosen:
        """As `Selection`."""
        chosen = Chosen(references, by="no plain majority against anybody")
        if len(references) < _FEWEST:
            return chosen
        if self.judge is None:
            texts = [p["content"] for p in references]
            odd = outliers_by_clusters(await similarities(texts, step.asked, self.embeddings))
        else:
            verdict = await judge(
                step,
                self.judge,
                Case(step.asked, references, _CONTRADICTS),
                lambda said: _minority(said, len(references)),
                _CONTRADICTS_AGAIN.format(highest=len(references)),
            )
            odd = verdict.value or []
            chosen.error, chosen.usage = verdict.error, verdict.usage
            chosen.attempts = verdict.attempts
        if odd:
            chosen.kept = [p for i, p in enumerate(references) if i not in odd]
            reason = f"{len(chosen.kept)} of {len(references)} agree on something else"
            chosen.left_out = {references[i]["proposer"]: reason for i in odd}
            chosen.by = "judge" if self.judge else "majority"
        return chosen


def _minority(said: str, count: int) -> list[int] | None:
    """The places that a judge names; none where they are no minority. None for no verdict."""
    if re.match(r"\W*none\b", said.strip(), re.IGNORECASE):
        return []
    named = {int(number) for number in re.findall(r"\d{1,4}", said)}
    if not named or not all(1 <= number <= count for number in named):
        return None
    return sorted(n - 1 for n in named) if _is_minority(len(named), count) else []


def outliers_by_clusters(matrix: Matrix) -> list[int]:
    """Return which texts are in the smaller of two clusters, where the larger one is a majority.

    Args:
        matrix: Similarities of the texts.

    Returns:
        Their places; none unless the clusters are plainly apart.
    """
    if len(matrix) < _FEWEST:
        return []
    clusters = [[i] for i in range(len(matrix))]
    while len(clusters) > 2:  # noqa: PLR2004 - the paper's two: who is right, and who is not
        pairs = ((a, b) for b in range(len(clusters)) for a in range(b))
        a, b = max(pairs, key=lambda pair: _mean(matrix, clusters[pair[0]], clusters[pair[1]]))
        clusters[a] += clusters.pop(b)
    odd, kept = sorted(clusters, key=len)
    apart = _mean(matrix, kept, kept) - _mean(matrix, odd, kept) >= _APART
    return sorted(odd) if apart and _is_minority(len(odd), len(matrix)) else []


def _is_minority(odd: int, total: int) -> bool:
    return 2 * odd < total


def _mean(matrix: Matrix, some: Sequence[int], others: Sequence[int]) -> float:
    pairs = [matrix[i][j] for i in some for j in others if i != j]
    return sum(pairs) / len(pairs) if pairs else 1.0


class _Dropout(AnswerStrategy):
    """Several aggregations, each of another subset of the references."""

    def __init__(
        self, writer: ModelLike, *, subsets: int, drop: int | None, seed: int, name: str
    ) -> None:
        check_whole(f"{name}(subsets=…)", subsets, least=2)
        if drop is not None:
            check_whole(f"{name}(drop=…)", drop)
        check_whole(f"{name}(seed=…)", seed, least=0)
        self._name = name
        self._model = as_model(writer, f"{name}(writer=…)")
        self.subsets = subsets
        self.drop = drop
        self.seed = seed

    @property
    def models(self) -> Sequence[Model]:
        """As `AnswerStrategy`."""
        return [self._model]

    def members(self, width: int) -> list[Member]:
        """As `AnswerStrategy`: an aggregation is a proposer that sees a subset."""
        drop = self.drop if self.drop is not None else max(1, width // 3)
        if not 1 <= drop < width:
            raise ValueError(
                f"{self._name}(drop={drop}) must leave some of the last layer's {width} proposers: "
                f"give a number from 1 to {width - 1}."
                if width > 1
                else f"{self._name} needs two proposers or more in the last layer: it leaves some "
                "out."
            )
        return [
            Member(f"subset_{i + 1}", self._model, None, i, None, self._reads(i, drop))
            for i in range(self.subsets)
        ]

    def _reads(self, place: int, drop: int) -> Reads:
        def reads(references: list[Proposal]) -> list[Proposal]:
            # Windows over a shuffled circle: each reference is in as many subsets as any other.
            total = len(references)
            circle = list(range(total))
            random.Random(self.seed).shuffle(circle)  # noqa: S311
            start = place * total // self.subsets
            kept = {circle[(start + i) % total] for i in range(max(1, total - drop))}
            return [p for i, p in enumerate(references) if i in kept]

        return reads


class DropoutAndVote(_Dropout):
    """Aggregates subsets of the references, each seen as often, and lets the aggregates vote.

    A deceiver is missing from some subsets. For short answers, which can be counted: a number, a
    choice, a name. The aggregations are a layer of their own, which counts: with `layers=2`
    there are proposers, aggregations, and the vote.

    Args:
        writer: The model that aggregates each subset.
        subsets: How many (at least 2); an odd number has fewer ties.
        drop: How many references each leaves out; by default a third, at least 1.
        seed: Which ones.
        parse: As for `Vote`.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range.

    Source: arXiv 2503.05856, "Dropout & Vote".
    """

    def __init__(
        self,
        writer: ModelLike,
        *,
        subsets: int = 5,
        drop: int | None = None,
        seed: int = 0,
        parse: Parse | None = None,
    ) -> None:
        super().__init__(writer, subsets=subsets, drop=drop, seed=seed, name="DropoutAndVote")
        self._vote = Vote(parse=parse)

    def node(self, plan: Plan) -> AnswerNode:
        """As `AnswerStrategy`."""
        return self._vote.node(plan)


class DropoutAndCluster(_Dropout):
    """Aggregates subsets of the references; the aggregate that agrees most is the answer.

    As `DropoutAndVote`, for answers that are too long to be counted.

    Args:
        writer: The model that aggregates each subset.
        subsets: How many (at least 2).
        drop: How many references each leaves out; by default a third, at least 1.
        seed: Which ones.
        embeddings: Compares meanings; by default words are compared.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If a number is out of range, or nothing can compare texts.

    Source: arXiv 2503.05856, "Dropout & Cluster".
    """

    def __init__(
        self,
        writer: ModelLike,
        *,
        subsets: int = 5,
        drop: int | None = None,
        seed: int = 0,
        embeddings: Embeddings | str | None = None,
    ) -> None:
        check_embeddings("DropoutAndCluster", embeddings)
        super().__init__(writer, subsets=subsets, drop=drop, seed=seed, name="DropoutAndCluster")
        self._central = MostCentral(embeddings=embeddings)

    def node(self, plan: Plan) -> AnswerNode:
        """As `AnswerStrategy`."""
        return self._central.node(plan)
