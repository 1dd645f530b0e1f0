"""State of the graph: the conversation, and the proposals of the current turn."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Annotated, Any, Literal, NotRequired

from langchain_core.messages.ai import UsageMetadata, add_usage
from langgraph.graph import MessagesState
from typing_extensions import TypedDict

from moa_graph.models.text import utf8

_logger = logging.getLogger(__name__)

ProposalStatus = Literal["ok", "failed", "timed_out", "abandoned"]


AGGREGATOR_RECORD = "aggregator"
"""Key in an answer's `response_metadata` for the record of the aggregator's calls."""


class TrimmedReference(TypedDict):
    """A reference that was too long for a model's context window."""

    proposer: str
    """The proposer that wrote it."""
    tokens: int
    """Its length in tokens, estimated."""
    kept: int
    """Number of its tokens that the model received, estimated."""


class Replaced(TypedDict):
    """A proposer that failed and was replaced by another model."""

    model: str
    status: str
    """Its final status: `"failed"` or `"timed_out"`."""
    error: str


class Proposal(TypedDict):
    """One proposer's answer in one layer, with its model, cost and status.

    All values are plain JSON, so a proposal can be stored, streamed and compared directly.
    """

    layer: int
    """The layer, counted from 1."""
    proposer: str
    """The proposer's name, unique within its layer."""
    model: str
    """The model's name, as the provider spells it."""
    content: str
    """The answer's text; empty unless `status` is `"ok"`."""
    status: ProposalStatus
    """Only proposals with status `"ok"` are shown to other models."""
    error: str | None
    """Short description of why the status is not `"ok"`."""
    usage: UsageMetadata | None
    """Tokens of all model calls for this proposal, or None if the provider reports no usage."""
    latency: float
    """Seconds from the start of the proposer's first attempt to its end."""
    attempts: int
    """Requests made for it, including retries; 0 if it came from the cache or no model was
    called."""
    position: NotRequired[int]
    """The proposer's position in its layer, from 0. References are shown in this order."""
    turn: NotRequired[int]
    """The turn of the conversation, from 1."""
    cached: NotRequired[bool]
    """True if it came from the cache, at no cost."""
    saved_usage: NotRequired[UsageMetadata]
    """Tokens of the original calls, if it came from the cache."""
    trimmed: NotRequired[list[TrimmedReference]]
    """References that were shortened for its model; absent if there were none."""
    reasoning: NotRequired[str]
    """The model's reasoning. By default it is not shown to other models."""
    asked_model: NotRequired[str]
    """The model that was requested, if another one answered (a fallback or a router's choice)."""
    replaces: NotRequired[Replaced]
    """The proposer that this reserve model replaces. Usage, attempts and latency include both."""
    place: NotRequired[Literal["system", "human"]]
    """The message in which its model was shown references."""
    dropped_settings: NotRequired[list[str]]
    """Run settings that the provider rejected; the request was repeated without them."""
    id: NotRequired[str]
    """Id of this record. A record with the same id is an edited version of it."""


def merge_proposals(left: list[Proposal], right: list[Proposal]) -> list[Proposal]:
    """Merge two lists of proposals into one, independently of their order.

    The merge of proposers' writes is commutative, associative and idempotent: parallel proposers,
    retries and resumed runs give the same list. The result has only the latest turn, with one
    proposal per layer and proposer (a usable one wins over a failed one, then the one with more
    attempts), sorted by layer and by the proposer's position.

    Manual edits with `update_state` win over existing values. A proposal is an edit if it has the
    id of the proposal that it replaces, or no id. An edit needs `layer`, `proposer`, and the
    fields that it changes. A failed proposal becomes usable with a new text; a usable one becomes
    failed if its text is removed.

    Args:
        left: Proposals so far.
        right: Proposals to add.

    Returns:
        A new list.
    """
    right = [whole for proposal in right if (whole := _completed(proposal, left))]
    latest = turn_of([*left, *right])
    best: dict[tuple[int, str], Proposal] = {}
    for proposal in (*left, *right):
        if proposal.get("turn", 0) != latest:
            continue
        key = (proposal["layer"], proposal["proposer"])
        best[key] = _better(best[key], proposal) if key in best else proposal
    return sorted(best.values(), key=_order)


def identifies_proposal(edit: Mapping[str, Any]) -> bool:
    """Return whether an edit says which proposal it changes, or has what a new one needs."""
    return "id" in edit or {"layer", "proposer", "content"} <= edit.keys()


def _completed(proposal: Proposal, left: list[Proposal]) -> Proposal | None:
    """Return an edit with its missing fields filled in from the old proposal or from defaults.

    None if the proposal that it edits is not there, and the edit is no whole proposal: a reducer
    that raises would make the thread unreadable.
    """
    if proposal.keys() >= _REQUIRED:
        return proposal
    old = next((p for p in left if _is_same_place(p, proposal)), None)
    new: Proposal = {**old, **proposal} if old else {**_blank(turn_of(left)), **proposal}
    if new.keys() >= _REQUIRED:
        return new
    _logger.warning("An edit of a proposal that is not there is ignored: %.200r", proposal)
    return None


def _is_same_place(old: Proposal, new: Proposal) -> bool:
    if "layer" in new and "proposer" in new:
        return (old["layer"], old["proposer"]) == (new["layer"], new["proposer"])
    return "id" in new and old.get("id") == new["id"]


def _blank(turn: int) -> Proposal:
    return Proposal(
        model="", status="ok", error=None, usage=None, latency=0.0, attempts=0, turn=turn
    )  # type: ignore[typeddict-item]


def _better(old: Proposal, new: Proposal) -> Proposal:
    """Return the better of two proposals for one position, or the edited one if one is an edit."""
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
    """Return the text of a selected proposal that later models are shown.

    This is the selection's version (such as a shorter one), unless the proposal was edited later.
    """
    name, content = proposal["proposer"], proposal["content"]
    made_from = selection.get("texts_of", {}).get(name)
    if made_from is not None and made_from != digest_of(content):
        return content
    return selection.get("texts", {}).get(name, content)


def selected(
    proposals: Iterable[Proposal], decisions: Iterable[Decision], layer: int
) -> list[Proposal]:
    """Return the usable proposals of a layer as later models are shown them, after selections."""
    given = usable(proposals_of_layer(proposals, layer))
    selection = next((d for d in decisions if d["step"] == f"select_{layer}"), None)
    if selection is None:
        return given
    by_name = {p["proposer"]: p for p in given}
    return [
        by_name[name] | {"content": text_for_readers(by_name[name], selection)}
        for name in selection["kept"]
        if name in by_name
    ]


def digest_of(text: str) -> str:
    """Return a short digest that identifies a text."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:16]


class MoAState(MessagesState):
    """The state of a Mixture-of-Agents graph."""

    proposals: Annotated[list[Proposal], merge_proposals]
    """The proposals of the current turn. Those of earlier turns are in earlier checkpoints."""


class Decision(TypedDict):
    """Record of a decision by a selection, a condition, a route or an answer strategy."""

    step: str
    """The step's node, such as `"select_1"`."""
    layer: int
    """The layer of the proposals that it used; 0 if there were none yet."""
    turn: int
    """The turn of the conversation, from 1."""
    outcome: str
    """The outcome: `"kept"`, `"exit"`, `"go_on"`, `"chosen"`, `"alone"`, `"mixture"` …"""
    kept: list[str]
    """The proposers of the kept proposals, in the order in which they are shown."""
    left_out: dict[str, str]
    """The other usable proposals: the reason by proposer."""
    by: str
    """The basis of the decision: `"judge"`, `"agreement"`, `"votes"` …"""
    error: str | None
    """Why the decision fell back to a default, such as a judge without a verdict."""
    usage: UsageMetadata | None
    """Tokens of the model calls for the decision."""
    attempts: int
    """Requests made for it."""
    scores: NotRequired[dict[str, float]]
    """Scores of the proposals by proposer, the best first."""
    texts: NotRequired[dict[str, str]]
    """Texts written for the decision: shortened references by proposer, an analysis …"""
    texts_of: NotRequired[dict[str, str]]
    """For the references in `texts`: digest of the original text, by proposer."""


def merge_decisions(left: list[Decision], right: list[Decision]) -> list[Decision]:
    """Merge two lists of decisions: keep the latest turn, one decision per step, sorted.

    The merge is commutative, associative and idempotent, like `merge_proposals`.
    """
    both = [*left, *right]
    latest = turn_of(both)
    current = sorted((d for d in both if d["turn"] == latest), key=_as_text)
    by_step = {d["step"]: d for d in current}
    return sorted(by_step.values(), key=lambda d: (d["layer"], d["step"]))


class DecidedState(MoAState):
    """The state of a graph that records decisions."""

    decisions: Annotated[list[Decision], merge_decisions]
    """The decisions of the current turn."""


class Draft(TypedDict):
    """Partial text of a node that is visited several times."""

    node: str
    question: str
    """Key of the question. A draft for another question is ignored."""
    turn: int
    pieces: list[str]
    """The text as a list of pieces; joined, they are the whole text."""
    tail: str
    """Trailing whitespace, added only if the model does not continue the text."""
    tokens: int
    """Length in tokens (for most providers, the number of streamed chunks)."""
    ended: bool
    """Whether the text is complete."""
    closed: bool
    """Whether the model ended the last piece itself and was not cut off."""
    views: list[dict[str, int]]
    """For each piece: the number of visible characters of each reference, by node."""
    usage: UsageMetadata | None
    attempts: int
    latency: float
    """Seconds that the node has worked so far."""
    reasoning: NotRequired[str]
    """The model's reasoning."""
    message_id: str
    """Id of the message in the token stream."""
    pace: NotRequired[float]
    """Tokens that the model writes in the time in which a call begins, if it was measured."""


def merge_drafts(left: dict[str, Draft], right: dict[str, Draft]) -> dict[str, Draft]:
    """Merge drafts by node. New drafts replace old ones, and drop drafts of other questions."""
    questions = {draft["question"] for draft in right.values()}
    kept = {
        node: draft
        for node, draft in left.items()
        if not questions or draft["question"] in questions
    }
    return {**kept, **right}


class DraftedState(MoAState):
    """The state of a graph that visits nodes several times, such as a staircase."""

    drafts: Annotated[dict[str, Draft], merge_drafts]
    """The partial text of each node; not part of the output."""


class DraftedDecidedState(DraftedState, DecidedState):
    """The state of a graph with both drafts and decisions."""


def total_usage(usages: Iterable[UsageMetadata | None]) -> UsageMetadata | None:
    """Return the sum of the known usages; None if all are unknown."""
    known = [usage for usage in usages if usage]
    return reduce(add_usage, known) if known else None


def turn_of(records: Iterable[Proposal] | Iterable[Decision]) -> int:
    """Return the latest turn among proposals or decisions; 0 if there are none."""
    return max((record.get("turn", 0) for record in records), default=0)


def proposals_of_layer(proposals: Iterable[Proposal], layer: int) -> list[Proposal]:
    """Return the proposals of one layer, in the proposers' order."""
    return sorted((p for p in proposals if p["layer"] == layer), key=_order)


def decisions_of(state: MoAState) -> list[Decision]:
    """Return the decisions in a state; an empty list if the graph records none."""
    decisions: list[Decision] = state.get("decisions") or []  # type: ignore[assignment]
    return decisions


def has_ended(state: MoAState, node: str) -> bool:
    """Return whether the draft of a node is complete."""
    drafts: dict[str, Draft] = state.get("drafts") or {}  # type: ignore[assignment]
    return node in drafts and drafts[node]["ended"]


def usable(proposals: Iterable[Proposal]) -> list[Proposal]:
    """Return the proposals that may be shown to another model."""
    return [p for p in proposals if p["status"] == "ok"]


def _order(proposal: Proposal) -> tuple[int, int, str]:
    return proposal["layer"], proposal.get("position", 0), proposal["proposer"]


def _rank(proposal: Proposal) -> tuple[bool, int, str]:
    # The text makes the order total. Otherwise the merge would depend on the order of arrival.
    return proposal.get("status") == "ok", proposal.get("attempts", 0), _as_text(proposal)


def _as_text(record: Proposal | Decision) -> str:
    return json.dumps(record, sort_keys=True, default=str)
