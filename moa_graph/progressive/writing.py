"""Write a text piece by piece, from growing references and the text so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.runnables import Runnable, RunnableConfig

from moa_graph.calling.answer import Answer, NoAnswer, was_cut
from moa_graph.calling.call import Call, CallTerms
from moa_graph.calling.reasoning import ReasoningSplitter
from moa_graph.calling.retries import can_pass
from moa_graph.calling.waiting import LayerWait
from moa_graph.models import Settings, max_tokens_of
from moa_graph.models.text import utf8
from moa_graph.nodes.step import Step
from moa_graph.progressive.continuation import (
    Ending,
    TextJoiner,
    as_text,
    continuation_of,
)
from moa_graph.progressive.piece_question import PieceQuestion, View
from moa_graph.prompts import fence_of
from moa_graph.state import Draft, total_usage

IN_PARTS = (
    "The responses stand below the query, in parts, as far as they are written: what has the same "
    "number belongs together. Answer the query from the beginning, without waiting for the rest "
    "and without mentioning the responses or their parts. Where you are cut off, more of the "
    "responses follows: go on from exactly where your text stops."
)
"""Instruction for references that are still being written."""

IN_CHUNKS = (
    "The responses stand below the query. Each is a proposal for how the answer goes on from its "
    "text so far, which is yours; none at all means that the answer has only begun. Go on with the "
    "answer from where its text stops, without mentioning the responses. End it when it is "
    "complete."
)
"""Instruction for references that continue the aggregated text."""

_LONGEST = 32_768  # tokens of a text without another limit, so that it always ends
_CHARACTERS = 16  # a chunk of a stream with at most this many characters counts as one token
_CHARACTERS_OF_A_TOKEN = 4


def tokens_in(text: str) -> int:
    """Return the estimated tokens of a streamed chunk: 1, or more if the chunk is long."""
    if len(text) <= _CHARACTERS:
        return 1 if text else 0
    return -(-len(text) // _CHARACTERS_OF_A_TOKEN)


@dataclass(frozen=True)
class PieceSetup:
    """Model, settings and limits for writing a piece.

    Args:
        step: The node's view of the run.
        model: The model.
        settings: The run's settings for the model.
        terms: Terms of its calls.
        config: Configuration of its calls.
        wait: The layer's `LayerWait`, which limits the time.
        timeout: Another limit in seconds; None for no limit.
        hold: Whether the model begins its reasoning without an opening tag.
        show: Function that receives accepted text as it arrives.
    """

    step: Step
    model: Runnable[Any, Any]
    settings: Settings
    terms: CallTerms
    config: RunnableConfig
    wait: LayerWait
    timeout: float | None = None
    hold: bool = False
    show: Callable[[str], None] = lambda _: None


class Piece:
    """One piece of a text, during and after writing.

    Args:
        setup: Model, settings and limits.
        draft: The text so far.
        view: The visible references.
        size: Maximum tokens, if it is not the last piece.
        note: Explanation of the references, such as `IN_PARTS`.
        messages: The conversation, including the role.
        last: Whether to write the text to its end.
        fresh: Whether to ignore the views of earlier pieces.
    """

    def __init__(
        self,
        setup: PieceSetup,
        draft: Draft,
        view: View,
        *,
        size: int,
        note: str,
        messages: Sequence[AnyMessage],
        last: bool,
        fresh: bool = False,
    ) -> None:
        step = setup.step
        self._setup = setup
        self._draft = draft
        self._view = view
        own = "".join(draft["pieces"])
        model = setup.settings.applied(setup.model)
        how = continuation_of(model)
        longest = max_tokens_of(model)
        self._left = (longest or _LONGEST) - draft["tokens"]
        self._limit: int | None = None if last else min(size, self._left)
        if last and longest is not None and draft["tokens"]:
            self._limit = self._left
        if fresh:
            turns = [replace(turn, written=own) for turn in view.turns([], [])]
        else:
            turns = view.turns(draft["views"], draft["pieces"])
        fence = fence_of(draft["message_id"], str(len(draft["views"])) if fresh else "")
        self.question = PieceQuestion(
            messages,
            view.references(),
            turns,
            step.reading.aggregation_prompt,
            note=note,
            how=how,
            complete=view.complete,
            labels=[view.labels[node] for node, text in view.texts.items() if text],
            count=len(view.labels),
            fence=fence if step.reading.shown.fenced else None,
            limit=self._limit,
            place=step.reading.place_for(model),
            window=step.reading.window_of(model),
            answer=longest,
        )
        self._joiner = TextJoiner(own, how, closed=draft["closed"])
        self._splitter = self._new_splitter()
        self._calls: list[Call] = []
        self._tokens = 0
        self._started = time.perf_counter()
        self.call: Call | None = None
        self.answer = Answer(AIMessage(""))

    @property
    def exhausted(self) -> bool:
        """Whether the text has reached its maximum length."""
        return bool(self._draft["tokens"]) and self._left <= 0

    async def write(self) -> Draft:
        """Write the piece, and return the draft with it.

        Raises:
            Exception: The exception of the call, `WaitEnded`, `OverBudget` or `NoAnswer`.
        """
        setup = self._setup
        if self.exhausted:
            return self._updated(closed=True)
        terms = replace(setup.terms, once_shown=True)  # received text is not requested again
        while True:
            self.call = call = setup.step.spending.call(
                setup.model, self.question, setup.config, terms, settings=setup.settings
            )
            self._calls.append(call)
            try:
                self.answer = await setup.wait.first_answer(
                    partial(call.ask, sink=self._take),
                    timeout=setup.timeout,
                )
            except Exception as error:
                if not (self._joiner.taken and can_pass(error)):
                    raise
                # The text before the error is kept as a short piece.
                setup.show(self._joiner.end("cut"))
                return self._updated(closed=False)
            if self.answer.filtered or self.answer.broken_off:
                raise NoAnswer(self.answer.why_unusable)
            cut = self._was_cut()
            thinking = self._splitter.in_reasoning
            if cut and (self._joiner.only_spaces or thinking) and self.question.lengthen():
                # Chat templates trim trailing whitespace, so it must come with more text.
                # Reasoning is not part of the text, so the piece must reach past its end.
                self._joiner = self._joiner.again()
                self._splitter = self._new_splitter()
                continue
            setup.show(self._joiner.add(self._splitter.end(cut=cut)))
            ending: Ending = "cut" if cut else "end" if self._view.complete else "pause"
            setup.show(self._joiner.end(ending))
            return self._updated(closed=not cut)

    def _new_splitter(self) -> ReasoningSplitter:
        return ReasoningSplitter(hold=self._setup.hold)

    def _was_cut(self) -> bool:
        """Return whether the piece ended at its own limit, not at the limit of the whole text."""
        limit = self.question.limit
        if limit is None or limit >= self._left:
            return False
        cut = was_cut(self.answer.message.response_metadata)
        return bool(self.answer.text) if cut is None else cut

    def _take(self, chunk: Any) -> None:
        text = self._splitter.add(utf8(as_text(chunk)))
        self._tokens += tokens_in(text)
        self._setup.show(self._joiner.add(text))

    def _updated(self, *, closed: bool) -> Draft:
        draft = self.with_spent(self._draft)
        pieces = [*draft["pieces"], self._joiner.taken]
        if self._splitter.retracted:
            # All the text before the closing tag was reasoning, including earlier pieces.
            pieces = [*[""] * len(draft["pieces"]), self._splitter.answer]
        return {
            **draft,
            "pieces": pieces,
            "tokens": draft["tokens"] + self._joiner.share(self._tokens),
            "tail": self._joiner.tail,
            "closed": closed,
            "views": [*draft["views"], self._view.lengths],
        }

    def with_spent(self, draft: Draft) -> Draft:
        """Return the draft with this piece's usage, attempts and latency, even if unfinished."""
        usages = [call.tokens(self.answer.message) for call in self._calls]
        reasoning = "\n\n".join(filter(None, (draft.get("reasoning"), self.answer.reasoning)))
        if reasoning:
            draft = {**draft, "reasoning": reasoning}
        return {
            **draft,
            "usage": total_usage([draft["usage"], *usages]),
            "attempts": draft["attempts"] + sum(call.attempts for call in self._calls),
            "latency": draft["latency"] + time.perf_counter() - self._started,
        }
