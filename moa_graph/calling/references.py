"""Build the question for a model, and shorten references to fit its context window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AnyMessage, get_buffer_string
from langchain_core.runnables import Runnable

from moa_graph.models.text import utf8
from moa_graph.prompts import Place, fence_of, inject_references
from moa_graph.state import Proposal, TrimmedReference

BYTES_PER_TOKEN = 3  # below that of almost any text, so that estimates are not too low
_PER_MESSAGE = 8  # additional tokens for each message
_MARK = "\n[… trimmed …]\n"
_HEAD = 2 / 3  # share of the kept text; the rest is from the end, often a conclusion
_ANSWER = 1 / 4  # largest share of the context window reserved for the answer
_LEAST = 64  # minimum tokens of each reference, even if the conversation fills the window
_MOST_REASONING = 2048  # tokens of a proposal's reasoning; its answer is what counts
_SHRINK = 4  # divisor for the length of references when a provider rejects them as too long
_MOST_SHRINKS = 10
_MOST_GUESSES = 4  # limit of shrinks after errors that do not clearly say "too long"


def estimated_tokens(text: str) -> int:
    """Estimate the number of tokens in a text; the estimate is rather too high than too low.

    Tokenizers differ, and most must be downloaded. One token per three bytes of UTF-8 is above
    the real number for prose and code, and close to it for other scripts.
    """
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


def estimated_prompt(messages: Sequence[AnyMessage]) -> int:
    """Estimate the number of tokens in a conversation; only its text is counted."""
    return estimated_tokens(get_buffer_string(messages)) + _PER_MESSAGE * len(messages)


def fair_shares(sizes: Sequence[int], room: int) -> list[int]:
    """Divide a total fairly among parts: large parts get what small parts do not need.

    Args:
        sizes: Size that each part needs (at least 0).
        room: Total to divide; a negative number counts as 0.

    Returns:
        Share of each part, at most its size. The sum is at most `room`. A part never gets less
        than a part of equal or smaller size (except for a rounding difference of 1).
    """
    shares = [0] * len(sizes)
    left = max(0, room)
    by_size = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for place, part in enumerate(by_size):
        shares[part] = min(sizes[part], left // (len(sizes) - place))
        left -= shares[part]
    return shares


def trimmed(text: str, tokens: int) -> str:
    """Shorten a text to its beginning and end, with a mark between them, if it is too long.

    Args:
        text: The text.
        tokens: Maximum number of estimated tokens. If the mark does not fit, only the beginning
            is returned.
    """
    if estimated_tokens(text) <= tokens:
        return text
    data = text.encode(errors="replace")
    room = max(0, tokens) * BYTES_PER_TOKEN - len(_MARK.encode())
    if room <= 0:
        return data[: max(0, tokens) * BYTES_PER_TOKEN].decode(errors="ignore")
    head = int(room * _HEAD)
    end = data[len(data) - (room - head) :]
    return data[:head].decode(errors="ignore") + _MARK + end.decode(errors="ignore")


class Question:
    """A conversation with references, which are shortened to what the model accepts.

    Args:
        messages: The conversation, including the role.
        references: Usable proposals, in order.
        prompt: Instructions for the references.
        labels: Labels of the references; `1`, `2`, … by default.
        fenced: Whether the references are fenced as untrusted, see `format_references`.
        place: Position of the references, see `inject_references`.
        reasoning: Whether the proposers' reasoning is included before their answers.
        window: Size of the model's context window in tokens, including the answer; None if
            unknown.
        answer: Maximum length of the answer in tokens; None without a limit.
    """

    def __init__(
        self,
        messages: Sequence[AnyMessage],
        references: Sequence[Proposal] = (),
        prompt: str = "",
        *,
        labels: Sequence[str] | None = None,
        fenced: bool = False,
        place: Place = "system",
        reasoning: bool = False,
        window: int | None = None,
        answer: int | None = None,
    ) -> None:
        self._conversation = list(messages)
        self._prompt = prompt
        self._labels = labels
        self._fenced = fenced
        self._place = place
        self._shrinks = 0
        self._guesses = 0
        if reasoning:
            references = [{**p, "content": _with_reasoning(p)} for p in references]
        self._references = references
        self._texts = [utf8(p["content"]) for p in references]
        if references and window is not None:
            for_answer = min(answer or window, int(window * _ANSWER))
            around = estimated_prompt(self._with([""] * len(references)))
            self._fit(window - for_answer - around)

    @property
    def place(self) -> Place | None:
        """Position of the references; None without references."""
        return self._place if self._references else None

    @property
    def is_part(self) -> bool:
        """Whether this call returns only a part of the answer, and later calls the rest."""
        return False

    def prepare(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model to ask this question; here it is not changed."""
        return model

    @property
    def messages(self) -> list[AnyMessage]:
        """Messages for the model."""
        return self._with(self._texts)

    def _with(self, texts: Sequence[str]) -> list[AnyMessage]:
        # The fence code depends on the prompt: a model that answered one prompt must not know the
        # code of the next one.
        fence = fence_of(self._prompt, *texts) if self._fenced else None
        return inject_references(
            self._conversation,
            texts,
            self._prompt,
            labels=self._labels,
            fence=fence,
            place=self._place,
        )

    @property
    def trimmed(self) -> list[TrimmedReference]:
        """References that were shortened."""
        return [
            TrimmedReference(
                proposer=proposal["proposer"],
                tokens=estimated_tokens(proposal["content"]),
                kept=estimated_tokens(text),
            )
            for proposal, text in zip(self._references, self._texts, strict=True)
            if text != utf8(proposal["content"])
        ]

    def shorten(self, *, guess: bool = False) -> bool:
        """Shorten the references; return False if they cannot be shortened further.

        Args:
            guess: Whether it is uncertain that the provider rejected their length.
        """
        size = sum(map(estimated_tokens, self._texts))
        if self._shrinks >= _MOST_SHRINKS or size <= _LEAST * len(self._texts):
            return False
        if guess and self._guesses >= _MOST_GUESSES:
            return False
        self._guesses += guess
        self._shrinks += 1
        self._fit(size // _SHRINK)
        return True

    def _fit(self, room: int) -> None:
        sizes = [estimated_tokens(text) for text in self._texts]
        shares = fair_shares(sizes, max(room, _LEAST * len(sizes)))
        self._texts = [
            trimmed(utf8(p["content"]), share) if share < size else text
            for p, text, share, size in zip(
                self._references, self._texts, shares, sizes, strict=True
            )
        ]


def _with_reasoning(proposal: Proposal) -> str:
    """Return a proposal's reasoning, shortened in the middle, followed by its text."""
    thought = proposal.get("reasoning")
    if not thought:
        return proposal["content"]
    thought = trimmed(thought, _MOST_REASONING)
    return f"Reasoning:\n{thought}\n\nAnswer:\n{proposal['content']}"
