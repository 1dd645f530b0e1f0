"""What a model is asked, and how much of each reference fits its context window."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AnyMessage, get_buffer_string
from langchain_core.runnables import Runnable

from moa_graph.models.text import utf8
from moa_graph.prompts import Place, fence_of, inject_references
from moa_graph.state import Proposal, TrimmedReference

BYTES_PER_TOKEN = 3  # fewer than tokenizers need for almost any text: it must never be too long
_PER_MESSAGE = 8  # tokens around the text of each message
_MARK = "\n[… trimmed …]\n"
_HEAD = 2 / 3  # of what is kept; the end often has the conclusion
_ANSWER = 1 / 4  # of the window is left for the answer, where nothing says how long it may be
_LEAST = 64  # tokens of each reference, even where the conversation leaves no room
_SHRINK = 4  # by this the references are divided when a provider says that they are too long
_MOST_SHRINKS = 10
_MOST_GUESSES = 4  # of these, where the provider does not clearly say that the prompt is too long


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text has, rather too many than too few.

    Tokenizers differ, and most are not at hand without a network. A third of the text's bytes in
    UTF-8 is above what they need for prose and code, and near it for other scripts.
    """
    return -(-len(text.encode(errors="replace")) // BYTES_PER_TOKEN)


def estimated_prompt(messages: Sequence[AnyMessage]) -> int:
    """Return about how many tokens a conversation has, of which only the text counts."""
    return estimated_tokens(get_buffer_string(messages)) + _PER_MESSAGE * len(messages)


def fair_shares(sizes: Sequence[int], room: int) -> list[int]:
    """Divide room among parts: what small ones leave over goes to the large ones.

    Args:
        sizes: What each part needs (at least 0).
        room: What there is for all; below 0 counts as 0.

    Returns:
        What each part gets: at most what it needs, in sum at most the room, and no part gets
        less than another that needs no more (but for one, which cannot be divided).
    """
    shares = [0] * len(sizes)
    left = max(0, room)
    by_size = sorted(range(len(sizes)), key=lambda i: sizes[i])
    for place, part in enumerate(by_size):
        shares[part] = min(sizes[part], left // (len(sizes) - place))
        left -= shares[part]
    return shares


def trimmed(text: str, tokens: int) -> str:
    """Return the beginning and the end of a text that is too long, with a mark between them.

    Args:
        text: The text.
        tokens: The estimated tokens that it may have. Where not even the mark fits, the result
            is as much of the beginning as does.
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
    """A conversation with references, which are shortened until the model takes it.

    Args:
        messages: The conversation, the role included.
        references: Usable proposals, in their order.
        prompt: What to do with them.
        labels: What they are called instead of `1`, `2`, …
        fenced: Whether they are fenced as untrusted, see `format_references`.
        place: Where they stand, see `inject_references`.
        reasoning: Whether the proposers' reasoning is shown before their answers.
        window: Tokens that the model takes, its answer included; None if unknown.
        answer: How long the answer may be, in tokens; None if nothing limits it.
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
        """Where the references stand; None without any."""
        return self._place if self._references else None

    @property
    def is_part(self) -> bool:
        """Whether the answer is a part of one, and more calls are made for the rest."""
        return False

    def prepare(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model as it is asked this question; here, as it is."""
        return model

    @property
    def messages(self) -> list[AnyMessage]:
        """What the model is given."""
        return self._with(self._texts)

    def _with(self, texts: Sequence[str]) -> list[AnyMessage]:
        # Another code for another purpose: who answers one prompt must not know the next one's.
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
        """Which references are not given in full."""
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
        """Make the references a good deal shorter; False where there is nothing to gain.

        Args:
            guess: Whether it is not certain that their length is what the provider refuses.
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
    """Return a proposal's text behind its model's reasoning."""
    thought = proposal.get("reasoning")
    if not thought:
        return proposal["content"]
    return f"Reasoning:\n{thought}\n\nAnswer:\n{proposal['content']}"
