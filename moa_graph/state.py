"""What flows through the graph: the conversation, and the proposals of the current turn."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import reduce
from typing import Annotated, Literal, NotRequired

from langchain_core.messages.ai import UsageMetadata, add_usage
from langgraph.graph import MessagesState
from typing_extensions import TypedDict

ProposalStatus = Literal["ok", "failed", "timed_out", "abandoned"]


class TrimmedReference(TypedDict):
    """A reference that was too long for a model's context window."""

    proposer: str
    """Whose proposal it is."""
    tokens: int
    """How long it is, estimated."""
    kept: int
    """How much of it the model was given, estimated."""


class Proposal(TypedDict):
    """One proposer's answer in one layer: who said what, at what cost, and how it ended.

    Plain JSON values only, so that it can be stored, streamed and compared as it is.
    """

    layer: int
    """The layer, counted from 1."""
    proposer: str
    """The proposer's name, unique within its layer."""
    model: str
    """The model's own name, as its provider spells it."""
    content: str
    """The answer's text; empty unless `status` is `"ok"`."""
    status: ProposalStatus
    """Only an `"ok"` proposal is ever shown to another model."""
    error: str | None
    """Why it is not `"ok"`, in a short text for people."""
    usage: UsageMetadata | None
    """Tokens of every model call behind this proposal, or None where the provider tells none."""
    latency: float
    """Seconds from the proposer's first attempt to its end."""
    attempts: int
    """Requests made for it, those that were repeated included; 0 if it came from the cache, or if
    nobody was asked."""
    position: NotRequired[int]
    """The proposer's place in its layer, from 0: the order of the references."""
    turn: NotRequired[int]
    """The turn of the conversation it belongs to, from 1."""
    cached: NotRequired[bool]
    """True if it came from the cache: then nothing was paid for it."""
    trimmed: NotRequired[list[TrimmedReference]]
    """The references that its model was not given in full; absent if there are none."""


def merge_proposals(left: list[Proposal], right: list[Proposal]) -> list[Proposal]:
    """Reduce two lists of proposals to one, whatever the order in which they arrive.

    Commutative, associative and idempotent: parallel proposers, retries and resumed runs all
    end in the same list. It holds only the latest turn, one proposal for each layer and
    proposer (a usable one wins over a failed one, then the one with more attempts), sorted by
    layer and by the proposer's position.

    Args:
        left: Proposals so far.
        right: Proposals to add.

    Returns:
        A new list.
    """
    latest = turn_of([*left, *right])
    best: dict[tuple[int, str], Proposal] = {}
    for proposal in (*left, *right):
        if proposal.get("turn", 0) != latest:
            continue
        key = (proposal["layer"], proposal["proposer"])
        if key not in best or _rank(proposal) > _rank(best[key]):
            best[key] = proposal
    return sorted(best.values(), key=_order)


class MoAState(MessagesState):
    """The state of a Mixture-of-Agents graph."""

    proposals: Annotated[list[Proposal], merge_proposals]
    """The proposals of the current turn; those of earlier turns are in their checkpoints."""


def total_usage(usages: Iterable[UsageMetadata | None]) -> UsageMetadata | None:
    """The sum of what is known; None if nothing is."""
    known = [usage for usage in usages if usage]
    return reduce(add_usage, known) if known else None


def turn_of(proposals: Iterable[Proposal]) -> int:
    """The latest turn among the proposals; 0 where there are none."""
    return max((p.get("turn", 0) for p in proposals), default=0)


def proposals_of_layer(proposals: Iterable[Proposal], layer: int) -> list[Proposal]:
    """The proposals of one layer, in the proposers' order."""
    return sorted((p for p in proposals if p["layer"] == layer), key=_order)


def usable(proposals: Iterable[Proposal]) -> list[Proposal]:
    """The proposals that may be shown to another model."""
    return [p for p in proposals if p["status"] == "ok"]


def _order(proposal: Proposal) -> tuple[int, int, str]:
    return proposal["layer"], proposal.get("position", 0), proposal["proposer"]


def _rank(proposal: Proposal) -> tuple[bool, int, str]:
    # The text makes the order total, without which the merge would depend on arrival.
    text = json.dumps(proposal, sort_keys=True, default=str)
    return proposal.get("status") == "ok", proposal.get("attempts", 0), text
