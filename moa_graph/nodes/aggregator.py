"""The last node, which makes the answer from the proposals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.errors import GraphBubbleUp

from moa_graph.calling import sync
from moa_graph.calling.answer import Answer, NoAnswer
from moa_graph.calling.call import Call
from moa_graph.calling.references import Question
from moa_graph.errors import (
    AggregationFailed,
    AggregationRefused,
    NotEnoughProposals,
    refused_credentials,
    refused_request,
)
from moa_graph.events import AggregatorStarted
from moa_graph.models import Model
from moa_graph.models.text import sentence
from moa_graph.nodes.ask import Reply, ask, why
from moa_graph.nodes.consult import keep_panel
from moa_graph.nodes.plan import Plan
from moa_graph.nodes.settings import aggregator_settings
from moa_graph.nodes.step import Step
from moa_graph.state import (
    AGGREGATOR_RECORD,
    MoAState,
    Proposal,
    TrimmedReference,
)

_ADVICE = (
    "The proposals are kept in this error's `proposals`. With a checkpointer, invoke the same "
    "thread with None to call only the aggregator again."
)


class AnswerNode(Runnable[MoAState, dict[str, Any]]):
    """The last node, which makes the answer from the proposals.

    Args:
        plan: Settings that all nodes of the graph share.
        writer: The model that writes the answer, and may call tools; None if the answer is chosen
            from the proposals.
        title: Name in errors and records; by default the writer's name.
    """

    def __init__(self, plan: Plan, writer: Model | None, title: str | None = None) -> None:
        self.plan = plan
        self.writer = writer
        self.model_name = title or (writer.name if writer else "aggregator")

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        step = self._step(input, config)
        return sync.run(step.within(self._kept_and_answered(step)))

    async def ainvoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        step = self._step(input, config)
        return await step.within(self._kept_and_answered(step))

    async def _kept_and_answered(self, step: Step) -> dict[str, Any]:
        await keep_panel(step)
        return await self.answer(step)

    async def answer(self, step: Step) -> dict[str, Any]:
        """Return the state update with the answer.

        Args:
            step: The node's view of the run.

        Raises:
            AggregationFailed: If there is no answer.
        """
        raise NotImplementedError

    def _step(self, state: MoAState, config: RunnableConfig | None) -> Step:
        step = Step.of(self.plan, self.plan.layers, state, config)
        assert step is not None  # the last layer is never skipped
        return step

    def _tell_started(self, step: Step) -> None:
        step.tell_layer_ended()
        step.runtime.stream_writer(
            AggregatorStarted(
                type="aggregator_started", layer=self.plan.layers, model=self.model_name
            )
        )

    def _written(self, step: Step, reply: Reply) -> tuple[Answer, Call]:
        """Return the writer's answer and its call, or raise `AggregationFailed`."""
        answer, call = reply.answer, reply.call
        if answer is None or call is None:
            self._fail(step, call, reply.error or NoAnswer("it was not asked"))
        if not answer.says_something:
            self._fail(step, call, NoAnswer(answer.why_empty))
        return answer, call

    def _fail(self, step: Step, call: Call | None, error: Exception) -> NoReturn:
        if isinstance(error, GraphBubbleUp | NotEnoughProposals):
            raise error
        step.end_run()
        # An error about a rejected key may quote the key, and a traceback prints the cause.
        cause = None if refused_credentials(error) else error
        reason = why(error, call)
        refused = step.context.aggregator_options is not None and refused_request(error)
        failed = (AggregationRefused if refused else AggregationFailed)(
            f"The aggregator {self.model_name} failed: {sentence(reason)}", self.paid_for(step)
        )
        # A note is shown in tracebacks, and not to the clients of a server.
        failed.add_note(_ADVICE)
        raise failed from cause

    def paid_for(self, step: Step) -> list[Proposal]:
        """Return the proposals to put in an error."""
        return step.proposals


class AggregatorNode(AnswerNode):
    """A node that synthesizes the answer from the last layer's proposals."""

    def __init__(self, plan: Plan, model: Model) -> None:
        super().__init__(plan, model)
        self.model = model

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        step = self._step(input, config)
        return sync.run(
            step.within(self._kept_and_answered(step)),
            cancellable=step.timing.run_timeout is not None,
        )

    async def answer(self, step: Step) -> dict[str, Any]:
        """Ask the model for the answer; see `AnswerNode.answer`."""
        model = await self.model.here()
        reply = await ask(
            step,
            self.model,
            lambda tuned: self._asked(step, tuned),
            settings=aggregator_settings(step),
            writes=True,
            streams=True,
            runnable=model,
        )
        answer, call = self._written(step, reply)
        step.end_run()
        self.model.begins_in_reasoning |= answer.unopened
        return {"messages": [as_answer(step, answer, self.model, call)]}

    def _asked(self, step: Step, model: Runnable[Any, Any]) -> Question:
        question = self._question(step, model)
        self._tell_started(step)
        return question

    def _question(self, step: Step, model: Runnable[Any, Any]) -> Question:
        return step.reading.question(model, own=True)


def as_answer(
    step: Step,
    answer: Answer,
    model: Model,
    call: Call,
    trimmed: Sequence[TrimmedReference] = (),
    usage: UsageMetadata | None = None,
) -> AIMessage:
    """Return the answer's message, with a record of the aggregator's calls.

    Args:
        step: The node's view of the run.
        answer: The model's answer.
        model: The model.
        call: Its last call.
        trimmed: References that were shortened in earlier calls.
        usage: Tokens of all its calls; by default those of `call`.
    """
    trimmed = [*trimmed, *call.question.trimmed]
    message = answer.message
    record = aggregator_record(model, call, call.attempts, answer.reasoning)
    metadata = {**message.response_metadata, AGGREGATOR_RECORD: record}
    if trimmed:
        metadata["trimmed_references"] = list(trimmed)
    tokens = usage or call.tokens(message)
    update = {"usage_metadata": tokens, "response_metadata": metadata}
    if message.id in {m.id for m in step.messages}:
        update["id"] = None  # else the reducer would replace the message with that id
    return message.model_copy(update=update)


def aggregator_record(
    model: Model, call: Call | None, attempts: int, reasoning: str
) -> dict[str, Any]:
    """Return the record of the aggregator's calls: the model, the number of requests, and more.

    Args:
        model: The aggregator's model.
        call: Its last call; None if no call was needed.
        attempts: Total number of requests.
        reasoning: The model's reasoning; "" if there is none.
    """
    name = model.answering(call.answered) if call else model.name
    record: dict[str, Any] = {"model": name, "attempts": attempts}
    if name != model.name:
        record["asked_model"] = model.name
    if reasoning:
        record["reasoning"] = reasoning
    if call and call.dropped:
        record["dropped_settings"] = list(call.dropped)
    if call and call.question.place:
        record["place"] = call.question.place
    return record
