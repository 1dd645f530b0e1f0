"""Ask a judge model; retry once if its verdict cannot be parsed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage, SystemMessage
from langchain_core.messages.ai import UsageMetadata

from moa_graph.calling.conversation import place_for
from moa_graph.calling.references import Question
from moa_graph.models import Model
from moa_graph.models.decisions import WritingJudge, decides
from moa_graph.models.inputs import first_step
from moa_graph.models.text import utf8
from moa_graph.nodes.ask import ask
from moa_graph.nodes.step import Step
from moa_graph.prompts import Place, fence_notice, fence_of, fenced
from moa_graph.state import Proposal, total_usage

T = TypeVar("T")

_TRIES = 2
_QUOTED = 80  # characters of an unparsable verdict shown in the error


@dataclass(frozen=True)
class Verdict(Generic[T]):
    """Verdict of a judge, with its usage and number of requests."""

    value: T | None
    """Parsed verdict; None if the judge failed or its reply could not be parsed."""
    error: str | None
    """Reason why `value` is None."""
    usage: UsageMetadata | None
    attempts: int


async def judge(
    step: Step,
    model: Model,
    case: Case,
    parse: Callable[[str], T | None],
    again: str,
) -> Verdict[T]:
    """Ask a model for a verdict; its tokens do not appear in message streams.

    Args:
        step: Current step of the run.
        model: Judge model.
        case: Question, proposals and task for the judge.
        parse: Function that parses a reply; it returns None if the reply is not a verdict.
        again: Message for the retry after a reply that is not a verdict.

    Returns:
        The verdict. A failure of the model does not raise: the verdict then has no value, and
        `error` has the reason.
    """
    usages: list[UsageMetadata | None] = []
    attempts = 0
    said = ""
    runnable = await model.here()
    question = CaseQuestion(case, place_for(runnable), step.reading.window_of(runnable))
    if decides(first_step(runnable)):
        runnable = WritingJudge(runnable, len(case.proposals), case.choose)
    for _ in range(_TRIES):
        reply = await ask(step, model, lambda _: question, runnable=runnable)
        usages.append(reply.usage)
        attempts += reply.attempts
        if reply.answer is None:
            reason = f"The judge {model.name} failed: {reply.why_unusable}"
            return Verdict(None, reason, total_usage(usages), attempts)
        said = reply.answer.text
        if not reply.answer.filtered and (value := parse(said)) is not None:
            return Verdict(value, None, total_usage(usages), attempts)
        question.ask_again(said, again)
    short = " ".join(said.split())[:_QUOTED]
    error_text = f"The judge {model.name} gave no verdict in {_TRIES} attempts: {short!r}"
    return Verdict(None, error_text, total_usage(usages), attempts)


@dataclass(frozen=True)
class Case:
    """Input for a judge.

    Args:
        question: The user's question.
        proposals: Responses, numbered from 1 in this order.
        task: Instructions for the judge, including the format of its reply.
        choose: Number of responses to name; 0 for any number of them; None for yes or no.
    """

    question: str
    proposals: Sequence[Proposal]
    task: str
    choose: int | None = None


class CaseQuestion(Question):
    """Prompt for a judge: the task, the question, and the responses as untrusted data.

    Responses that do not fit the context window are shortened in the same way as references.

    Args:
        case: Input for the judge.
        place: Kind of message that holds the task.
        window: Context window of the judge in tokens; None if unknown.
    """

    def __init__(self, case: Case, place: Place, window: int | None = None) -> None:
        self._case = case
        self._more: list[AnyMessage] = []
        super().__init__([], case.proposals, place=place, window=window)

    def ask_again(self, said: str, again: str) -> None:
        """Add the retry message, after a reply that is not a verdict."""
        self._more = [AIMessage(said or "…"), HumanMessage(again)]

    def _with(self, texts: Sequence[str]) -> list[AnyMessage]:
        asked = utf8(self._case.question)
        fence = fence_of(asked, *texts)
        blocks = [fenced(text, str(i), fence) for i, text in enumerate(texts, 1)]
        user = "\n".join([f"The user's query:\n{asked}\n\nThe responses:", *blocks])
        task = f"{self._case.task}\n\n{fence_notice(fence, len(texts))}"
        if self._place == "human":
            return [HumanMessage(f"{task}\n\n{user}"), *self._more]
        return [SystemMessage(task), HumanMessage(user), *self._more]


_NUMBERS = re.compile(r"\d+")
_DIGITS = 4  # a longer number cannot be the number of a reference


def numbers_in(text: str, highest: int, count: int) -> list[int] | None:
    """Return the `count` different numbers in a text; None if any is outside 1 to `highest`."""
    found = _NUMBERS.findall(text)
    if any(len(number) > _DIGITS for number in found):
        return None
    numbers = [int(n) for n in found]
    valid = list(dict.fromkeys(numbers))
    right = len(valid) == count and all(1 <= n <= highest for n in valid)
    return valid if right else None


def yes_or_no(text: str) -> bool | None:
    """Return whether a reply begins with yes; None if it begins with neither yes nor no."""
    match = re.match(r"\W*(yes|no)\b", text.strip(), re.IGNORECASE)
    return None if match is None else match[1].casefold() == "yes"
