"""What a model is asked for the next piece of its text, and what it sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import Runnable

from moa_graph.calling.references import Question
from moa_graph.models import with_settings
from moa_graph.progressive.continuation import (
    Continuation,
    going_on,
    with_own_text,
)
from moa_graph.prompts import Place, fence_notice, fenced, instructed
from moa_graph.state import Proposal

_HEADING = "Responses from models:"  # ends the paper's prompt; here it stands before each part

_COMPLETE = "The responses are complete now."

_LONGEST_PIECE = 4096  # tokens; a piece of pure whitespace is extended up to this

Part = Sequence[tuple[str, str]]
"""Of each reference, its label and what came of it."""


class PieceQuestion(Question):
    """What a model is asked for its next piece.

    From piece to piece the prompt grows at its end only: references are appended part by part
    behind the query, and the model's own text comes last, so that a provider's cache of prompts
    serves what was there before.

    Args:
        messages: The conversation, the role included.
        references: What is in view of each reference, in their order.
        parts: The same, in the parts in which it came.
        prompt: What to do with them.
        note: How they are given, such as `IN_PARTS`.
        own: The text so far.
        how: How the model goes on from it.
        complete: Whether nothing is to come any more.
        labels: What each reference is called.
        fence: Fences the references as untrusted; None for the plain form.
        limit: Tokens of the piece; None for as many as the model likes.
        place: Where what to do with the references stands.
        window: Tokens that the model takes; None if unknown.
        answer: Tokens of the whole text; None if nothing limits it.
    """

    def __init__(
        self,
        messages: Sequence[AnyMessage],
        references: Sequence[Proposal],
        parts: Sequence[Part],
        prompt: str,
        *,
        note: str,
        own: str,
        how: Continuation,
        complete: bool,
        labels: Sequence[str],
        fence: str | None,
        limit: int | None,
        place: Place,
        window: int | None,
        answer: int | None,
    ) -> None:
        self._parts = parts
        self._note = note
        self._own = own
        self._how = how
        self._complete = complete
        self._fence = fence
        self.limit = limit
        """Tokens of the piece; None for as many as the model likes."""
        super().__init__(
            messages, references, prompt, labels=labels, place=place, window=window, answer=answer
        )

    @property
    def is_part(self) -> bool:
        """As `Question`."""
        return self.limit is not None

    def lengthen(self) -> bool:
        """Allow a piece twice as long; False where it is long enough already."""
        if self.limit is None or self.limit >= _LONGEST_PIECE:
            return False
        self.limit *= 2
        return True

    def prepare(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """As `Question`: with the piece's limit, and told to go on."""
        if self.limit is not None:
            model = with_settings(model, {"max_tokens": self.limit})
        return going_on(model, self._how) if self._own else model

    def _with(self, texts: Sequence[str]) -> list[AnyMessage]:
        if not self._parts:
            return with_own_text(self._conversation, self._own, self._how)
        whole = [p["content"] for p in self._references]
        parts = self._parts
        if list(texts) != whole:  # shortened: the parts no longer matter
            parts = [list(zip(self._labels or (), texts, strict=True))]
        lines = []
        for number, part in enumerate(parts, 1):
            lines.append(_HEADING if number == 1 else f"Part {number}:")
            for label, text in part:
                lines.append(
                    f"{label}. {text}" if self._fence is None else fenced(text, label, self._fence)
                )
        if self._complete:
            lines.append(_COMPLETE)
        prompt = self._prompt.removesuffix(_HEADING).rstrip()
        system = f"{prompt}\n\n{self._note}"
        if self._fence:
            system += f"\n\n{fence_notice(self._fence, len(texts))}"
        messages = instructed(self._conversation, system, self._place)
        return with_own_text(_appended(messages, "\n".join(lines)), self._own, self._how)


def _appended(messages: Sequence[AnyMessage], text: str) -> list[AnyMessage]:
    """Return the conversation with a text behind its last question."""
    last = messages[-1]
    if not isinstance(last, HumanMessage):
        return [*messages, HumanMessage(text)]
    content: str | list[Any]
    if isinstance(last.content, str):
        content = f"{last.content}\n\n{text}"
    else:
        content = [*last.content, {"type": "text", "text": f"\n\n{text}"}]
    return [*messages[:-1], last.model_copy(update={"content": content})]


@dataclass(frozen=True)
class View:
    """What a node sees of the layer before.

    Args:
        texts: By node, what there is of each usable reference, in their order.
        labels: By node, what it is called.
        complete: Whether nothing more comes.
    """

    texts: Mapping[str, str]
    labels: Mapping[str, str]
    complete: bool

    @property
    def lengths(self) -> dict[str, int]:
        """Characters by node."""
        return {node: len(text) for node, text in self.texts.items()}

    def parts(self, views: Sequence[Mapping[str, int]]) -> list[Part]:
        """Return what is in view, in the parts in which it came.

        Args:
            views: What was in view for each piece so far.
        """
        parts: list[Part] = []
        shown = dict.fromkeys(self.texts, 0)
        for lengths in [*views, self.lengths]:
            part = []
            for node, text in self.texts.items():
                until = min(lengths.get(node, 0), len(text))
                if until > shown[node]:
                    part.append((self.labels[node], text[shown[node] : until]))
                    shown[node] = until
            if part:
                parts.append(part)
        return parts

    def references(self) -> list[Proposal]:
        """Return what is in view, as records of which only name and text count."""
        return [
            Proposal(
                layer=0, proposer=node, model="", content=text, status="ok", error=None,
                usage=None, latency=0.0, attempts=0,
            )
            for node, text in self.texts.items()
            if text
        ]  # fmt: skip
