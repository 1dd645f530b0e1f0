"""Settings of the progressive modes: sizes of the pieces."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from moa_graph.errors import value_object
from moa_graph.limits import Count, Number

_Growth = Annotated[Number, Field(ge=1)]
_LONGEST = 4096  # tokens of one piece; larger pieces would hardly save calls


def grown_size(first: int, growth: float, number: int) -> int:
    """Return the tokens of piece `number` (from 0); each piece is `growth` times the last one."""
    grown = math.log(first) + number * math.log(growth)
    if grown >= math.log(_LONGEST):
        return max(first, _LONGEST)
    return max(1, round(first * growth**number))


@value_object
class Staircase:
    """Staircase streaming: the aggregator starts on the first chunks of the proposals.

    Each proposer of the first layer makes one continuous streaming call. When the first chunk of
    each proposer (or of a quorum) has arrived, the next layer writes its first piece from these
    chunks, and so on. Each later piece uses all the text that has arrived, until a model ends its
    text with the complete proposals in view. The first token therefore arrives early. This needs
    more prompt tokens, most of which a provider's prefix cache serves.

    The graph visits all of its nodes in rounds. The checkpoint after each round has the text of
    every node, so an interrupted run continues from there.

    Args:
        first: Tokens of the first chunk (at least 1).
        growth: Growth factor of the chunks (at least 1). A larger factor needs fewer calls.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If a value is out of range.

    Source: Wang et al., Staircase Streaming (arXiv 2510.05059).
    """

    first: Count = Field(default=16, title="First", description="Tokens of the first chunk.")
    growth: _Growth = Field(
        default=2.0, title="Growth", description="By how much each next chunk is longer."
    )

    def size(self, number: int) -> int:
        """Return the number of tokens of piece `number` (from 0)."""
        return grown_size(self.first, self.growth, number)


@value_object
class Chunkwise:
    """Chunk-wise aggregation: proposers write each next chunk from the aggregated text.

    The graph loops: every proposer continues the current answer, and the aggregator writes the
    next piece from these chunks, until the answer ends.

    Args:
        first: Tokens of the first chunk (at least 1).
        growth: Growth factor of the chunks (at least 1).

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If a value is out of range.

    Source: named as future work in arXiv 2406.04692, section 5.
    """

    first: Count = Field(default=64, title="First", description="Tokens of the first chunk.")
    growth: _Growth = Field(
        default=1.0, title="Growth", description="By how much each next chunk is longer."
    )

    def size(self, number: int) -> int:
        """Return the number of tokens of piece `number` (from 0)."""
        return grown_size(self.first, self.growth, number)
