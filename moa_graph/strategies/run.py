"""Interface between a custom strategy and a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AnyMessage, HumanMessage, convert_to_messages
from langchain_core.messages.ai import UsageMetadata

from moa_graph.calling.answer import Answer
from moa_graph.calling.references import Question
from moa_graph.errors import MoAError
from moa_graph.models import Model, ModelLike, as_model
from moa_graph.models.text import sentence
from moa_graph.nodes.ask import Reply, ask
from moa_graph.nodes.step import Step
from moa_graph.state import Decision, Proposal, total_usage


class Run:
    """View of the current run for a custom strategy.

    A custom strategy is a function with a run as its last argument:
    `async def best(references, run)`.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._replies: list[Reply] = []

    @property
    def question(self) -> str:
        """Text of the latest human message."""
        return self._step.asked

    @property
    def messages(self) -> Sequence[AnyMessage]:
        """Messages of the conversation."""
        return list(self._step.messages)

    @property
    def layer(self) -> int:
        """Number of the layer that made the current proposals, from 1; 0 before the first layer."""
        return 0 if self._step.opens else self._step.layer_before

    @property
    def proposals(self) -> Sequence[Proposal]:
        """Proposals of all layers so far, including failed ones."""
        return [] if self._step.opens else list(self._step.proposals)

    @property
    def decisions(self) -> Sequence[Decision]:
        """Decisions of this turn so far."""
        return self._step.decisions

    async def ask(
        self, model: ModelLike, messages: str | Sequence[Any], *, writes: bool = False
    ) -> Answer:
        """Ask a model, with the retries, limits, budget, deadlines and tracing of every call.

        Args:
            model: `"provider:model"`, a chat model, or any Runnable from messages to a message.
            messages: A question, or a conversation in any form that LangChain accepts.
            writes: Whether the reply is needed for the run's answer. If so, the call may use all
                remaining time of the run and may exceed the budget. If not, it gets a share of
                the remaining time.

        Returns:
            Answer of the model; `answer.text` is its text.

        Raises:
            MoAError: If the model fails, or the budget is exhausted. The tokens of the call are
                counted in any case.
        """
        asked: Sequence[Any] = (
            [HumanMessage(messages)] if isinstance(messages, str) else convert_to_messages(messages)
        )
        called = self._model(model)
        reply = await ask(self._step, called, lambda _: Question(asked), writes=writes)
        self._replies.append(reply)
        if reply.answer is None:
            raise MoAError(f"The model {called.name} failed: {sentence(str(reply.why_unusable))}")
        return reply.answer

    def _model(self, given: ModelLike) -> Model:
        known: dict[Any, tuple[ModelLike, Model]] = self._step.plan.asked
        key = given if isinstance(given, str) else id(given)
        if key not in known:
            known[key] = given, as_model(given, "run.ask(model=…)")  # kept: ids are reused
        return known[key][1]

    @property
    def usage(self) -> UsageMetadata | None:
        """Tokens used by the strategy's calls."""
        return total_usage(reply.usage for reply in self._replies)

    @property
    def attempts(self) -> int:
        """Number of requests that the strategy has made."""
        return sum(reply.attempts for reply in self._replies)
