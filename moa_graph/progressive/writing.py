"""One text written piece by piece: from references that grow, and from itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig

from moa_graph.calling.answer import Answer, NoAnswer, was_cut
from moa_graph.calling.call import Call, CallTerms
from moa_graph.calling.reasoning import ReasoningSplitter
from moa_graph.calling.references import Question
from moa_graph.calling.retries import can_pass
from moa_graph.calling.waiting import LayerWait
from moa_graph.models import Settings, max_tokens_of, with_settings
from moa_graph.models.text import utf8
from moa_graph.nodes.step import Step
from moa_graph.progressive.continuation import (
    Continuation,
    Ending,
    TextJoiner,
    as_text,
    continuation_of,
    going_on,
    with_own_text,
)
from moa_graph.prompts import Place, fence_notice, fence_of, fenced, instructed
from moa_graph.state import Draft, Proposal, total_usage

_HEADING = "Responses from models:"  # ends the paper's prompt; here it stands before each part

IN_PARTS = (
    "The responses stand below the query, in parts, as far as they are written: what has the same "
    "number belongs together. Answer the query from the beginning, without waiting for the rest "
    "and without mentioning the responses or their parts. Where you are cut off, you will go on "
    "from your own text, with more of the responses in view."
)
"""What is said of references that are still being written."""

IN_CHUNKS = (
    "The responses stand below the query. Each is a proposal for how the answer goes on from its "
    "text so far, which is yours; none at all means that the answer has only begun. Go on with the "
    "answer from where its text stops, without mentioning the responses. End it when it is "
    "complete."
)
"""What is said of references that go on from the aggregated text."""

_COMPLETE = "The responses are complete now."
_LONGEST = 32_768  # tokens of a text that nothing else limits, so that it ends in any case
_LONGEST_PIECE = 4096  # tokens; more spaces than that are no text
_CHARACTERS = 16  # of one chunk of a stream, up to which it counts as one token
_CHARACTERS_OF_A_TOKEN = 4

Part = Sequence[tuple[str, str]]
"""Of each reference, its label and what came of it."""


def tokens_in(text: str) -> int:
    """How many tokens a chunk of a stream is: one, unless a server puts many together."""
    if len(text) <= _CHARACTERS:
        return 1 if text else 0
    return -(-len(text) // _CHARACTERS_OF_A_TOKEN)


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
        window: Tokens that the model takes; None if nobody knows.
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
    """The conversation with a text behind its last question."""
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
        """What is in view, in the parts in which it came.

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
        """What is in view, as records of which only name and text count."""
        return [
            Proposal(
                layer=0, proposer=node, model="", content=text, status="ok", error=None,
                usage=None, latency=0.0, attempts=0,
            )
            for node, text in self.texts.items()
            if text
        ]  # fmt: skip


@dataclass(frozen=True)
class PieceSetup:
    """With what a piece is written.

    Args:
        step: The node's view of the run.
        model: The model.
        settings: What the run sets.
        terms: How it may be called.
        config: The configuration of its calls.
        wait: How long it is waited for.
        timeout: Seconds that it may take besides.
        hold: Whether the model begins its reasoning without an opening tag.
        show: Told what is certain of the text, as it comes.
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
    """One piece of a text, while it is written and after.

    Args:
        setup: With what.
        draft: The text so far.
        view: What is in view.
        size: Tokens that it may have, as long as more is to come.
        note: How the references are given.
        messages: The conversation, the role included.
        last: Whether to write to the end, whatever is to come.
        fresh: Whether what was in view for earlier pieces no longer counts.
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
        views = [] if fresh else draft["views"]
        fence = fence_of(draft["message_id"], str(len(draft["views"])) if fresh else "")
        self.question = PieceQuestion(
            messages,
            view.references(),
            view.parts(views),
            step.reading.aggregation_prompt,
            note=note,
            own=own,
            how=how,
            complete=view.complete,
            labels=[view.labels[node] for node, text in view.texts.items() if text],
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
        """Whether the text may not become any longer."""
        return bool(self._draft["tokens"]) and self._left <= 0

    async def write(self) -> Draft:
        """Write it; returns the draft with it.

        Raises:
            Exception: What the call raised, or `WaitEnded`, or `OverBudget`.
        """
        setup = self._setup
        if self.exhausted:
            return self._updated(closed=True)
        terms = replace(setup.terms, once_shown=True)  # what has come is not asked for again
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
                # What came before the interruption is a piece too, if a short one.
                setup.show(self._joiner.end("cut"))
                return self._updated(closed=False)
            if self.answer.filtered or self.answer.broken_off:
                raise NoAnswer(self.answer.why_unusable)
            cut = self._was_cut()
            thinking = self._splitter.in_reasoning
            if cut and (self._joiner.only_spaces or thinking) and self.question.lengthen():
                # Templates trim spaces at the end of a text: they must come with what follows.
                # Reasoning is no part of the text: its end must come, too.
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
        """Whether the piece has ended at its own limit, and not at one of the whole text."""
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
            # All before the closing tag was reasoning, earlier pieces too.
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
        """The draft with what this piece has cost, whether it was finished or not."""
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
