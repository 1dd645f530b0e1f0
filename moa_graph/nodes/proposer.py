"""The node of a proposer: one question to one model, and one record of the result."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Sequence
from copy import copy
from typing import Any

from langchain_core.messages import AnyMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.cache.base import FullKey
from langgraph.errors import GraphBubbleUp, ParentCommand

from moa_graph.calling import sync
from moa_graph.calling.answer import Answer
from moa_graph.calling.budget import OverBudget
from moa_graph.calling.cache import Asked
from moa_graph.calling.call import Call
from moa_graph.calling.callbacks import mark_run
from moa_graph.calling.streams import ProposerTokens, without_message_stream
from moa_graph.calling.waiting import WaitEnded
from moa_graph.events import ProposerEnded, ProposerStarted
from moa_graph.models import Model, nested_graph, without_llm_cache
from moa_graph.nodes.plan import Member, Plan, Reads
from moa_graph.nodes.settings import proposer_settings
from moa_graph.nodes.step import Step
from moa_graph.nodes.stored import stored_proposals
from moa_graph.prompts import Place
from moa_graph.state import (
    MoAState,
    Proposal,
    ProposalStatus,
    Replaced,
    TrimmedReference,
    total_usage,
)

logger = logging.getLogger("moa_graph")

_HANDED_OVER = "the agent handed over to its parent graph (Command.PARENT) instead of answering"
_LONG = 50  # messages and parts of a conversation
_STEPS_BETWEEN = 8  # of the event loop; a server answers a small request within these
_REPLACED = ("failed", "timed_out")  # statuses that make the reserve take over


class ProposerNode(Runnable[MoAState, dict[str, Any]]):
    """A node that calls one model and always returns one `Proposal`.

    If the model fails, the proposal's status says so and no exception is raised. The other
    proposers continue, and no other model is shown the failed proposal.

    Args:
        plan: Settings that all nodes of the graph share.
        layer: The layer, from 1.
        position: The proposer's position in the layer, from 0.
        proposer: Name of the proposer.
        node: Name of the node.
        model: Its model.
        prompt: Its role.
        sample: Index among samples of the same model with the same role, from 0.
        timeout: Maximum seconds.
        reads: Selects the references that it is shown.
        cache_key: Identifies its model in a cache, if the model has no other identifier.
        reserve: Models of the layer that replace failed proposers.
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
        reserve: Sequence[Member] = (),
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
        timeouts = [self.timeout, *(member.timeout for member in self.reserve)]
        cancellable = step.timing.cuts(next(filter(None, timeouts), None))
        return sync.run(step.within(self.propose(step, input)), cancellable=cancellable)

    async def ainvoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        await _take_turns(self.position, step.messages)
        return await step.within(self.propose(step, input))

    async def propose(self, step: Step, state: MoAState) -> dict[str, Any]:
        """Return the state update with the proposal, from the cache or from the model."""
        for model in self.plan.models:
            if model.built is None:
                await model.ready()
        asking = ProposerCall(self, step, state, await self.model.here())
        if asking.cache and asking.key and (kept := await asking.cache.proposal(asking.key)):
            return asking.answer_again(kept)
        asking.note(await stored_proposals(step) if step.timing.quorum else [])
        proposal = await asking.proposal()
        if asking.cache and asking.key and proposal["status"] == "ok":
            await asking.cache.keep(asking.key, proposal)
        if proposal["status"] in _REPLACED and self.reserve:
            proposal = await self._replaced(step, state, proposal)
        return {"proposals": [proposal]}

    async def _replaced(self, step: Step, state: MoAState, failed: Proposal) -> Proposal:
        """Return the proposal of the next reserve model, or the failed one if none is left."""
        try:
            step.timing.shared_layer.check_open()
        except WaitEnded:
            return failed
        if (place := step.timing.shared_layer.take_reserve(len(self.reserve))) is None:
            return failed
        member = self.reserve[place]
        node = copy(self)
        node.model, node.timeout, node.cache_key = member.model, member.timeout, member.cache_key
        node.prompt, node.sample = member.prompt or self.prompt, member.sample
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
        """Write an event to the custom stream that this proposer starts."""
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
        """Return the record of the result, and write it to the log, the trace and the stream."""
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
            # A quorum or a budget abandons proposers on purpose, so this is not a warning.
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


async def _take_turns(position: int, messages: Sequence[AnyMessage]) -> None:
    """Start the calls of a layer one after the other if the conversation is long.

    Providers' SDKs convert a conversation on the event loop, at about five messages or parts in a
    millisecond. Between the proposers' conversions the loop can serve others.
    """
    items = sum(len(m.content) if isinstance(m.content, list) else 1 for m in messages)
    for _ in range(position * _STEPS_BETWEEN if items > _LONG else 0):
        await asyncio.sleep(0)


class ProposerCall:
    """One execution of a proposer's node, which makes one `Proposal`."""

    # Thousands of calls may wait at once.
    __slots__ = (
        "_before",
        "_call",
        "_layer",
        "_model",
        "_question",
        "_settings",
        "_started",
        "cache",
        "key",
        "node",
        "step",
    )

    def __init__(
        self, node: ProposerNode, step: Step, state: MoAState, model: Runnable[Any, Any]
    ) -> None:
        self.node = node
        self.step = step
        self.cache = node.plan.cache
        self._started = time.perf_counter()
        self._call: Call | None = None
        self._layer = step.timing.shared_layer
        self._before = 0
        # Only the first sample may use LangChain's LLM cache, so that samples differ.
        self._model = without_llm_cache(model) if node.sample else model
        self._settings = proposer_settings(step)
        tuned = self._settings.applied(self._model)
        self._question = step.reading.question(tuned, node.prompt, node.reads)
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
        """Count the answers that other proposers gave before this process resumed the run."""
        for proposal in stored:
            if proposal["status"] == "ok":
                self._layer.answered(proposal.get("position", 0), proposal["latency"])

    def answer_again(self, kept: Proposal) -> dict[str, Any]:
        """Return the proposal from the cache."""
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
        """Call the model and return its proposal, within the layer's time."""
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

    def _ask(self, call: Call) -> Coroutine[Any, Any, Answer]:
        return call.ask()

    def _begin(self, model: Runnable[Any, Any]) -> Call:
        step, node = self.step, self.node
        streams = step.streams_proposals
        config = step.config if streams else without_message_stream(step.config)
        writer = step.runtime.stream_writer
        self._call = step.spending.call(
            model,
            self._question,
            config,
            step.spending.terms(node.model, model),
            [ProposerTokens(node.layer, node.proposer, writer)] if streams else [],
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
        if isinstance(error, WaitEnded):
            return self._record(error.status, error=str(error))
        if isinstance(error, OverBudget):
            return self._record("abandoned", error=str(error))
        explained = self._call.explain(error) if self._call else str(error)
        return self._record("failed", error=explained)

    @property
    def attempts(self) -> int:
        """Number of requests so far."""
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
            latency=self.step.timing.seconds_since(self._started),
            attempts=self.attempts,
            trimmed=self._question.trimmed,
            model=self.node.model.answering(call.answered) if call and answer else None,
            reasoning=answer.reasoning if answer else "",
            dropped=call.dropped if call else (),
            place=self._question.place,
        )
