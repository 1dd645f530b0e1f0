"""The turn of an agent: the calls of its model from one human message to the next."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NotRequired

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from typing_extensions import TypedDict

from moa_graph.prompts import is_question
from moa_graph.state import Decision, Proposal, selected

VERSION = 1
"""Format of the records in messages and in caches. Records of another format are ignored."""
RECORD = "moa"
"""Key of the record in a message's `response_metadata`."""

Source = Literal["asked", "record", "memory", "cache", "none"]
"""Origin of the proposals that a call shows: asked now, a message's record, or a cache; or none."""
Consult = str | Callable[[Sequence[BaseMessage]], bool]
"""When the proposers are asked: a word, or a function of the messages of a call."""
_FIELDS = {"layer", "proposer", "model", "content", "status", "usage"}


class Panel(TypedDict):
    """What the proposers answered in one turn of an agent."""

    version: int
    turn: str
    """Key of the turn, see `Turn`."""
    asked_at: str
    """Digest of the conversation that the proposers were shown."""
    earlier: list[str]
    """Digests of the earlier questions of the conversation."""
    proposals: list[Proposal]
    decisions: NotRequired[list[Decision]]
    draft: NotRequired[str]
    """The answer that they have reviewed."""


@dataclass
class Turn:
    """The turn to which a call belongs, and when the proposers are asked in it.

    Args:
        keys: Keys of the turn: first the one under which it is stored, then others that identify
            it as well.
        mixture: Digest of the mixture and of the agent's system prompt.
        asked_at: Digest of the conversation of this call.
        earlier: Digests of the earlier questions of the conversation.
        ask: Whether to ask the proposers: True asks them unless they have answered this very
            conversation; False shows the turn's newest proposals, if there are any; None asks
            them once in the turn.
        known: The panel in a message's record; None if there is no such record.
        thread: The thread of the conversation, if it has one.
        question: Digest of what identifies the latest question, without the mixture and the system
            prompt; "" if the question is not in the conversation.
        first: Whether no tool result follows the question.
        source: Origin of the proposals that the call shows. A run sets it.
    """

    keys: list[str]
    mixture: str
    asked_at: str
    earlier: Sequence[str]
    ask: bool | None = None
    known: Panel | None = None
    thread: str | None = None
    question: str = ""
    first: bool = False
    source: Source = "asked"
    shown_before: Mapping[int, Panel] = field(default_factory=dict)
    """Panels of earlier turns to show again, by the place of their question."""

    @classmethod
    def of(
        cls,
        mixture: str,
        messages: Sequence[BaseMessage],
        *,
        ask: bool | None = None,
        by_id: bool = True,
        thread: str | None = None,
        trusted: bool = True,
    ) -> Turn:
        """Return the turn of a call.

        Args:
            mixture: Fingerprint of the mixture.
            messages: The messages of the call.
            ask: See the class.
            by_id: Whether ids of messages are the same in all calls of a turn.
            thread: The thread of the conversation, if it has one.
            trusted: Whether records in messages were written by this package. Clients of a server
                can send any record.
        """
        system = [_said(m) for m in messages if isinstance(m, SystemMessage)]
        agent = digest([mixture, system])
        place = next((i for i in reversed(range(len(messages))) if is_question(messages[i])), None)
        rest = messages if place is None else messages[place + 1 :]
        records = [r for m in reversed(rest) if (r := record_in(m)) and r.get("mixture") == agent]
        question = ""
        if place is not None:
            identities = _identities(messages, place, by_id=by_id)
            keys = [digest([agent, thread, *parts]) for parts in identities]
            question = digest(identities[0])
        else:  # the question was left out of the conversation, or replaced by a summary
            told = [str(record.get("turn")) for record in records][:1]
            whole = digest([agent, thread, *map(_said, messages)])
            # A client of a server must not choose the key under which a panel is stored.
            keys = [*told, whole] if trusted else [whole, *told]
        known = next((p for r in records if (p := panel_in(r, keys))), None) if trusted else None
        before = [m for m in messages[: place or 0] if is_question(m)]
        return cls(
            keys,
            agent,
            digest([_said(m) for m in messages]),
            [digest(_said(m)) for m in before],
            ask,
            known,
            thread,
            question,
            not uses_tools_since_question(messages),
        )

    @property
    def key(self) -> str:
        """Key under which the turn is stored."""
        return self.keys[0]

    @property
    def unnamed(self) -> str:
        """Key from the conversation, without the id of the question."""
        return self.keys[-1]

    def panel(self, proposals: Sequence[Proposal], decisions: Sequence[Decision]) -> Panel:
        """Return the panel with the answers of this call."""
        return Panel(
            version=VERSION,
            turn=self.key,
            asked_at=self.asked_at,
            earlier=list(self.earlier),
            proposals=list(proposals),
            decisions=list(decisions),
        )

    def continues(self, panel: Panel) -> bool:
        """Return whether a stored panel is of the same conversation.

        Questions may have been left out since, but not added. The first call of a turn without a
        thread and without ids is a new turn, since the same question may have been asked again.
        """
        if self.first and self.thread is None and panel["turn"] == self.unnamed:
            return False
        return panel["turn"] in self.keys and set(self.earlier) <= set(panel["earlier"])

    def record(self) -> dict[str, Any]:
        """Return what the record in the answer says of the turn."""
        told = {"turn": self.key, "mixture": self.mixture, "source": self.source}
        return {**told, "asked_at": self.asked_at} if self.source == "asked" else told

    def serves(self, panel: Panel) -> bool:
        """Return whether this call shows the panel's proposals and asks nobody."""
        return not self.ask or panel["asked_at"] == self.asked_at


def as_consult(given: Any, owner: str, words: Sequence[str]) -> Consult:
    """Return a value of the argument `consult` after checking it.

    Args:
        given: The value.
        owner: Class with the argument, for the error message.
        words: The words that it may be.

    Raises:
        ValueError: If it is neither one of the words nor a function.
    """
    if isinstance(given, str) and given in words:
        return given
    called = given if inspect.isfunction(given) else getattr(given, "__call__", given)  # noqa: B004
    is_async = inspect.iscoroutinefunction(given) or inspect.iscoroutinefunction(called)
    if callable(given) and not isinstance(given, type) and not is_async:
        function: Consult = given
        return function
    choices = ", ".join(f'"{word}"' for word in words)
    raise ValueError(
        f"{owner}(consult={given!r}) must be {choices}, or a function that takes the messages of a "
        "call and returns whether to ask the proposers. It must not be async: use `def`."
    )


def wants_panel(consult: Consult, messages: Sequence[BaseMessage]) -> bool | None:
    """Return what a function decides for a call; None if `consult` is a word.

    Raises:
        TypeError: If the function returns anything but True or False.
    """
    if isinstance(consult, str):
        return None
    wanted: Any = consult(messages)
    if isinstance(wanted, bool):
        return wanted
    if inspect.iscoroutine(wanted):
        wanted.close()
    raise TypeError(
        f"The function given as consult returned {wanted!r:.80}, but must return True (ask the "
        "proposers) or False."
    )


def panels_before(messages: Sequence[BaseMessage], mixture: str) -> dict[int, Panel]:
    """Return the panels of earlier turns in the records of messages, by their question's place.

    Args:
        messages: The messages of a call.
        mixture: Digest of the mixture and of the agent's system prompt, see `Turn`.
    """
    places = [i for i, message in enumerate(messages) if is_question(message)]
    panels: dict[int, Panel] = {}
    for place, following in pairwise(places):
        for message in messages[place + 1 : following]:
            record = record_in(message)
            if record and record.get("mixture") == mixture and (panel := as_panel(record)):
                panels[place] = panel
    return panels


def uses_tools_since_question(messages: Sequence[BaseMessage]) -> bool:
    """Return whether a tool result follows the latest question."""
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            return True
        if is_question(message):
            return False
    return False


def record_in(message: BaseMessage) -> Mapping[str, Any] | None:
    """Return the record in an answer's metadata; None if there is none of this format."""
    record = message.response_metadata.get(RECORD) if isinstance(message, AIMessage) else None
    if not isinstance(record, Mapping) or record.get("version") != VERSION:
        return None
    return record


def panel_in(record: Mapping[str, Any], keys: Sequence[str]) -> Panel | None:
    """Return the panel in a message's record; None if it has none of this turn."""
    return as_panel({**record, "earlier": []}) if record.get("turn") in keys else None


def as_panel(given: Any) -> Panel | None:
    """Return stored data as a panel; None if it is not a panel of this format."""
    if not isinstance(given, Mapping) or given.get("version") != VERSION:
        return None
    proposals, decisions = given.get("proposals"), given.get("decisions") or []
    if not isinstance(proposals, list) or not proposals or not isinstance(decisions, list):
        return None
    if not all(isinstance(p, Mapping) and p.keys() >= _FIELDS for p in proposals):
        return None
    panel = Panel(
        version=VERSION,
        turn=str(given.get("turn")),
        asked_at=str(given.get("asked_at")),
        earlier=[str(e) for e in given.get("earlier") or []],
        proposals=proposals,
        decisions=decisions,
    )
    if "draft" in given:
        panel["draft"] = str(given["draft"])
    return panel


def last_layer_of(panel: Panel) -> int:
    """Return the layer whose proposals the agent's model is shown."""
    return max((p["layer"] for p in panel["proposals"]), default=1)


def references_of(panel: Panel) -> list[Proposal]:
    """Return the proposals that the agent's model is shown, after selections."""
    return selected(panel["proposals"], panel.get("decisions", []), last_layer_of(panel))


def _identities(messages: Sequence[BaseMessage], place: int, *, by_id: bool) -> list[list[Any]]:
    """Return what identifies a question: its id and text, and the conversation up to it.

    A message can get its id after the first call of its turn. A question with an id is therefore
    stored under its id, and looked for under the conversation, too.
    """
    question = messages[place]
    said = [_said(m) for m in messages[: place + 1] if not isinstance(m, SystemMessage)]
    return [[question.id, _said(question)], said] if by_id and question.id else [said]


def _said(message: BaseMessage) -> list[Any]:
    """Return what a message says, without what providers and clients add to it."""
    parts: list[Any] = [message.type, message.content]
    if isinstance(message, AIMessage):
        parts[1] = str(message.text)
        parts += [[call["name"], call["args"], call["id"]] for call in message.tool_calls]
    if isinstance(message, ToolMessage):
        parts.append(message.tool_call_id)
    if isinstance(message, HumanMessage) and message.name:
        parts.append(message.name)
    return parts


def digest(parts: Any) -> str:
    """Return a digest of plain data."""
    data = json.dumps(parts, sort_keys=True, default=str).encode(errors="replace")
    return hashlib.sha256(data).hexdigest()[:32]
