"""What a strategy of your own sees of a run, and how it asks a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage, convert_to_messages
from langchain_core.messages.ai import UsageMetadata

from moa_graph.calling.answer import Answer
from moa_graph.calling.references import Question
from moa_graph.errors import MoAError
from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes.ask import Reply, ask
from moa_graph.nodes.step import Step
from moa_graph.state import Decision, Proposal, total_usage


class Run:
    """One run, as a strategy of your own sees it.

    A strategy is a function that is given a run: `async def best(references, run)`.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._replies: list[Reply] = []

    @property
    def question(self) -> str:
        """The text of the latest human message."""
        return self._step.asked

    @property
    def messages(self) -> Sequence[AnyMessage]:
        """The conversation."""
        return list(self._step.messages)

    @property
    def layer(self) -> int:
        """The layer whose proposals are looked at, from 1; 0 before the first."""
        return 0 if self._step.opens else self._step.layer_before

    @property
    def proposals(self) -> Sequence[Proposal]:
        """The proposals of all layers so far, failed ones included."""
        return [] if self._step.opens else list(self._step.proposals)

    @property
    def decisions(self) -> Sequence[Decision]:
        """What steps of this turn have decided so far."""
        return self._step.decisions

    async def ask(
        self, model: ModelLike, messages: str | Sequence[Any], *, writes: bool = False
    ) -> Answer:
        """Ask a model: with retries, limits, budget, deadlines and tracing as every other call.

        Args:
            model: `"provider:model"`, a chat model, or any Runnable from messages to a message.
            messages: A question, or a conversation in any form that LangChain takes.
            writes: Whether the reply leads to the run's answer: then it has all the time that the
                run has left, and is asked even over the budget. Else it has a share of that time.

        Returns:
            What the model answered; `answer.text` is its text.

        Raises:
            MoAError: If the model failed, or there was no room in the budget; says why. Its
                tokens are counted all the same.
        """
        asked: Sequence[Any] = (
            [HumanMessage(messages)] if isinstance(messages, str) else convert_to_messages(messages)
        )
        called = self._model(model)
        reply = await ask(self._step, called, lambda _: Question(asked), writes=writes)
        self._replies.append(reply)
        if reply.answer is None:
            raise MoAError(f"The model {called.name} failed: {reply.why_unusable}")
        return reply.answer

    def _model(self, given: ModelLike) -> Model:
        known: dict[Any, tuple[ModelLike, Model]] = self._step.plan.asked
        key = given if isinstance(given, str) else id(given)
        if key not in known:
            known[key] = given, as_model(given, "run.ask(model=…)")  # held: ids are used again
        return known[key][1]

    @property
    def usage(self) -> UsageMetadata | None:
        """Tokens of the calls that the strategy has made."""
        return total_usage(reply.usage for reply in self._replies)

    @property
    def attempts(self) -> int:
        """Requests that the strategy has made."""
        return sum(reply.attempts for reply in self._replies)
