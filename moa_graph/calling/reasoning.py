"""Separate a model's reasoning from its answer if both are in one text.

Servers that do not parse reasoning return it inside the text, between tags that depend on the
model. A tag that is only mentioned, in code or in a sentence, stays part of the answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_XML = ("think", "thinking", "antthinking", "longcat_think")
_ALSO_ANSWERS = ("thought", "thoughts", "reason", "reasoning", "reflection", "scratchpad")
_PAIRS = {  # opening tag -> closing tag, in lower case
    **{f"<{name}>": f"</{name}>" for name in (*_XML, *_ALSO_ANSWERS)},
    "<seed:think>": "</seed:think>",  # Seed-OSS
    "<mm:think>": "</mm:think>",  # MiniMax
    "[think]": "[/think]",  # Magistral
    "◁think▷": "◁/think▷",  # Kimi
    "<|begin_of_thought|>": "<|end_of_thought|>",  # OpenThinker, Sky-T1
    "<|start_thinking|>": "<|end_thinking|>",  # Cohere's Command
    # gpt-oss, without its server's parser
    "<|channel|>analysis<|message|>": "<|end|><|start|>assistant<|channel|>final<|message|>",
    "<|start|>assistant<|channel|>analysis<|message|>": (
        "<|end|><|start|>assistant<|channel|>final<|message|>"
    ),
}
_ONLY_AT_START = frozenset(f"<{name}>" for name in _ALSO_ANSWERS)
"""Tags that a user may also have asked for: they mark reasoning only before an answer."""
_CLOSINGS = {closing: opening for opening, closing in reversed(_PAIRS.items())}
_TAGS = sorted([*_PAIRS, *_CLOSINGS], key=len, reverse=True)
_ANY = re.compile("|".join(map(re.escape, _TAGS)), re.IGNORECASE)
_STARTS = frozenset(tag[0] for tag in _TAGS)
_LONGEST = len(_TAGS[0])

_LOOKAHEAD = 16  # characters after a tag that decide whether it is only mentioned
_QUOTES = "`\"'“‘«„(*"  # a tag directly after one of these is quoted
_CLOSED_QUOTES = "`\"'”’»“)*"
_SENTENCE_END = ".!?…。！？*:\"'”’)]}"
_MENTIONED = re.compile(
    r"[ \t]+(?:is|are|was|were|and|or|tags?|tokens?|blocks?|elements?|markers?|sections?)\b"
    r"|[)\],;]|\.(?!\.)"
)
_GOES_ON = re.compile(r"[ \t]+[a-z]|[.,;)]")
_LIST_MARKS = " \t-*+>#_.)0123456789"  # characters that may stand before a line's text
_ANSWER_FOLLOWS = re.compile(r"[^\s.,;:)\]\"'”’`*<]|[ \t]+[A-Z0-9]")
_FENCE = re.compile(r"^[ \t]*(?:```|~~~)")


def split_reasoning(text: str, *, cut: bool = False) -> tuple[str, str]:
    """Split a model's text into answer and reasoning.

    The following tags are recognized: pairs of tags at the start of the text, of a line or of a
    sentence; a closing tag alone (its opening tag was part of the prompt); and an opening tag
    alone at the start. Text without reasoning is returned unchanged.

    Args:
        text: The whole text.
        cut: Whether a token limit cut the text, so that the closing tag may be missing.

    Returns:
        The answer, and the reasoning ("" if there is none).
    """
    split = ReasoningSplitter.of(text, cut=cut)
    return split.answer, split.reasoning


@dataclass(frozen=True)
class _Tag:
    """One occurrence of a tag in the pending text."""

    start: int
    end: int
    text: str

    @property
    def opens(self) -> bool:
        return self.text in _PAIRS


class ReasoningSplitter:
    """Split a text while it is streamed; a tag may be divided between chunks.

    Text that `add` and `end` return is part of the answer, with one exception: a closing tag
    without an opening tag makes everything before it reasoning, and that text may have been
    returned already. In this case `answer` is corrected, and `retracted` is True. With `hold`,
    nothing is returned before the first closing tag or the end.

    Args:
        hold: Whether the model is known to begin its reasoning without an opening tag.
    """

    def __init__(self, *, hold: bool = False) -> None:
        self.answer = ""
        """The answer so far."""
        self.reasoning = ""
        """The reasoning so far."""
        self.retracted = False
        """Whether text that was already returned turned out to be reasoning."""
        self.unopened = False
        """Whether reasoning without an opening tag was found."""
        self._hold = hold
        self._pending = ""
        self._line = ""
        self._in_fence = False
        self._opening = ""
        self._depth = 0  # nesting depth inside reasoning
        self._thought: list[str] = []
        self._skipped_close: int | None = None
        self._mentioned = dict.fromkeys(_PAIRS, 0)
        self._orphan: int | None = None
        self._swallow = False
        self._tentative = False  # whether the tag is in mid-sentence and may not open reasoning
        self._before = ("", False)  # current line and code block when the reasoning began
        self._taken_out = ""  # removed text that is the answer if no other text follows

    @classmethod
    def of(cls, text: str, *, cut: bool = False) -> ReasoningSplitter:
        """Split a whole text; the arguments are those of `split_reasoning`."""
        splitter = cls()
        if _ANY.search(text):
            splitter.add(text)
            splitter.end(cut=cut)
        else:
            splitter.answer = text
        return splitter

    @property
    def in_reasoning(self) -> bool:
        """Whether the text so far ends inside reasoning."""
        return bool(self._opening)

    def add(self, text: str) -> str:
        """Add the next part of the text; return the text that is certainly part of the answer."""
        if not text:
            return ""
        if (
            not (self._pending or self._opening or self._hold or self._swallow)
            and self._orphan is None
            and _STARTS.isdisjoint(text)
        ):
            return self._accept(text)
        self._pending += text
        held = self._hold
        return self._release(self._read(final=False), held=held)

    def end(self, *, cut: bool = False) -> str:
        """Return the rest of the answer.

        Args:
            cut: Whether a token limit cut the text.
        """
        held = self._hold
        shown = self._read(final=True)
        if self._opening:
            shown += self._end_open(cut=cut)
        if self._orphan is not None:
            position, self._orphan = self._orphan, None
            if self.reasoning.strip():  # an extra closing tag after the answer
                self.answer = self.answer[:position].rstrip()
            else:
                self._retract(position)
        if self._taken_out and not self.answer.strip() and not cut:
            # There is no other text, so the removed text is the answer.
            self.answer, self.reasoning = self._taken_out, ""
            shown += self._taken_out
        self._hold = False
        return self._release(shown, held=held)

    # --- reading ------------------------------------------------------------------------

    def _read(self, *, final: bool) -> str:
        shown = ""
        while self._pending:
            tag = self._next_tag()
            if tag is None:
                keep = 0 if final else _partial(self._pending)
                taken = self._pending[: len(self._pending) - keep]
                self._pending = self._pending[len(taken) :]
                return shown + self._take(taken)
            if not final and len(self._pending) - tag.end < _LOOKAHEAD:
                # Only the text before the tag is certain until more text arrives.
                before = self._pending[: tag.start]
                self._pending = self._pending[tag.start :]
                return shown + self._take(before)
            shown += self._take(self._pending[: tag.start])
            after = self._pending[tag.end :]
            written = self._pending[tag.start : tag.end]
            self._pending = after
            shown += self._decide(tag, written, after)
        return shown

    def _next_tag(self) -> _Tag | None:
        for match in _ANY.finditer(self._pending):
            text = match[0].lower()
            if not self._opening or text in (self._opening, _PAIRS[self._opening]):
                return _Tag(match.start(), match.end(), text)
        return None

    def _take(self, text: str) -> str:
        if not text:
            return ""
        if self._opening:
            self._thought.append(text)
            self._follow(text)
            return ""
        return self._accept(text)

    def _accept(self, text: str) -> str:
        if self._swallow:
            text = text.lstrip()
            if not text:
                return ""
            self._swallow = False
        if self._orphan is not None and text.strip():
            position, self._orphan = self._orphan, None
            text = self.answer[position:].lstrip() + text.lstrip()
            self.answer = self.answer[:position]
            self._retract(position)
        self.answer += text
        self._follow(text)
        return text

    def _follow(self, text: str) -> None:
        """Update the current line, and whether it is in a code block."""
        *ended, last = (self._line + text).split("\n")
        for line in ended:
            if _FENCE.match(line):
                self._in_fence = not self._in_fence
        self._line = last

    # --- deciding -----------------------------------------------------------------------

    def _decide(self, tag: _Tag, written: str, after: str) -> str:
        mentioned = self._is_quoted(after) or (
            _MENTIONED.match(after) is not None if tag.opens else self._is_mentioned_close(after)
        )
        if self._opening and tag.opens:
            self._depth += not mentioned and self._begins
            return self._take(written)
        if self._opening:
            if not mentioned and not self._depth:
                return self._close(written, after)
            self._depth -= not mentioned
            self._skipped_close = len("".join(self._thought))
            return self._take(written)
        if tag.opens and not mentioned and self._may_open(tag.text):
            self._opening, self._depth = tag.text, 0
            self._tentative = not self._begins
            self._before = (self._line, self._in_fence)
            self._line, self._in_fence = "", False
            return ""
        opening = tag.text if tag.opens else _CLOSINGS[tag.text]
        if tag.opens:
            self._mentioned[opening] += 1
        elif self._mentioned[opening]:
            self._mentioned[opening] -= 1
        elif not mentioned:
            self._orphan = len(self.answer)
            return ""
        return self._take(written)

    def _is_quoted(self, after: str) -> bool:
        """Return whether a tag at this position is in code or between quotation marks."""
        if self._in_fence or _FENCE.match(self._line) or self._line.count("`") % 2:
            return True
        return self._line[-1:] in tuple(_QUOTES) and after[:1] in tuple(_CLOSED_QUOTES)

    @property
    def _begins(self) -> bool:
        """Whether the text, a line or a sentence begins at this position."""
        before = self._line.strip(_LIST_MARKS)
        return not before or self._line.rstrip()[-1] in ".!?…。！？>"

    def _may_open(self, tag: str) -> bool:
        """Return whether a tag may open reasoning here; in mid-sentence, `_close` decides."""
        return tag not in _ONLY_AT_START or not self.answer.strip()

    def _is_mentioned_close(self, after: str) -> bool:
        """Return whether a closing tag is only mentioned in a sentence."""
        before = self._line
        if not before.strip() or not before[-1].isspace():
            return bool(before.strip()) and before[-1] in tuple("`\"'“‘«(")
        if before.rstrip()[-1] in _SENTENCE_END:
            return False
        return bool(_GOES_ON.match(after)) or not after

    def _close(self, closing: str, after: str) -> str:
        opening, thought = self._opening, "".join(self._thought)
        self._opening, self._thought, self._skipped_close = "", [], None
        self._line, self._in_fence = self._before
        if self._tentative and not _ANSWER_FOLLOWS.match(after):
            return self._accept(opening + thought + closing)  # part of the sentence
        if opening in _ONLY_AT_START:
            self._taken_out += opening + thought + closing
        self.reasoning = _joined(self.reasoning, thought)
        self._hold = False
        self._swallow = not self.answer.strip()
        return ""

    def _end_open(self, *, cut: bool) -> str:
        """Handle an opening tag without a closing tag; return text that belongs to the answer."""
        thought = "".join(self._thought)
        opening, self._opening, self._thought = self._opening, "", []
        self._line, self._in_fence = self._before
        if self._skipped_close is not None and not self._tentative:
            head = thought[: self._skipped_close]
            rest = thought[self._skipped_close + len(_PAIRS[opening]) :]
            self.reasoning = _joined(self.reasoning, head)
            self._swallow = not self.answer.strip()
            return self._accept(rest)
        if (self.answer.strip() or self._tentative or opening in _ONLY_AT_START) and not cut:
            return self._accept(opening + thought)  # the tag is part of the answer
        self.reasoning = _joined(self.reasoning, thought)
        return ""

    def _retract(self, position: int) -> None:
        self.reasoning = _joined(self.reasoning, self.answer[:position])
        self.unopened = True
        self.retracted = self.retracted or not self._hold
        self.answer = self.answer[position:].lstrip()
        self._line, self._in_fence = "", False
        self._hold = False

    def _release(self, shown: str, *, held: bool) -> str:
        """Return the text to release.

        Args:
            shown: Text that was newly recognized as part of the answer.
            held: Whether all earlier text was held back.
        """
        if self._hold:
            return ""
        return self.answer if held else shown


def _joined(first: str, second: str) -> str:
    return "\n\n".join(part for part in (first.strip(), second.strip()) if part)


def _partial(text: str) -> int:
    """Return the number of characters at the end of a text that may begin a tag."""
    for length in range(min(len(text), _LONGEST - 1), 0, -1):
        if text[-length] in _STARTS:
            end = text[-length:].lower()
            if any(tag.startswith(end) for tag in _TAGS):
                return length
    return 0
