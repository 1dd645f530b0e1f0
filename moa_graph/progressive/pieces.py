"""Settings of the progressive modes: sizes of the pieces."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from moa_graph.errors import value_object
from moa_graph.limits import Count, Number

_Growth = Annotated[Number, Field(ge=1)]
_LONGEST = 4096  # tokens of one piece; larger pieces would hardly save calls

LEAST, MOST = 4, 64
"""Tokens of a measured first chunk, at least and at most."""
_FIRST_CHUNKS = 1 / 3  # time for them in all layers, as a share of the time until a first token
USUAL_PACE = 16.0
"""Tokens that a model writes in the time in which a call begins, if that was not measured."""
_WRITING = 7  # time for the answer's first piece, as a multiple of the time until its first token
_SHORTEST_PIECE, _LONGEST_FIRST_PIECE = 16, 512  # tokens of the answer's first piece, if measured


def grown_size(first: int, growth: float, number: int) -> int:
    """Return the tokens of piece `number` (from 0); each piece is `growth` times the last one."""
    grown = math.log(first) + number * math.log(growth)
    if grown >= math.log(_LONGEST):
        return max(first, _LONGEST)
    return max(1, round(first * growth**number))


def first_share(layers: int) -> float:
    """Return the time for a measured first chunk, as a share of the time until its first token.

    Args:
        layers: Number of layers of the graph, including the aggregator's.
    """
    return _FIRST_CHUNKS / max(1, layers - 1)


@value_object
class Staircase:
    """Staircase streaming: the aggregator starts on the first chunks of the proposals.

    Each proposer of the first layer makes one continuous streaming call. When the first chunk of
    each proposer (or of a quorum) has arrived, the next layer writes its first piece from these
    chunks, and so on. Each later piece uses all the text that has arrived, until a model ends its
    text with the complete proposals in view. The first token therefore arrives early. This needs
    more prompt tokens. Each prompt is the beginning of the model's next one, so that a provider's
    prefix cache serves what was sent before.

    By default, the sizes follow from the speed of the first layer's models in this run. The first
    chunk is what arrives in a third of the time until the first token, divided by the number of
    layers of proposers (between 4 and 64 tokens), so it delays the answer little. The answer's
    first piece takes seven times as long as a call takes to begin (between 16 and 512 tokens), so
    about an eighth of its time is spent on beginning.

    The graph visits all of its nodes in rounds. The checkpoint after each round has the text of
    every node, so an interrupted run continues from there.

    Args:
        first: Tokens of the first chunk (at least 1). Later pieces begin with `growth` times as
            many. By default, both are measured.
        growth: Growth factor of the pieces (at least 1). A larger factor needs fewer calls.

    Raises:
        TypeError: If an argument is not a number.
        ValueError: If a value is out of range.

    Source: Wang et al., Staircase Streaming (arXiv 2510.05059).
    """

    first: Count | None = Field(
        default=None,
        title="First",
        description="Tokens of the first chunk; measured if this is empty.",
    )
    growth: _Growth = Field(
        default=5.0, title="Growth", description="By how much each next piece is longer."
    )

    def size(self, number: int, pace: float = USUAL_PACE, layers: int = 2) -> int:
        """Return the number of tokens of a piece.

        Args:
            number: Index of the piece; 0 is the first chunk.
            pace: Tokens that a model writes in the time in which a call begins. Not used if
                `first` is given.
            layers: Number of layers of the graph, including the aggregator's. Not used either.
        """
        if self.first is not None:
            return grown_size(self.first, self.growth, number)
        if number == 0:
            return min(max(LEAST, round(pace * first_share(layers))), MOST)
        first = min(max(_SHORTEST_PIECE, round(pace * _WRITING)), _LONGEST_FIRST_PIECE)
        return grown_size(first, self.growth, number - 1)


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
