"""Split a streamed reply into blocks, for protocols that send one block after the other."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Literal

from moa_graph.server.protocols.reply import CallDelta, Delta, RefusalDelta, TextDelta

Kind = Literal["text", "refusal", "call"]


@dataclass
class Block:
    """A block of a reply.

    Args:
        kind: `"text"`, `"refusal"` or `"call"`.
        index: Number of the block in the reply, from 0.
        call: Number of the tool call; None for other blocks.
        id: Id of the tool call.
        name: Name of the tool.
    """

    kind: Kind
    index: int
    call: int | None = None
    id: str | None = None
    name: str | None = None
    text: str = ""
    """The text so far; for a call, its arguments as JSON."""
    waiting: list[str] = field(default_factory=list)
    """Pieces that came while an earlier block was open."""


@dataclass(frozen=True)
class Change:
    """A change of a block: it starts, gets a piece of text, or ends."""

    change: Literal["start", "piece", "end"]
    block: Block
    piece: str = ""


async def blocks(deltas: AsyncIterator[Delta]) -> AsyncGenerator[Change, None]:
    """Yield the changes of a reply's blocks. One block is open at a time.

    Text ends when a tool call begins. Nothing says when a tool call ends, and several can be
    written at once, so the first one stays open until the reply is whole; what belongs to later
    blocks follows then.

    Args:
        deltas: Pieces of the reply.
    """
    known: list[Block] = []
    opened: Block | None = None
    async for delta in deltas:
        block = _block_of(delta, known)
        piece = delta.arguments if isinstance(delta, CallDelta) else delta.text
        if opened is not None and opened is not block and opened.kind != "call":
            yield Change("end", opened)
            opened = None
        if opened is None:
            opened = block
            yield Change("start", block)
        if block is not opened:
            block.waiting.append(piece)
        elif piece:
            block.text += piece
            yield Change("piece", block, piece)
    if opened is None:
        return
    yield Change("end", opened)
    for block in known[opened.index + 1 :]:
        for change in _whole(block):
            yield change


def _block_of(delta: Delta, known: list[Block]) -> Block:
    """Return the block that a piece belongs to; add one to the known blocks if it is new."""
    if isinstance(delta, CallDelta):
        for block in known:
            if block.call == delta.index:
                block.id, block.name = block.id or delta.id, block.name or delta.name
                return block
        known.append(Block("call", len(known), delta.index, delta.id, delta.name))
        return known[-1]
    kind: Kind = {TextDelta: "text", RefusalDelta: "refusal"}[type(delta)]  # type: ignore[assignment]
    if not known or known[-1].kind != kind:
        known.append(Block(kind, len(known)))
    return known[-1]


def _whole(block: Block) -> Iterator[Change]:
    yield Change("start", block)
    for piece in filter(None, block.waiting):
        block.text += piece
        yield Change("piece", block, piece)
    yield Change("end", block)
