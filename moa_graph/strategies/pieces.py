"""Answers that are read while they are written: how large the pieces are."""

from __future__ import annotations

import math
from dataclasses import dataclass

_LONGEST = 4096  # tokens of one piece: beyond it, growth saves no calls worth speaking of


@dataclass(frozen=True)
class _Pieces:
    first: int = 16
    growth: float = 2.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        if isinstance(self.first, bool) or not isinstance(self.first, int):
            raise TypeError(f"{name}(first={self.first!r}) must be a whole number of tokens.")
        if self.first < 1:
            raise ValueError(f"{name}(first={self.first}) must be at least 1 token.")
        if isinstance(self.growth, bool) or not isinstance(self.growth, int | float):
            raise TypeError(f"{name}(growth={self.growth!r}) must be a number, such as 2.")
        if not math.isfinite(self.growth) or self.growth < 1:
            raise ValueError(f"{name}(growth={self.growth}) must be at least 1.")

    def size(self, number: int) -> int:
        """Tokens of the piece with that number, from 0."""
        grown = math.log(self.first) + number * math.log(self.growth)
        if grown >= math.log(_LONGEST):
            return max(self.first, _LONGEST)
        return max(1, round(self.first * self.growth**number))


@dataclass(frozen=True)
class Staircase(_Pieces):
    """Staircase streaming: the aggregator begins on the first chunks of the proposals.

    Each proposer of the first layer makes one continuous streaming call. As soon as the first
    chunk of each (or of a quorum) is there, the next layer writes its first piece from these, and
    so on; each next piece is written from all that has arrived, until a model ends by itself with
    the complete proposals in view. The first token so comes early, at the price of some more
    prompt tokens, most of which a provider's prefix cache serves.

    The graph visits all of its nodes in rounds. What each has written by the end of a round is in
    the checkpoint, and a run that was interrupted goes on from there.

    Args:
        first: Tokens of the first chunk (at least 1).
        growth: By how much each next one is larger (at least 1). The larger, the fewer calls.

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is out of range.

    Source: Wang et al., Staircase Streaming (arXiv 2510.05059).
    """


@dataclass(frozen=True)
class Chunkwise(_Pieces):
    """Chunk-wise aggregation: proposers write each next chunk from the aggregated text.

    The graph loops: every proposer goes on from the answer as it stands, the aggregator makes the
    next piece of these chunks, and so on until the answer ends.

    Args:
        first: Tokens of the first chunk (at least 1).
        growth: By how much each next one is larger (at least 1).

    Raises:
        TypeError: If an argument is no number.
        ValueError: If one is out of range.

    Source: named as future work in arXiv 2406.04692, section 5.
    """

    first: int = 64
    growth: float = 1.0
