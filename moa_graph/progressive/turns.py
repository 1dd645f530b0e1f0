"""Lay out growing references and the model's own text as the turns of a conversation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

from moa_graph.progressive.continuation import CONTINUE, Continuation, with_own_text
from moa_graph.prompts import with_text

Part = Sequence[tuple[str, str]]
"""The label of each reference, with its new text."""

_GO_ON = "Go on with your answer from exactly where it stops, up to its end."
_STOPS_AFTER = "Your answer so far stops after these words:"
_CARRIED = 200  # characters; a longer last sentence is divided between two words
_SENTENCE = re.compile(r"[.!?…][\"'”’)\]*]*\s+(?=\S)|\n\s*(?=\S)|[。！？](?=\S)")
_WORD = re.compile(r"\s+(?=\S)")


@dataclass(frozen=True)
class Turn:
    """One call: the new text of the references, and what the model wrote with it in view.

    Args:
        part: New text of the references; empty if there is none.
        written: The model's next piece; empty if it is yet to be written.
    """

    part: Part
    written: str = ""


def laid_out(
    messages: Sequence[AnyMessage], turns: Sequence[tuple[str, str]], how: Continuation
) -> list[AnyMessage]:
    """Return the conversation with the calls so far, and the next one, as alternating turns.

    Each new part of the references is a message of the user after the text that the model had
    written by then. What was sent before is therefore the beginning of what is sent next, and a
    provider's prompt cache can serve it. To continue its text exactly, a model with a prefix
    feature needs the end of the text in the last message. So the last sentence before a part is
    moved behind it, where the model's next piece continues it. Joined, the model's messages are
    its text, character by character.

    Args:
        messages: The conversation before the first part.
        turns: For each call, the new part as text, and the model's piece; the last piece is empty
            if it is yet to be written.
        how: How the model continues its text.
    """
    laid = list(messages)
    own, sent = "", 0  # the text since the last part, and the length of it that was sent before
    begun = False
    for part, written in turns:
        begun = begun or bool(own.strip())
        asked = _asked(part, own, how) if begun else part
        place = _place_of_part(own, sent) if how == "prefix" else len(own)
        if asked and own[:place].strip():
            laid += [AIMessage(own[:place]), HumanMessage(asked)]
            own = own[place:]
        elif asked and own and begun and how == "instruction":
            # A message must not be blank, so whitespace joins the text before it.
            laid[-2] = AIMessage(laid[-2].text + own)
            laid, own = _appended(laid, asked), ""
        elif asked:
            laid = _appended(laid, asked)
        sent = len(own)
        own += written
    return with_own_text(laid, own, how)


def _asked(part: str, own: str, how: Continuation) -> str:
    """Return a new part with the instruction to continue the text; empty if none is needed."""
    if how == "prefix":
        return f"{part}\n\n{_GO_ON}" if part else ""
    if not part:
        return CONTINUE
    last = own[start_of_last_sentence(own) :].strip()
    stops = f"\n\n{_STOPS_AFTER}\n{last}" if last else ""
    return f"{part}\n\n{CONTINUE}{stops}"


def _place_of_part(own: str, sent: int) -> int:
    """Return the place of a new part in the text: before its last sentence.

    Args:
        own: The text.
        sent: Number of its characters that the last prompt ended with. If more was written since,
            the place is behind them, so that the last prompt is the beginning of the next one.
    """
    place = start_of_last_sentence(own)
    if place >= sent or not own[sent:].strip():
        return place
    word = _WORD.search(own, sent)
    return word.end() if word else sent


def start_of_last_sentence(text: str) -> int:
    """Return the index at which the last sentence or line of a text begins.

    If it has more than 200 characters, a word within the last 200 is returned instead.
    """
    end = len(text.rstrip())
    begin = max(0, end - _CARRIED)
    starts = [match.end() for match in _SENTENCE.finditer(text, begin, end)]
    if starts or not begin:
        return starts[-1] if starts else 0
    word = _WORD.search(text, begin, end)
    return word.end() if word else begin


def _appended(messages: Sequence[AnyMessage], text: str) -> list[AnyMessage]:
    """Return the conversation with a text at its end, in the last message if that is a person's."""
    last = messages[-1]
    if not isinstance(last, HumanMessage):
        return [*messages, HumanMessage(text)]
    return [*messages[:-1], with_text(last, text)]
