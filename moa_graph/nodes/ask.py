"""Ask one model from within a node: the one way for the aggregator and for all strategies."""

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
from moa_graph.models import Model, Settings
from moa_graph.nodes.step import Step

_NO_SETTINGS = Settings()


@dataclass(frozen=True)
class Reply:
    """What came of a question to one model.

    Args:
        answer: What the model returned; None if it failed.
        error: Why it failed; None if it did not.
        call: The call; None if it could not be made.
    """

    answer: Answer | None
    error: Exception | None
    call: Call | None

    @property
    def usage(self) -> UsageMetadata | None:
        """Tokens of all its requests, failed ones included."""
        return self.call.tokens(self.answer.message if self.answer else None) if self.call else None

    @property
    def attempts(self) -> int:
        """Requests made."""
        return self.call.attempts if self.call else 0

    @property
    def why_unusable(self) -> str | None:
        """Why there is no text that can be used, for people; None if there is."""
        if self.answer is not None:
            return self.answer.why_unusable
        return why(self.error, self.call)


def why(error: BaseException | None, call: Call | None) -> str:
    """Return what went wrong with a call, for people: without a key that the provider may quote."""
    if call is None or isinstance(error, NoAnswer | WaitEnded | OverBudget):
        return str(error)
    return call.explain(error) if error else ""


async def ask(
    step: Step,
    model: Model,
    question: Callable[[Runnable[Any, Any]], Question],
    *,
    settings: Settings = _NO_SETTINGS,
    writes: bool = False,
    streams: bool = False,
    runnable: Runnable[Any, Any] | None = None,
) -> Reply:
    """Ask a model: with retries, limits, the budget, the run's deadline and its settings.

    Args:
        step: The node's view of the run.
        model: Who is asked.
        question: From the model, as this run sets it, to what it is asked.
        settings: What the run sets.
        writes: Whether the reply is the run's answer, or leads to it: it has all the time that is
            left, and is asked even over the budget. Else it has a share of that time.
        streams: Whether a stream of messages shows its tokens as the answer's.
        runnable: What to call, if it is not the model itself.

    Returns:
        What came of it. A failure of the model, or no room in the budget, is a reply without an
        answer.

    Raises:
        GraphBubbleUp: What an agent raises to interrupt the run or to hand over.
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
