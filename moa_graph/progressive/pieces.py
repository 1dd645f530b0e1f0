"""Answers that are read while they are written: how large the pieces are."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from moa_graph.errors import value_object
from moa_graph.limits import Count, Number

_Growth = Annotated[Number, Field(ge=1)]
_LONGEST = 4096  # tokens of one piece: beyond it, growth saves no calls worth speaking of


def grown_size(first: int, growth: float, number: int) -> int:
    """Return tokens of the piece with that number, from 0, where each is `growth` times as long."""
    grown = math.log(first) + number * math.log(growth)
    if grown >= math.log(_LONGEST):
        return max(first, _LONGEST)
    return max(1, round(first * growth**number))


@value_object
class Staircase:
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
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Source: Wang et al., Staircase Streaming (arXiv 2510.05059).
    """

    first: Count = Field(default=16, title="First", description="Tokens of the first chunk.")
    growth: _Growth = Field(
        default=2.0, title="Growth", description="By how much each next chunk is longer."
    )

    def size(self, number: int) -> int:
        """Return tokens of the piece with that number, from 0."""
        return grown_size(self.first, self.growth, number)


@value_object
class Chunkwise:
    """Chunk-wise aggregation: proposers write each next chunk from the aggregated text.

    The graph loops: every proposer goes on from the answer as it stands, the aggregator makes the
    next piece of these chunks, and so on until the answer ends.

    Args:
        first: Tokens of the first chunk (at least 1).
        growth: By how much each next one is larger (at least 1).

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If one is out of range.

    Source: named as future work in arXiv 2406.04692, section 5.
    """

    first: Count = Field(default=64, title="First", description="Tokens of the first chunk.")
    growth: _Growth = Field(
        default=1.0, title="Growth", description="By how much each next chunk is longer."
    )

    def size(self, number: int) -> int:
        """Return tokens of the piece with that number, from 0."""
        return grown_size(self.first, self.growth, number)
