"""Call one model from a node. The aggregator and all strategies use this."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable
from langgraph.errors import GraphBubbleUp

from moa_graph.calling.answer import Answer, NoAnswer
from moa_graph.calling.budget import OverBudget
from moa_graph.calling.call import Call
from moa_graph.calling.references import Question
from moa_graph.calling.streams import with_answer_stream, without_message_stream
from moa_graph.calling.waiting import WaitEnded
from moa_graph.models import NO_SETTINGS, Model, Settings
from moa_graph.nodes.step import Step


@dataclass(frozen=True)
class Reply:
    """Result of a question to one model.

    Args:
        answer: The model's answer; None if the call failed.
        error: The exception; None if the call succeeded.
        call: The call; None if it could not be made.
    """

    answer: Answer | None
    error: Exception | None
    call: Call | None

    @property
    def usage(self) -> UsageMetadata | None:
        """Tokens of all its requests, including failed ones."""
        return self.call.tokens(self.answer.message if self.answer else None) if self.call else None

    @property
    def attempts(self) -> int:
        """Number of requests."""
        return self.call.attempts if self.call else 0

    @property
    def why_unusable(self) -> str | None:
        """Description of why there is no usable text; None if there is usable text."""
        if self.answer is not None:
            return self.answer.why_unusable
        return why(self.error, self.call)


def why(error: BaseException | None, call: Call | None) -> str:
    """Describe the error of a call, without API keys that the provider may quote."""
    if call is None or isinstance(error, NoAnswer | WaitEnded | OverBudget):
        return str(error)
    return call.explain(error) if error else ""


async def ask(
    step: Step,
    model: Model,
    question: Callable[[Runnable[Any, Any]], Question],
    *,
    settings: Settings = NO_SETTINGS,
    writes: bool = False,
    streams: bool = False,
    runnable: Runnable[Any, Any] | None = None,
) -> Reply:
    """Call a model with retries, limits, the budget, the run's deadline and settings.

    Args:
        step: The node's view of the run.
        model: The model to call.
        question: Function that takes the model with the run's settings, and returns the question.
        settings: The run's settings for the model.
        writes: Whether the reply is the run's answer or a part of it. If so, the call may use all
            the remaining time and exceed the budget. Otherwise it gets a share of the time.
        streams: Whether a stream of messages shows its tokens as the answer's.
        runnable: The Runnable to call; by default the model itself.

    Returns:
        The reply. If the model fails or the budget is too small, the reply has no answer.

    Raises:
        GraphBubbleUp: If an agent interrupts the run or hands over to its parent graph.
    """
    call: Call | None = None
    try:
        runnable = runnable or await model.here()
        tuned = settings.applied(runnable)
        asked = question(tuned)
        config = (
            with_answer_stream(step.config, hold=model.begins_in_reasoning)
            if streams
            else without_message_stream(step.config)
        )
        terms = step.spending.terms(model, tuned, last=writes)
        call = step.spending.call(runnable, asked, config, terms, settings=settings)
        wait = step.timing.last_wait if writes else step.timing.side_wait
        return Reply(await wait.first_answer(call.ask), None, call)
    except GraphBubbleUp:
        raise
    except Exception as error:
        return Reply(None, error, call)
