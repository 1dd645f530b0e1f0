"""What flows through the graph: the conversation, and the proposals of the current turn."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import reduce
from typing import Annotated, Literal, NotRequired

from langchain_core.messages.ai import UsageMetadata, add_usage
from langgraph.graph import MessagesState
from typing_extensions import TypedDict

from moa_graph.models.text import utf8

ProposalStatus = Literal["ok", "failed", "timed_out", "abandoned"]


AGGREGATOR_RECORD = "aggregator"
"""Where an answer's `response_metadata` has how the aggregator came to it."""


class TrimmedReference(TypedDict):
    """A reference that was too long for a model's context window."""

    proposer: str
    """Whose proposal it is."""
    tokens: int
    """How long it is, estimated."""
    kept: int
    """How much of it the model was given, estimated."""


class Replaced(TypedDict):
    """A proposer that failed, and whose place another model took."""

    model: str
    status: str
    """How it has ended: `"failed"` or `"timed_out"`."""
    error: str


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
    no model was asked."""
    position: NotRequired[int]
    """The proposer's place in its layer, from 0: the order of the references."""
    turn: NotRequired[int]
    """The turn of the conversation it belongs to, from 1."""
    cached: NotRequired[bool]
    """True if it came from the cache: then nothing was paid for it."""
    saved_usage: NotRequired[UsageMetadata]
    """What it took when it was asked for, of one that came from the cache."""
    trimmed: NotRequired[list[TrimmedReference]]
    """The references that its model was not given in full; absent if there are none."""
    reasoning: NotRequired[str]
    """What the model wrote as its reasoning; no other model is shown it."""
    asked_model: NotRequired[str]
    """The model that was asked first, where another one answered: a fallback, or by a router."""
    replaces: NotRequired[Replaced]
    """Whose place it took, as the layer's reserve; usage, attempts and latency are of both."""
    place: NotRequired[Literal["system", "human"]]
    """Where its model was shown references."""
    dropped_settings: NotRequired[list[str]]
    """Settings of the run that the provider refused, and without which it was asked again."""
    id: NotRequired[str]
    """Of this record: another one with the same id is an edited version of it."""


def merge_proposals(left: list[Proposal], right: list[Proposal]) -> list[Proposal]:
    """Reduce two lists of proposals to one, whatever the order in which they arrive.

    Commutative, associative and idempotent over what proposers write: parallel proposers, retries
    and resumed runs all end in the same list. It holds only the latest turn, one proposal for each
    layer and proposer (a usable one wins over a failed one, then the one with more attempts),
    sorted by layer and by the proposer's position.

    What a person writes with `update_state` wins over what was there. A proposal is an edit if it
    has the id of the proposal that it replaces, or no id. An edit needs `layer`, `proposer`, and
    the fields that it changes. A proposal that had failed is usable with a new text; one without
    text no longer is.

    Args:
        left: Proposals so far.
        right: Proposals to add.

    Returns:
        A new list.
    """
    right = [_completed(proposal, left) for proposal in right]
    latest = turn_of([*left, *right])
    best: dict[tuple[int, str], Proposal] = {}
    for proposal in (*left, *right):
        if proposal.get("turn", 0) != latest:
            continue
        key = (proposal["layer"], proposal["proposer"])
        best[key] = _better(best[key], proposal) if key in best else proposal
    return sorted(best.values(), key=_order)


def _completed(proposal: Proposal, left: list[Proposal]) -> Proposal:
    """An edit with what it leaves out: the turn, and in a new proposal what all proposals have.

    Raises:
        ValueError: If it does not say which proposal it is, or its text is not a string.
    """
    if proposal.keys() >= _REQUIRED and isinstance(proposal["content"], str):
        return proposal
    old = next((p for p in left if _is_same_place(p, proposal)), None)
    new: Proposal = {**old, **proposal} if old else {**_blank(turn_of(left)), **proposal}
    for field, kind in (("layer", int), ("proposer", str), ("content", str)):
        if field not in new or not isinstance(new[field], kind):  # type: ignore[literal-required]
            raise ValueError(
                f"A proposal that is written into the state needs {field!r} ({kind.__name__}): "
                f"{proposal!r}. An edit has the `layer` and the `proposer` of the proposal that it "
                "edits, and its new `content`."
            )
    return new


def _is_same_place(old: Proposal, new: Proposal) -> bool:
    if "layer" in new and "proposer" in new:
        return (old["layer"], old["proposer"]) == (new["layer"], new["proposer"])
    return "id" in new and old.get("id") == new["id"]


def _blank(turn: int) -> Proposal:
    return Proposal(
        model="", status="ok", error=None, usage=None, latency=0.0, attempts=0, turn=turn
    )  # type: ignore[typeddict-item]


def _better(old: Proposal, new: Proposal) -> Proposal:
    """Which of two proposals of one place stays; an edited one where a person has edited it."""
    if "id" in old and ("id" not in new or new["id"] == old["id"]):
        return _edited(old, new)
    if "id" in new and "id" not in old:
        return _edited(new, old)
    return new if _rank(new) > _rank(old) else old


_REQUIRED = {
    "layer", "proposer", "model", "content", "status", "error", "usage", "latency", "attempts"
}  # fmt: skip


def _edited(old: Proposal, changes: Proposal) -> Proposal:
    new: Proposal = {**old, **changes, "id": old["id"]}
    new["content"] = utf8(new["content"])
    if new["content"] == old["content"] or new["status"] != old["status"]:
        return new
    if new["status"] != "ok" and new["content"].strip():
        return {**new, "status": "ok", "error": None}
    if new["status"] == "ok" and not new["content"].strip():
        return {**new, "status": "failed", "error": "its text was removed by an edit"}
    return new


def text_for_readers(proposal: Proposal, selection: Decision) -> str:
    """Return the text that later models are shown of a selected proposal.

    It is the selection's own version (a shorter one, say), unless the proposal was edited since.
    """
    name, content = proposal["proposer"], proposal["content"]
    made_from = selection.get("texts_of", {}).get(name)
    if made_from is not None and made_from != digest_of(content):
        return content
    return selection.get("texts", {}).get(name, content)


def digest_of(text: str) -> str:
    """Return a short digest by which a text is known again."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


class MoAState(MessagesState):
    """The state of a Mixture-of-Agents graph."""

    proposals: Annotated[list[Proposal], merge_proposals]
    """The proposals of the current turn; those of earlier turns are in their checkpoints."""


class Decision(TypedDict):
    """What a step beside the proposers has decided: a selection, an early exit, a choice."""

    step: str
    """The step's node, such as `"select_1"`."""
    layer: int
    """The layer whose proposals it looked at; 0 where there were none yet."""
    turn: int
    """The turn of the conversation, from 1."""
    outcome: str
    """In one word: `"kept"`, `"exit"`, `"go_on"`, `"chosen"`, `"alone"`, `"mixture"` …"""
    kept: list[str]
    """The proposers whose proposals go on, in the order in which they are shown."""
    left_out: dict[str, str]
    """The other usable proposals, by proposer, each with the reason."""
    by: str
    """On whose word: `"judge"`, `"agreement"`, `"votes"` …"""
    error: str | None
    """Why it was not decided as it should have been, such as a judge that gave no verdict."""
    usage: UsageMetadata | None
    """Tokens of the model calls behind the decision."""
    attempts: int
    """Requests made for it."""
    texts: NotRequired[dict[str, str]]
    """What was written for it: a reference in its shorter form by proposer, an analysis …"""
    texts_of: NotRequired[dict[str, str]]
    """Of the references in `texts`, by proposer, a digest of the text that they were made from."""


def merge_decisions(left: list[Decision], right: list[Decision]) -> list[Decision]:
    """Reduce two lists of decisions: the latest turn's, one for each step, sorted.

    Commutative, associative and idempotent, as `merge_proposals`.
    """
    both = [*left, *right]
    latest = turn_of(both)
    current = sorted((d for d in both if d["turn"] == latest), key=_as_text)
    by_step = {d["step"]: d for d in current}
    return sorted(by_step.values(), key=lambda d: (d["layer"], d["step"]))


class DecidedState(MoAState):
    """The state of a graph with steps that decide."""

    decisions: Annotated[list[Decision], merge_decisions]
    """What the steps of the current turn have decided."""


class Draft(TypedDict):
    """What a node that is visited several times has written so far."""

    node: str
    question: str
    """What the turn asks: of another question, the draft counts for nothing."""
    turn: int
    pieces: list[str]
    """Its text, in the pieces in which it was written; together they are the text."""
    tail: str
    """Spaces that belong to its end, if its model does not go on."""
    tokens: int
    """How long it is, in tokens (of most providers, the chunks in which it came)."""
    ended: bool
    """Whether nothing more comes."""
    closed: bool
    """Whether its model ended the last piece by itself, and was not cut off."""
    views: list[dict[str, int]]
    """For each piece, how many characters of each reference were in view, by its node."""
    usage: UsageMetadata | None
    attempts: int
    latency: float
    """Seconds of its own work so far."""
    reasoning: NotRequired[str]
    """What its model wrote as reasoning."""
    message_id: str
    """Of the message that its tokens are streamed as."""


def merge_drafts(left: dict[str, Draft], right: dict[str, Draft]) -> dict[str, Draft]:
    """Return the drafts by node: newer ones replace older ones, and all of another question."""
    questions = {draft["question"] for draft in right.values()}
    kept = {
        node: draft
        for node, draft in left.items()
        if not questions or draft["question"] in questions
    }
    return {**kept, **right}


class DraftedState(MoAState):
    """The state of a graph that comes back to its nodes, such as a staircase."""

    drafts: Annotated[dict[str, Draft], merge_drafts]
    """What each node has written so far; not part of the output."""


class DraftedDecidedState(DraftedState, DecidedState):
    """The state of a graph that does both."""


def total_usage(usages: Iterable[UsageMetadata | None]) -> UsageMetadata | None:
    """Return the sum of what is known; None if nothing is."""
    known = [usage for usage in usages if usage]
    return reduce(add_usage, known) if known else None


def turn_of(records: Iterable[Proposal] | Iterable[Decision]) -> int:
    """Return the latest turn among proposals or decisions; 0 where there are none."""
    return max((record.get("turn", 0) for record in records), default=0)


def proposals_of_layer(proposals: Iterable[Proposal], layer: int) -> list[Proposal]:
    """Return the proposals of one layer, in the proposers' order."""
    return sorted((p for p in proposals if p["layer"] == layer), key=_order)


def decisions_of(state: MoAState) -> list[Decision]:
    """Return the decisions in a state; none in that of a plain mixture."""
    decisions: list[Decision] = state.get("decisions") or []  # type: ignore[assignment]
    return decisions


def has_ended(state: MoAState, node: str) -> bool:
    """Return whether a node that is visited several times has nothing more to write."""
    drafts: dict[str, Draft] = state.get("drafts") or {}  # type: ignore[assignment]
    return node in drafts and drafts[node]["ended"]


def usable(proposals: Iterable[Proposal]) -> list[Proposal]:
    """Return the proposals that may be shown to another model."""
    return [p for p in proposals if p["status"] == "ok"]


def _order(proposal: Proposal) -> tuple[int, int, str]:
    return proposal["layer"], proposal.get("position", 0), proposal["proposer"]


def _rank(proposal: Proposal) -> tuple[bool, int, str]:
    # The text makes the order total, without which the merge would depend on arrival.
    return proposal.get("status") == "ok", proposal.get("attempts", 0), _as_text(proposal)


def _as_text(record: Proposal | Decision) -> str:
    return json.dumps(record, sort_keys=True, default=str)
