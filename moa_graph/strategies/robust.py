"""Against a deceptive or hijacked proposer: leave out who contradicts the majority.

Source: Wolf, Yoon, Bogunovic, "This Is Your Doge, If It Please You" (arXiv 2503.05856). None of
it helps when half of the proposers or more deceive, and then none of it claims to.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from moa_graph import sync
from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes import AnswerNode
from moa_graph.proposers import Reads, Seat
from moa_graph.similarity import Matrix, similarities, telling_words
from moa_graph.state import Proposal
from moa_graph.steps import Plan, Step
from moa_graph.strategies.answers import AnswerStrategy
from moa_graph.strategies.deciding import check_comparable, check_whole
from moa_graph.strategies.rank import MostCentral
from moa_graph.strategies.selection import Chosen, Selection
from moa_graph.strategies.vote import Parse, Vote

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

_FEWEST = 3  # of two that differ, nobody knows which is the odd one
_FEWEST_BY_WORDS = 5  # words are weaker evidence: the majority must be one by more than a vote
_STEEP = 4  # how much more a word counts that all others say than one that most say
_MISSED = 0.4  # from which on a text misses what the majority says; one word of 4 in 5 is 0.41
_SAME_VOICE = 0.6  # texts that share that part of their words say it once, for claims about others
_APART = 0.15  # by so much embeddings must be more similar within the majority than to an outlier


class ClusterAndFilter(Selection):
    """Leaves out the proposals that a majority of the others contradicts.

    With embeddings, the texts are parted into the two clusters that are least similar, and the
    smaller one is left out, as in the paper. Without, words decide: an outlier lacks what (nearly)
    all others say, such as the name or the number that is the answer. That calls no model, and
    sees no difference between true answers that share no words, or a truth and its negation.

    Where no majority is plain, everybody stays, and the record says so: with three of six, nobody
    knows who is right.

    Args:
        embeddings: Compares meanings instead of words.

    Raises:
        ValueError: If nothing can compare texts.

    Source: arXiv 2503.05856, "Cluster & Filter".
    """

    def __init__(self, *, embeddings: Embeddings | None = None) -> None:
        check_comparable("ClusterAndFilter", embeddings)
        self.embeddings = embeddings

    def check(self, widths: Sequence[int]) -> None:
        """As `Selection`."""
        fewest = _FEWEST if self.embeddings else _FEWEST_BY_WORDS
        if max(widths) < fewest:
            raise ValueError(
                f"select: ClusterAndFilter needs {fewest} proposers or more in a layer, so that "
                f"there is a plain majority (by words {_FEWEST_BY_WORDS}, with embeddings "
                f"{_FEWEST})."
            )

    async def choose(
        self,
        references: list[Proposal],
        step: Step,
    ) -> Chosen:
        """As `Selection`."""
        texts = [p["content"] for p in references]
        if self.embeddings is None:
            odd = await sync.in_thread(outliers_by_words, texts, step.asked)
        else:
            odd = outliers_by_clusters(await similarities(texts, step.asked, self.embeddings))
        if not odd:
            return Chosen(references, by="no plain majority against anybody")
        kept = [p for i, p in enumerate(references) if i not in odd]
        reason = f"{len(kept)} of {len(references)} agree on something that it does not say"
        left_out = {references[i]["proposer"]: reason for i in odd}
        return Chosen(kept, left_out, by="majority")


def outliers_by_words(texts: Sequence[str], question: str = "") -> list[int]:
    """Which texts lack what (nearly) all others say.

    Args:
        texts: Answers to one question.
        question: The question; its words say nothing.

    Returns:
        Their places; none unless the others are a majority by more than a vote, and all of them
        say something that none of these does.
    """
    if len(texts) < _FEWEST_BY_WORDS:
        return []
    said = [set(telling_words(text, question)) for text in texts]
    missed = [_missed(words, said) for words in said]
    voices = _voices(said)
    odd = [
        i
        for i, words in enumerate(said)
        if missed[i] >= max(_MISSED, 2 * median(missed), 0.75 * max(missed))
        # Who says the same thing three times must not make the others look odd.
        and (len(voices) < _FEWEST or _missed(words, voices) >= _MISSED)
    ]
    kept = [words for i, words in enumerate(said) if i not in odd]
    agreed = set.intersection(*kept) if kept else set()
    by_more_than_a_vote = 2 * len(kept) > len(texts) + 2
    return odd if by_more_than_a_vote and all(agreed - said[i] for i in odd) else []


def outliers_by_clusters(matrix: Matrix) -> list[int]:
    """Which texts are in the smaller of two clusters, where the larger one is a majority.

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


def _missed(words: set[str], texts: Sequence[set[str]]) -> float:
    """How much of what most texts say is not among these words."""
    counts = [sum(word in text for text in texts) for word in set().union(*texts) - words]
    return sum((n / (len(texts) - 1)) ** _STEEP for n in counts if 2 * n > len(texts))


def _voices(texts: Sequence[set[str]]) -> list[set[str]]:
    voices: list[set[str]] = []
    for text in texts:
        if not any(len(text & v) >= _SAME_VOICE * len(text | v) for v in voices):
            voices.append(text)
    return voices


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

    def seats(self, width: int) -> list[Seat]:
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
            Seat(f"subset_{i + 1}", self._model, None, i, None, self._reads(i, drop))
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
        embeddings: Embeddings | None = None,
    ) -> None:
        super().__init__(writer, subsets=subsets, drop=drop, seed=seed, name="DropoutAndCluster")
        self._central = MostCentral(embeddings=embeddings)

    def node(self, plan: Plan) -> AnswerNode:
        """As `AnswerStrategy`."""
        return self._central.node(plan)
