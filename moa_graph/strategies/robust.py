"""Defenses against deceptive proposers: leave out proposals that contradict the majority.

These strategies do not help if half of the proposers or more are deceptive.

Source: Wolf, Yoon, Bogunovic, "This Is Your Doge, If It Please You" (arXiv 2503.05856).
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

_FEWEST = 3  # with two proposals there is no majority
_CONTRADICTS = (
    "You compare responses of several models to a user's query. Name those that contradict, in "
    "substance, what a clear majority of the others says: another fact, number, choice or advice. "
    "Leaving something out, or saying it in other words, is not a contradiction. Reply with their "
    "numbers, or with none if there are none, and with nothing else."
)
_CONTRADICTS_AGAIN = "Reply with numbers from 1 to {highest}, or with none, and nothing else."
_APART = 0.15  # minimum mean similarity within the majority, above that to the outliers


class ClusterAndFilter(Selection):
    """Leave out the proposals that contradict the majority.

    With embeddings, the texts are split into two clusters and the smaller cluster is left out, as
    in the paper. With a judge, a model names the proposals that contradict most of the others,
    with one call per layer.

    If there is no clear majority, for example three against three, all proposals are kept and
    this is recorded.

    Args:
        embeddings: Embeddings that compare meaning.
        judge: Model that names the proposals that contradict the majority.

    Raises:
        TypeError: If `judge` is not a model.
        ValueError: If neither `embeddings` nor `judge` is given, or both are.

    Source: arXiv 2503.05856, "Cluster & Filter".
    """

    def __init__(
        self, *, embeddings: Embeddings | str | None = None, judge: ModelLike | None = None
    ) -> None:
        if (embeddings is None) == (judge is None):
            raise ValueError("ClusterAndFilter() needs exactly one of embeddings and judge.")
        check_embeddings("ClusterAndFilter", embeddings)
        self.embeddings = embeddings
        self.judge = None if judge is None else as_model(judge, "ClusterAndFilter(judge=…)")

    @property
    def models(self) -> Sequence[Model]:
        """See `Selection`."""
        return [self.judge] if self.judge else []

    def check(self, width: int) -> None:
        """See `Selection`."""
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
        """See `Selection`."""
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
                Case(step.asked, references, _CONTRADICTS, choose=0),
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
    """Return the positions that a judge names.

    Returns:
        The positions; an empty list if they are not a minority, None if the reply is not a verdict.
    """
    if re.match(r"\W*none\b", said.strip(), re.IGNORECASE):
        return []
    named = {int(number) for number in re.findall(r"\d{1,4}", said)}
    if not named or not all(1 <= number <= count for number in named):
        return None
    return sorted(n - 1 for n in named) if _is_minority(len(named), count) else []


def outliers_by_clusters(matrix: Matrix) -> list[int]:
    """Return the texts in the smaller of two clusters.

    Args:
        matrix: Similarities of the texts.

    Returns:
        The positions of the texts; an empty list if the clusters are not clearly separate, or if
        the smaller one is not a minority.
    """
    if len(matrix) < _FEWEST:
        return []
    clusters = [[i] for i in range(len(matrix))]
    while len(clusters) > 2:  # noqa: PLR2004 - two clusters, as in the paper
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
    """Base class of strategies that aggregate several different subsets of the references."""

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
        """See `AnswerStrategy`."""
        return [self._model]

    def members(self, width: int) -> list[Member]:
        """See `AnswerStrategy`. Each aggregation is a proposer that sees a subset."""
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
            # Windows over a shuffled circle use all references about equally often.
            total = len(references)
            circle = list(range(total))
            random.Random(self.seed).shuffle(circle)  # noqa: S311
            start = place * total // self.subsets
            kept = {circle[(start + i) % total] for i in range(max(1, total - drop))}
            return [p for i, p in enumerate(references) if i in kept]

        return reads


class DropoutAndVote(_Dropout):
    """Aggregate subsets of the references, and answer with the majority of the aggregates.

    Some subsets do not contain the proposal of a deceptive proposer. Each reference is used about
    equally often. Use this strategy for short answers that can be counted: a number, a choice, a
    name. The aggregations are an extra layer: with `layers=2` the graph has proposers,
    aggregations, and the vote.

    Args:
        writer: Model that aggregates each subset.
        subsets: Number of subsets, at least 2. An odd number has fewer ties.
        drop: Number of references that each subset leaves out; by default a third, at least 1.
        seed: Seed for the choice of the subsets.
        parse: See `Vote`.

    Raises:
        TypeError: If an argument has the wrong type.
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
        """See `AnswerStrategy`."""
        return self._vote.node(plan)


class DropoutAndCluster(_Dropout):
    """Aggregate subsets of the references, and answer with the most central aggregate.

    The answer is the aggregate that is most similar to the others. Use this strategy instead of
    `DropoutAndVote` for answers that are too long to be counted.

    Args:
        writer: Model that aggregates each subset.
        subsets: Number of subsets, at least 2.
        drop: Number of references that each subset leaves out; by default a third, at least 1.
        seed: Seed for the choice of the subsets.
        embeddings: Embeddings that compare meaning; by default words are compared.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range, or scikit-learn is not installed and no
            embeddings are given.

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
        """See `AnswerStrategy`."""
        return self._central.node(plan)
