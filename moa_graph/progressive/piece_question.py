"""The question for the next piece of a text, and the references that the model sees."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable

from moa_graph.calling.references import Question
from moa_graph.models import with_settings
from moa_graph.progressive.continuation import (
    Continuation,
    going_on,
    with_own_text,
)
from moa_graph.progressive.turns import Turn, laid_out
from moa_graph.prompts import Place, fence_notice, fenced, instructed
from moa_graph.state import Proposal

_HEADING = "Responses from models:"  # ends the paper's prompt; here it precedes the first part

_COMPLETE = "The responses are complete now."

_LONGEST_PIECE = 4096  # tokens; a piece of pure whitespace is extended up to this


class PieceQuestion(Question):
    """Question for the next piece of a model's text.

    The prompt only grows at its end from piece to piece, see `laid_out`. A provider's prompt cache
    can therefore reuse the previous prompt.

    Args:
        messages: The conversation, including the role.
        references: The visible text of each reference, in order.
        turns: The same text, split into the parts in which it arrived, each with the piece of the
            model's text that followed it.
        prompt: Instruction for the references.
        note: Explanation of the parts, such as `IN_PARTS`.
        how: How the model continues its text.
        complete: Whether the references are complete.
        labels: Labels of the references.
        count: Number of references, including those without text so far.
        fence: Code that marks the references as untrusted; None for the plain form.
        limit: Maximum tokens of the piece; None for no limit.
        place: The message for the instruction.
        window: The model's context window in tokens; None if unknown.
        answer: Maximum tokens of the whole text; None for no limit.
    """

    def __init__(
        self,
        messages: Sequence[AnyMessage],
        references: Sequence[Proposal],
        turns: Sequence[Turn],
        prompt: str,
        *,
        note: str,
        how: Continuation,
        complete: bool,
        labels: Sequence[str],
        count: int,
        fence: str | None,
        limit: int | None,
        place: Place,
        window: int | None,
        answer: int | None,
    ) -> None:
        self._turns = turns
        self._note = note
        self._own = "".join(turn.written for turn in turns)
        self._how = how
        self._complete = complete
        self._count = count
        self._fence = fence
        self.limit = limit
        """Maximum tokens of the piece; None for no limit."""
        super().__init__(
            messages, references, prompt, labels=labels, place=place, window=window, answer=answer
        )

    @property
    def is_part(self) -> bool:
        """Whether the piece has a limit, so that it may be only a part of the text."""
        return self.limit is not None

    def lengthen(self) -> bool:
        """Double the limit and return True; return False if that is not possible."""
        if self.limit is None or self.limit >= _LONGEST_PIECE:
            return False
        self.limit *= 2
        return True

    def prepare(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model with the piece's limit, set up to continue its own text."""
        if self.limit is not None:
            model = with_settings(model, {"max_tokens": self.limit})
        return going_on(model, self._how) if self._own else model

    def _with(self, texts: Sequence[str]) -> list[AnyMessage]:
        turns = self._turns
        if not any(turn.part for turn in turns):
            return with_own_text(self._conversation, self._own, self._how)
        if list(texts) != [p["content"] for p in self._references]:
            # The references were shortened, so the parts no longer match.
            turns = [Turn(list(zip(self._labels or (), texts, strict=True)), self._own)]
        prompt = self._prompt.removesuffix(_HEADING).rstrip()
        system = f"{prompt}\n\n{self._note}"
        if self._fence:
            system += f"\n\n{fence_notice(self._fence, self._count)}"
        messages = instructed(self._conversation, system, self._place)
        return laid_out(messages, self._as_text(turns), self._how)

    def _as_text(self, turns: Sequence[Turn]) -> list[tuple[str, str]]:
        """Return each turn's part as text, with its heading, and the model's piece."""
        texts = []
        number = 0
        for turn in turns:
            lines = []
            if turn.part:
                number += 1
                lines.append(_HEADING if number == 1 else f"Part {number}:")
            for label, text in turn.part:
                lines.append(
                    f"{label}. {text}" if self._fence is None else fenced(text, label, self._fence)
                )
            if self._complete and turn is turns[-1]:
                lines.append(_COMPLETE)
            texts.append(("\n".join(lines), turn.written))
        return texts


@dataclass(frozen=True)
class View:
    """The part of the previous layer that a node sees.

    Args:
        texts: Current text of each usable reference, by node, in order.
        labels: Label of each reference, by node.
        complete: Whether the texts are complete.
    """

    texts: Mapping[str, str]
    labels: Mapping[str, str]
    complete: bool

    @property
    def lengths(self) -> dict[str, int]:
        """Number of characters of each text, by node."""
        return {node: len(text) for node, text in self.texts.items()}

    def turns(self, views: Sequence[Mapping[str, int]], pieces: Sequence[str]) -> list[Turn]:
        """Return the visible text, split into the parts in which it arrived, and the next turn.

        Args:
            views: Visible lengths for each earlier piece.
            pieces: The earlier pieces, one for each of `views`.
        """
        turns = []
        shown = dict.fromkeys(self.texts, 0)
        for lengths, piece in zip([*views, self.lengths], [*pieces, ""], strict=True):
            part = []
            for node, text in self.texts.items():
                until = min(lengths.get(node, 0), len(text))
                if until > shown[node]:
                    part.append((self.labels[node], text[shown[node] : until]))
                    shown[node] = until
            turns.append(Turn(part, piece))
        return turns

    def references(self) -> list[Proposal]:
        """Return the visible texts as proposals; only `proposer` and `content` are meaningful."""
        return [
            Proposal(
                layer=0, proposer=node, model="", content=text, status="ok", error=None,
                usage=None, latency=0.0, attempts=0,
            )
            for node, text in self.texts.items()
            if text
        ]  # fmt: skip
