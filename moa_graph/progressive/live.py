"""A proposal that later layers read while it is written."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from langchain_core.runnables import Runnable
from langgraph.cache.base import FullKey

from moa_graph.calling import sync
from moa_graph.calling.answer import Answer
from moa_graph.calling.cache import StoredProposals
from moa_graph.calling.call import Call
from moa_graph.calling.reasoning import ReasoningSplitter
from moa_graph.calling.references import Question
from moa_graph.models import chat_models_in, nested_graph
from moa_graph.models.text import utf8
from moa_graph.nodes.proposer import ProposerCall, ProposerNode
from moa_graph.nodes.step import Step
from moa_graph.progressive.continuation import (
    Continuation,
    TextJoiner,
    as_text,
    continuation_of,
    going_on,
    with_own_text,
)
from moa_graph.progressive.pace import Pace
from moa_graph.progressive.writing import tokens_in
from moa_graph.state import Draft, MoAState, Proposal


class LiveProposal:
    """A proposal while it is written.

    Args:
        draft: Its draft from an interrupted run.
    """

    def __init__(self, draft: Draft) -> None:
        self.text = "".join(draft["pieces"])
        self.tokens = draft["tokens"]
        self.signal = sync.Signal()
        self.cache: StoredProposals | None = None
        self.key: FullKey | None = None
        self.attempts: Callable[[], int] = lambda: 0
        self.hold = False
        """Whether its model begins its reasoning without an opening tag."""
        self.pace = Pace()
        self._target, self._share, self._enough = 0, 0.0, 0
        self._joiner: TextJoiner | None = None
        self._splitter = ReasoningSplitter()
        self.task: sync.Task[Proposal]

    def aim(self, tokens: int, share: float = 0.0, enough: int | None = None) -> None:
        """Set the length that the next round waits for.

        Args:
            tokens: Minimum number of tokens.
            share: Minimum time since the first token, as a share of the time before it.
            enough: Number of tokens after which that time is not waited for.
        """
        self._target, self._share, self._enough = tokens, share, enough or tokens

    @property
    def there(self) -> bool:
        """Whether it has reached the length that the round waits for, or has ended."""
        if self.task.done() or self.tokens >= self._enough:
            return True
        return self.tokens >= self._target and not self.seconds_left

    @property
    def seconds_left(self) -> float:
        """Seconds of the minimum time that are left, as far as is known; at least 0."""
        return self.pace.seconds_until(self._share)

    def start(self, asking: ProposerCall) -> None:
        """Start to write the proposal in a task."""
        self.cache, self.key = asking.cache, asking.key
        self.attempts = lambda: asking.attempts
        self.task = sync.start(asking.proposal())
        self.task.add_done_callback(lambda _: self.signal.give())

    def begin(self, model: Runnable[Any, Any]) -> None:
        """Prepare for a call or a retry, which continues the current text."""
        self.pace = Pace()
        self._joiner = TextJoiner(self.text, continuation_of(model))
        self._splitter = ReasoningSplitter(hold=self.hold)

    def add(self, chunk: Any) -> None:
        """Add a received chunk."""
        assert self._joiner is not None
        text = self._splitter.add(utf8(as_text(chunk)))
        self.text += self._joiner.add(text)
        if tokens := tokens_in(text):
            self.tokens += tokens
            self.pace.add(tokens)
            marks = (self._target, self._enough)
            if any(self.tokens - tokens < mark <= self.tokens for mark in marks):
                self.signal.give()

    def end(self, answer: Answer) -> str:
        """End the text, and return all of it."""
        if self._joiner is not None:
            self.text += self._joiner.add(self._splitter.end())
            self.text += self._joiner.end("end")
            self._joiner = None
        if answer.unopened or not self.text:
            self.text = answer.text
        return self.text

    def cancel(self) -> None:
        """Cancel the task that writes it."""
        sync.cancel(self.task)

    def draft(self, before: Draft) -> Draft:
        """Return the draft, extended by the text since then."""
        length = sum(map(len, before["pieces"]))
        if (pace := self.pace.tokens) is not None:
            before = {**before, "pace": pace}
        return {
            **before,
            "pieces": [*before["pieces"], self.text[length:]],
            "tokens": self.tokens,
            "attempts": self.attempts(),
        }


class LiveProposerCall(ProposerCall):
    """A proposer's call with text that can be read while it is written."""

    def __init__(
        self,
        node: ProposerNode,
        step: Step,
        state: MoAState,
        model: Runnable[Any, Any],
        draft: Draft,
    ) -> None:
        super().__init__(node, step, state, model)
        self._before = draft["attempts"]
        self.live = LiveProposal(draft)
        self.live.hold = node.model.begins_in_reasoning
        self._question = GoingOn(self._question, self.live)

    def _ask(self, call: Call) -> Coroutine[Any, Any, Answer]:
        streams = next(chat_models_in(self._model), None) and not nested_graph(self._model)
        return call.ask(self.live.add if streams else None)

    def _text(self, answer: Answer) -> str:
        return self.live.end(answer)


class GoingOn(Question):
    """A question that makes a retry continue the existing text."""

    def __init__(self, question: Question, live: LiveProposal) -> None:
        super().__init__(question.messages)
        self._live = live
        self._how: Continuation = "instruction"

    def prepare(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        self._live.begin(model)
        self._how = continuation_of(model)
        return going_on(model, self._how) if self._live.text else model

    @property
    def messages(self) -> list[Any]:
        return with_own_text(super().messages, self._live.text, self._how)
