"""How a model continues its own text, and how the parts are joined."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable

from moa_graph.models import chat_models_in, host_of, map_chat_models, provider_of
from moa_graph.models.text import is_thought
from moa_graph.strategies.similarity import WITHOUT_SPACES

Ending: TypeAlias = Literal["end", "pause", "cut"]
"""End of a piece: the text is complete, it is complete for now, or it was cut off."""

Continuation: TypeAlias = Literal["prefix", "instruction"]
"""How a model continues: with the provider's prefix feature (exact), or by an instruction."""

CONTINUE = (
    "Your answer so far stands above, cut off. Go on with it from exactly where it stops: reply "
    "with nothing but the text that comes next. Do not repeat, correct or comment on what is "
    "there. If it is complete, reply with nothing."
)
"""Instruction for models without a prefix feature."""

_INSTRUCTED_HOSTS = (  # these treat a trailing assistant message as a finished turn
    "api.openai.com",
    "azure.com",
    "together.xyz",
    "together.ai",
)
_LONGEST_WORD = 40  # characters; longer strings are not words, as in scripts without spaces
_ENDS = (".", "!", "?", "…", "。", "！", "？", ":", "|", "\n", "`", "-")  # end sentences or lines
_SHORTEST_OVERLAP = 16  # characters; a shorter overlap may be chance


def continuation_of(model: Runnable[Any, Any]) -> Continuation:
    """Return how a model continues its own text.

    Mistral, Ollama and OpenAI-compatible servers (vLLM, SGLang, llama.cpp …), except OpenAI
    itself, have a prefix feature. Other models get an instruction.
    """
    first = next(chat_models_in(model), None)
    if first is None:
        return "instruction"
    provider = provider_of(first)
    if provider in ("mistralai", "mistral", "ollama"):
        return "prefix"
    host = host_of(first)
    if host is None or host.endswith(_INSTRUCTED_HOSTS):
        return "instruction"
    return "prefix"


def with_own_text(messages: Sequence[AnyMessage], text: str, how: Continuation) -> list[AnyMessage]:
    """Return the conversation, followed by the model's own text so far."""
    if not text:
        return list(messages)
    # Mistral needs this flag in the message; others ignore it.
    said = {"prefix": True} if how == "prefix" else {}
    own: list[AnyMessage] = [*messages, AIMessage(text, additional_kwargs=said)]
    return own if how == "prefix" else [*own, HumanMessage(CONTINUE)]


def going_on(model: Runnable[Any, Any], how: Continuation) -> Runnable[Any, Any]:
    """Return the model, with options that make the server continue the last message."""
    if how == "instruction":
        return model

    def change(chat_model: BaseChatModel) -> Runnable[Any, Any]:
        if not hasattr(chat_model, "extra_body"):
            return chat_model
        flags = {"continue_final_message": True, "add_generation_prompt": False}
        return chat_model.bind(extra_body={**(chat_model.extra_body or {}), **flags})

    return map_chat_models(model, change)


class TextJoiner:
    """Join a model's next piece to its text, without lost or repeated characters.

    The uncertain end of a cut piece is dropped: trailing whitespace, which chat templates trim,
    and without a prefix feature the last word, which may be incomplete. The model writes it again.

    If a model had ended its text and repeats all of it when asked to continue, nothing is added:
    the server does not support continuing a message.

    Args:
        before: The text so far.
        how: How the model continues it.
        closed: Whether the model had ended that text itself.
    """

    def __init__(self, before: str, how: Continuation, *, closed: bool = False) -> None:
        self.taken = ""
        """The accepted continuation of the text."""
        self.tail = ""
        """Trailing whitespace of a pausing text, which is added if the text does not continue."""
        self._before = before
        self._how = how
        self._held = ""
        self._closed = closed and bool(before)
        asked = how == "instruction" and len(before) >= _SHORTEST_OVERLAP
        self._at_start = asked or self._closed

    def add(self, text: str) -> str:
        """Add received text, and return the part that is now accepted."""
        self._held += text
        if self._at_start:
            if self._before.startswith(self._held) or (
                self._how == "instruction" and self._held in self._before
            ):
                return ""  # it may be repeating itself
            self._held = self._held[self._overlap() :]
            self._at_start = False
        return self._take(self._certain())

    def end(self, how: Ending) -> str:
        """End the piece, and return the rest of the accepted text.

        Args:
            how: Whether the text is complete, pauses (the model ended it, but may continue it),
                or was cut off.
        """
        if self._at_start:
            self._held = self._held[self._overlap() :]
            self._at_start = False
        if how == "end":
            return self._take(len(self._held))
        shown = self._take(self._certain() if how == "cut" else len(self._held.rstrip()))
        if how == "cut" and not self.taken:
            # Accept at least one character, or the loop would not advance.
            shown = self._take(len(self._held) if self._how == "instruction" else 0)
        if how == "pause":
            self.tail = self._held
        return shown

    @property
    def only_spaces(self) -> bool:
        """Whether only whitespace was received, which a prefix feature may not continue."""
        return self._how == "prefix" and not self.taken and self._held.isspace()

    def again(self) -> TextJoiner:
        """Return a new joiner for the same position, without accepted text."""
        return TextJoiner(self._before, self._how, closed=self._closed)

    def share(self, tokens: int) -> int:
        """Return the number of accepted tokens out of `tokens`; the rest is written again."""
        total = len(self.taken) + len(self._held)
        return tokens if not self._held or not total else round(tokens * len(self.taken) / total)

    def _take(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        self.taken += text
        return text

    def _certain(self) -> int:
        """Return the number of held characters that are certain."""
        if self._how == "prefix":
            return len(self._held.rstrip())
        ends = (i + 1 for i, c in enumerate(self._held) if c.isspace() or WITHOUT_SPACES.match(c))
        return max(max(ends, default=0), len(self._held) - _LONGEST_WORD)

    def _overlap(self) -> int:
        """Return the number of characters that the model repeated before it continued."""
        if self._closed and self._held.startswith(self._before):
            return len(self._before)
        if self._how == "prefix":
            return 0
        longest = min(len(self._held), len(self._before))
        for length in range(longest, _SHORTEST_OVERLAP - 1, -1):
            part = self._held[:length]
            if self._before.endswith(part) and not self._is_ambiguous(part):
                return length
        return 0

    def _is_ambiguous(self, part: str) -> bool:
        """Return whether the text itself is repetitive here, so the repetition may be correct."""
        half = len(part) // 2
        circles = any(part[shift:] == part[:-shift] for shift in range(1, half + 1))
        # A refrain or a table row repeats whole lines or sentences. A cut text does not.
        start = self._before[: len(self._before) - len(part)].rstrip(" ")
        whole = not start or start.endswith(_ENDS)
        return circles or self._before.count(part) > 1 or (whole and part.rstrip().endswith(_ENDS))


def as_text(chunk: Any) -> str:
    """Return the text of a streamed chunk, without reasoning blocks."""
    if not isinstance(chunk, BaseMessage):
        return str(chunk)
    if isinstance(chunk.content, str):
        return chunk.content
    said = [block for block in chunk.content if not is_thought(block)]
    return str(chunk.model_copy(update={"content": said}).text)
