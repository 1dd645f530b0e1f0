"""Sizes of the pieces of a staircase, and its answer made from drafts."""

from __future__ import annotations

from langchain_core.messages import AIMessage

from moa_graph.models import Model
from moa_graph.nodes.aggregator import aggregator_record
from moa_graph.progressive.pieces import USUAL_PACE, Staircase
from moa_graph.progressive.writing import Piece
from moa_graph.state import (
    AGGREGATOR_RECORD,
    Draft,
)


def piece_size(
    staircase: Staircase, layers: int, layer: int, number: int, pace: float | None = None
) -> int:
    """Return the number of tokens of a piece.

    Until the aggregator starts, the pieces after the first chunk are half as large, so the first
    token of the answer arrives earlier. After that, all layers write pieces of the same, growing
    size.

    Args:
        staircase: Sizes of the pieces.
        layers: Number of layers of the graph, including the aggregator's.
        layer: The layer that writes the piece, from 1.
        number: Index of the piece in its layer, from 0.
        pace: Tokens that a model writes in the time in which a call begins; None if unknown.
    """
    pace = USUAL_PACE if pace is None else pace
    round_number = layer - 1 + number
    if 0 < round_number < layers - 1:
        return max(1, staircase.size(0, pace, layers) // 2)
    return staircase.size(max(0, round_number - layers + 2), pace, layers)


def written_answer(model: Model, draft: Draft, piece: Piece | None) -> AIMessage:
    """Return the message of an answer written piece by piece, with the aggregator's record.

    Args:
        model: The aggregator's model.
        draft: The whole text.
        piece: The last piece; None if none was written in this visit.
    """
    call = piece.call if piece else None
    record = aggregator_record(model, call, draft["attempts"], draft.get("reasoning") or "")
    metadata = piece.answer.message.response_metadata if piece else {}
    metadata = {**metadata, "pieces": len(draft["pieces"]), AGGREGATOR_RECORD: record}
    if piece and (trimmed := piece.question.trimmed):
        metadata["trimmed_references"] = trimmed
    return AIMessage(
        "".join(draft["pieces"]),
        id=draft["message_id"],
        usage_metadata=draft["usage"],
        response_metadata=metadata,
    )
