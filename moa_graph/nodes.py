"""What a proposer and the aggregator do when their turn comes."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from copy import copy
from typing import Any, NoReturn

from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.cache.base import FullKey
from langgraph.errors import GraphBubbleUp, ParentCommand

from moa_graph import sync
from moa_graph.asking import Reply, ask, why
from moa_graph.budget import OverBudget
from moa_graph.caching import Asked
from moa_graph.callbacks import mark_run
from moa_graph.calling.answer import Answer, NoAnswer
from moa_graph.calls import Call
from moa_graph.completion import Cut
from moa_graph.errors import (
    AggregationFailed,
    AggregationRefused,
    NotEnoughProposals,
    refused_credentials,
    refused_request,
)
from moa_graph.events import AggregatorStarted, ProposerEnded, ProposerStarted
from moa_graph.layers import Reads, Seat
from moa_graph.models import Model, Settings, nested_graph, without_llm_cache
from moa_graph.prompts import Place
from moa_graph.references import Question
from moa_graph.state import (
    MoAState,
    Proposal,
    ProposalStatus,
    Replaced,
    TrimmedReference,
    total_usage,
)
from moa_graph.steps import Plan, Step
from moa_graph.streaming import ProposerTokens, without_message_stream

logger = logging.getLogger("moa_graph")

_HANDED_OVER = "the agent handed over to its parent graph (Command.PARENT) instead of answering"
_ACTS = {"tools", "response_format"}
_REPLACED = ("failed", "timed_out")  # how a proposal has ended whose place goes to the reserve
AGGREGATOR_RECORD = "aggregator"
"""Where an answer's `response_metadata` has how the aggregator came to it."""


class ProposerNode(Runnable[MoAState, dict[str, Any]]):
    """Asks one model, and returns one `Proposal`, whatever happens.

    A model's failure is the proposal's status, never an exception: its siblings go on, and no
    other model sees it.

    Args:
        plan: What all nodes of the graph share.
        layer: The layer, from 1.
        position: The proposer's place in it, from 0.
        proposer: Its name.
        node: Its node's name.
        model: Its model.
        prompt: Its role.
        sample: Which of several answers of the same model with the same role, from 0.
        timeout: Seconds that it may take.
        reads: Which of the references it is shown.
        cache_key: By what a cache knows its model, where that cannot be told by itself.
        reserve: Who takes its layer's places where a proposer fails.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        layer: int,
        position: int,
        proposer: str,
        node: str,
        model: Model,
        prompt: str | None,
        sample: int = 0,
        timeout: float | None = None,
        reads: Reads | None = None,
        cache_key: str | None = None,
        reserve: Sequence[Seat] = (),
    ) -> None:
        self.plan = plan
        self.reserve = reserve
        self.layer = layer
        self.position = position
        self.proposer = proposer
        self.node = node
        self.model = model
        self.prompt = prompt
        self.sample = sample
        self.timeout = timeout
        self.reads = reads
        self.cache_key = cache_key

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        timeouts = [self.timeout, *(seat.timeout for seat in self.reserve)]
        cancellable = step.cuts(next(filter(None, timeouts), None))
        return sync.run(step.within(self.propose(step, input)), cancellable=cancellable)

    async def ainvoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        return await step.within(self.propose(step, input))

    async def propose(self, step: Step, state: MoAState) -> dict[str, Any]:
        """The update with the proposal, from the cache or from the model."""
        for model in self.plan.models:
            if model.built is None:
                await model.ready()
        asking = Asking(self, step, state, await self.model.here())
        if asking.cache and asking.key and (kept := await asking.cache.proposal(asking.key)):
            return asking.answer_again(kept)
        asking.note(await step.stored() if step.quorum else [])
        proposal = await asking.proposal()
        if asking.cache and asking.key and proposal["status"] == "ok":
            await asking.cache.keep(asking.key, proposal)
        if proposal["status"] in _REPLACED and self.reserve:
            proposal = await self._replaced(step, state, proposal)
        return {"proposals": [proposal]}

    async def _replaced(self, step: Step, state: MoAState, failed: Proposal) -> Proposal:
        """The proposal of the next of the reserve, if one is left; else the failed one."""
        try:
            step.shared_layer.check_open()
        except Cut:
            return failed
        if (place := step.shared_layer.take_reserve(len(self.reserve))) is None:
            return failed
        seat = self.reserve[place]
        node = copy(self)
        node.model, node.timeout, node.cache_key = seat.model, seat.timeout, seat.cache_key
        node.prompt, node.sample = seat.prompt or self.prompt, seat.sample
        node.reserve = ()
        proposal: Proposal = (await node.propose(step, state))["proposals"][0]
        model = failed.get("asked_model", failed["model"])
        proposal["replaces"] = Replaced(
            model=model, status=failed["status"], error=failed["error"] or failed["status"]
        )
        proposal["usage"] = total_usage([failed["usage"], proposal["usage"]])
        proposal["attempts"] += failed["attempts"]
        proposal["latency"] += failed["latency"]
        if proposal["error"]:
            proposal["error"] += f" (in place of {model}: {proposal['replaces']['error']})"
        return proposal

    def tell_started(self, step: Step) -> None:
        """Tell the custom stream that this proposer begins."""
        if self.position == 0:
            step.tell_layer_ended()
        step.runtime.stream_writer(
            ProposerStarted(
                type="proposer_started",
                layer=self.layer,
                proposer=self.proposer,
                model=self.model.name,
            )
        )

    def record(
        self,
        step: Step,
        status: ProposalStatus,
        *,
        content: str,
        error: str | None,
        usage: UsageMetadata | None,
        latency: float,
        attempts: int,
        trimmed: list[TrimmedReference],
        model: str | None = None,
        reasoning: str = "",
        dropped: Sequence[str] = (),
        place: Place | None = None,
    ) -> Proposal:
        """The record of how it ended, which the log, the trace and the stream are told too."""
        model = model or self.model.name
        proposal = Proposal(
            layer=self.layer,
            proposer=self.proposer,
            model=model,
            content=content,
            status=status,
            error=error,
            usage=usage,
            latency=latency,
            attempts=attempts,
            position=self.position,
            turn=step.turn,
            id=step.record_id,
        )
        if trimmed:
            proposal["trimmed"] = trimmed
        if reasoning:
            proposal["reasoning"] = reasoning
        if model != self.model.name:
            proposal["asked_model"] = self.model.name
        if dropped:
            proposal["dropped_settings"] = list(dropped)
        if place:
            proposal["place"] = place
        if error:
            # A quorum and a budget leave proposers out on purpose.
            level = logging.INFO if status == "abandoned" else logging.WARNING
            logger.log(level, "Proposer %s of layer %d: %s", self.proposer, self.layer, error)
        mark_run(self.node, error, moa_status=status, moa_attempts=attempts, moa_model=model)
        step.runtime.stream_writer(
            ProposerEnded(
                type="proposer_ended",
                layer=self.layer,
                proposer=self.proposer,
                status=status,
                latency=latency,
                tokens=usage["output_tokens"] if usage else None,
                error=error,
            )
        )
        return proposal


class Asking:
    """A proposer's node at work: from the state to one `Proposal`."""

    def __init__(
        self, node: ProposerNode, step: Step, state: MoAState, model: Runnable[Any, Any]
    ) -> None:
        self.node = node
        self.step = step
        self.cache = node.plan.cache
        self._started = time.perf_counter()
        self._call: Call | None = None
        self._layer = step.shared_layer
        self._before = 0
        # Of several samples, only the first may come from LangChain's cache of models' answers.
        self._model = without_llm_cache(model) if node.sample else model
        self._settings = proposer_settings(step)
        tuned = self._settings.applied(self._model)
        self._question = step.question(tuned, node.prompt, node.reads)
        self.key: FullKey | None = None
        if self.cache:
            self.key = self.cache.key(
                node.node,
                Asked(
                    tuned,
                    node.model.name,
                    node.sample,
                    self._settings,
                    node.cache_key,
                    step.config,
                ),
                self._question.messages,
            )

    def note(self, stored: list[Proposal]) -> None:
        """Count what siblings have answered before this process took the run over."""
        for proposal in stored:
            if proposal["status"] == "ok":
                self._layer.answered(proposal.get("position", 0), proposal["latency"])

    def answer_again(self, kept: Proposal) -> dict[str, Any]:
        """The proposal from the cache."""
        self.node.tell_started(self.step)
        self._layer.answered(self.node.position, kept["latency"])
        proposal = self._record("ok", content=kept["content"])
        proposal["cached"] = True
        proposal["model"] = kept["model"]
        for field in ("reasoning", "asked_model"):
            if field in kept:
                proposal[field] = kept[field]
        if kept["usage"]:
            proposal["saved_usage"] = kept["usage"]
        return {"proposals": [proposal]}

    async def proposal(self) -> Proposal:
        """Ask for as long as the layer waits."""
        node = self.node
        try:
            self._layer.check_open()
            call = self._begin(self._model)
            hedge = None if nested_graph(self._model) is not None else self.step.policy.hedge
            answer = await self._layer.first_answer(
                lambda: self._ask(call), timeout=node.timeout, hedge=hedge
            )
            return self._ended(answer)
        except Exception as error:
            return self._failed(error)

    async def _ask(self, call: Call) -> Answer:
        return await call.ask()

    def _begin(self, model: Runnable[Any, Any]) -> Call:
        step, node = self.step, self.node
        streams = step.streams_proposals
        config = step.config if streams else without_message_stream(step.config)
        progress = ProposerTokens(node.layer, node.proposer, step.runtime.stream_writer)
        self._call = step.call(
            model,
            self._question,
            config,
            step.terms(node.model, model),
            [progress] if streams else [],
            until=self._layer.until(node.timeout),
            settings=self._settings,
        )
        node.tell_started(step)
        return self._call

    def _ended(self, answer: Answer) -> Proposal:
        text = self._text(answer)
        self.node.model.begins_in_reasoning |= answer.unopened
        if answer.filtered or answer.broken_off:
            return self._record("failed", answer, error=answer.why_unusable)
        if not text.strip():
            return self._record("failed", answer, error=answer.why_empty)
        proposal = self._record("ok", answer, content=text)
        self._layer.answered(self.node.position, proposal["latency"])
        return proposal

    def _text(self, answer: Answer) -> str:
        return answer.text

    def _failed(self, error: Exception) -> Proposal:
        if isinstance(error, ParentCommand):
            return self._record("failed", error=_HANDED_OVER)
        if isinstance(error, GraphBubbleUp):
            raise error
        if isinstance(error, Cut):
            return self._record(error.status, error=str(error))
        if isinstance(error, OverBudget):
            return self._record("abandoned", error=str(error))
        explained = self._call.explain(error) if self._call else str(error)
        return self._record("failed", error=explained)

    @property
    def attempts(self) -> int:
        """Requests so far."""
        return self._before + (self._call.attempts if self._call else 0)

    def _record(
        self,
        status: ProposalStatus,
        answer: Answer | None = None,
        *,
        content: str = "",
        error: str | None = None,
    ) -> Proposal:
        call = self._call
        return self.node.record(
            self.step,
            status,
            content=content,
            error=error,
            usage=call.tokens(answer.message if answer else None) if call else None,
            latency=self.step.seconds_since(self._started),
            attempts=self.attempts,
            trimmed=self._question.trimmed,
            model=self.node.model.answering(call.answered) if call and answer else None,
            reasoning=answer.reasoning if answer else "",
            dropped=call.dropped if call else (),
            place=self._question.place,
        )


class AnswerNode(Runnable[MoAState, dict[str, Any]]):
    """The last node: from proposals to the answer.

    Args:
        plan: What all nodes of the graph share.
        writer: The model that writes the answer, and acts if it has tools; None where the answer
            is chosen among the proposals.
        title: What errors and records call it; by default the writer's name.
    """

    def __init__(self, plan: Plan, writer: Model | None, title: str | None = None) -> None:
        self.plan = plan
        self.writer = writer
        self.model_name = title or (writer.name if writer else "aggregator")

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        step = self._step(input, config)
        return sync.run(step.within(self.answer(step)))

    async def ainvoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        step = self._step(input, config)
        return await step.within(self.answer(step))

    async def answer(self, step: Step) -> dict[str, Any]:
        """The update with the answer.

        Args:
            step: The node's view of the run.

        Raises:
            AggregationFailed: If there is none.
        """
        raise NotImplementedError

    def _step(self, state: MoAState, config: RunnableConfig | None) -> Step:
        step = Step.of(self.plan, self.plan.layers, state, config)
        assert step is not None  # the last layer is never left out
        return step

    def _tell_started(self, step: Step) -> None:
        step.tell_layer_ended()
        step.runtime.stream_writer(
            AggregatorStarted(
                type="aggregator_started", layer=self.plan.layers, model=self.model_name
            )
        )

    def _written(self, step: Step, reply: Reply) -> tuple[Answer, Call]:
        """What the writer wrote, and the call; raises `AggregationFailed` if that is nothing."""
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
        # A provider's refusal of a key may quote it, and a traceback would print its cause.
        cause = None if refused_credentials(error) else error
        reason = why(error, call)
        refused = step.context.aggregator_options is not None and refused_request(error)
        raise (AggregationRefused if refused else AggregationFailed)(
            f"The aggregator {self.model_name} failed: {reason}. The proposals are "
            "kept in this error's `proposals`; with a checkpointer, invoke the same thread with "
            "None to call only the aggregator again.",
            self.paid_for(step),
        ) from cause

    def paid_for(self, step: Step) -> list[Proposal]:
        """The proposals that a failure carries."""
        return step.proposals


class AggregatorNode(AnswerNode):
    """Synthesizes the answer from the last layer's proposals."""

    def __init__(self, plan: Plan, model: Model) -> None:
        super().__init__(plan, model)
        self.model = model

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        step = self._step(input, config)
        return sync.run(step.within(self.answer(step)), cancellable=step.run_timeout is not None)

    async def answer(self, step: Step) -> dict[str, Any]:
        """As `AnswerNode`."""
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
        return step.question(model, own=True)


def as_answer(
    step: Step,
    answer: Answer,
    model: Model,
    call: Call,
    trimmed: Sequence[TrimmedReference] = (),
    usage: UsageMetadata | None = None,
) -> AIMessage:
    """The message with the answer, and with the record of how the aggregator came to it.

    Args:
        step: The node's view of the run.
        answer: What the model returned.
        model: The model.
        call: The last call of it.
        trimmed: The references that calls before this one were not given in full.
        usage: Tokens of all its calls; by default of this one.
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
        update["id"] = None  # the reducer would take it for a correction of that message
    return message.model_copy(update=update)


def aggregator_record(
    model: Model, call: Call | None, attempts: int, reasoning: str
) -> dict[str, Any]:
    """How the aggregator came to its answer: who wrote it, and after how many requests.

    Args:
        model: The aggregator's.
        call: The last call of it; None if the answer needed none.
        attempts: Requests in all.
        reasoning: What the model wrote besides its answer; "" if nothing.
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


def proposer_settings(step: Step) -> Settings:
    """What the run sets for proposers."""
    return Settings.of(
        temperature=step.context.proposer_temperature,
        max_tokens=step.context.proposer_max_tokens,
    )


def aggregator_settings(step: Step, *, acts: bool = True) -> Settings:
    """What the run sets for the aggregator.

    Args:
        step: The node's view of the run.
        acts: Whether with what its answer is given besides: tools, a form, `stop` …
    """
    options = given_options(step) if acts else {}
    return Settings.of(
        **{
            "temperature": step.context.aggregator_temperature,
            "max_tokens": step.context.aggregator_max_tokens,
            **options,
        }
    )


def given_options(step: Step) -> dict[str, Any]:
    """What this run gives the aggregator's call besides its messages: tools, a form, `stop` …"""
    given = step.context.aggregator_options
    return {**(given.given() if given else {}), **step.context.call_options}


def must_act(step: Step) -> bool:
    """Whether the answer may call tools or has a form, so that only the aggregator can give it."""
    return not _ACTS.isdisjoint(given_options(step))
