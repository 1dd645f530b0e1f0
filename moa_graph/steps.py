"""One node's view of a run: where it stands, what it may see, and how long it may take."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar
from uuid import uuid4

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.runtime import Runtime, get_runtime

from moa_graph import sync
from moa_graph._compat import checkpointer_in
from moa_graph.budget import Amount, Ledger, highest, price_of
from moa_graph.caching import StoredProposals
from moa_graph.calling.conversation import (
    conversation_for,
    place_for,
    place_for_references,
)
from moa_graph.calling.text import utf8
from moa_graph.calls import Call, Purse, Terms
from moa_graph.completion import Hedge, LayerWait, Quorum
from moa_graph.context import MoAContext
from moa_graph.errors import NotEnoughProposals
from moa_graph.events import LayerEnded
from moa_graph.layers import Layer, Reads, References
from moa_graph.limits import CallPolicy, Price, RunLimits
from moa_graph.models import (
    Model,
    Settings,
    chat_models_in,
    max_tokens_of,
    name_of_chat_model,
    own_retries,
    provider_of,
    window_of,
)
from moa_graph.prompts import (
    AGGREGATE_AND_SYNTHESIZE,
    Place,
    check_conversation,
    fence_of,
    instructed,
    letters,
)
from moa_graph.references import Question
from moa_graph.running import Run, RunsInProgress
from moa_graph.state import (
    Decision,
    Draft,
    MoAState,
    Proposal,
    decisions_of,
    proposals_of_layer,
    text_for_readers,
    turn_of,
    usable,
)

T = TypeVar("T")


@dataclass(frozen=True)
class Policy:
    """What nodes know of a layer of proposers."""

    width: int
    """How many proposers it has."""
    min_proposals: int = 1
    quorum: Quorum | None = None
    timeout: float | None = None
    hedge: Hedge | None = None
    references: References | None = None
    """How its models are shown references; None: as the graph says."""
    lettered: bool = False
    """Whether its proposals are called A, B, … instead of 1, 2, …"""

    @classmethod
    def of(cls, layer: Layer, *, width: int, lettered: bool) -> Policy:
        """That of a layer, which has `width` proposers."""
        return cls(
            width,
            layer.min_proposals,
            None if layer.quorum is None else Quorum(layer.quorum, layer.grace),
            layer.timeout,
            None if layer.hedge is None else Hedge(layer.hedge),
            layer.references,
            lettered,
        )

    def has_room(self, quorum: int) -> bool:
        """Whether a run may ask for that quorum."""
        return self.min_proposals <= quorum <= self.width


@dataclass(frozen=True)
class Plan:
    """What all nodes of a graph share."""

    policies: Sequence[Policy]
    """Of each layer of proposers."""
    models: Sequence[Model]
    """Every model of the graph."""
    references: References
    stream_proposals: bool
    concurrency: int
    """Proposers that run at once; what LangGraph is given as `max_concurrency`."""
    limits: RunLimits | None = None
    calls: CallPolicy = field(default_factory=CallPolicy)
    overlaps: bool = False
    """Whether layers work at the same time, as in a staircase."""
    routed: bool = False
    """Whether a first pass begins each turn."""
    cache: StoredProposals | None = None
    recipe: tuple[Any, Mapping[str, Any]] = (None, {})
    """How to make the graph again: the function, and its arguments."""
    proposers: Sequence[Sequence[str]] = ()
    """The names of each layer's proposers."""
    asked: dict[Any, Any] = field(default_factory=dict)
    """Models that functions have asked, with what they were given as."""
    runs: RunsInProgress = field(default_factory=RunsInProgress)

    @property
    def layers(self) -> int:
        """Layers built, the aggregator's included."""
        return len(self.policies) + 1

    def retries_of(self, model: Runnable[Any, Any]) -> int:
        """How often a call of that model is repeated after an error that can pass."""
        if self.calls.retries is not None:
            return self.calls.retries
        return max(own_retries(model) or 0, _DEFAULT_RETRIES)


_DEFAULT_RETRIES = 2  # as OpenAI's client has it


@dataclass(frozen=True)
class Step:
    """One node's view of the run."""

    plan: Plan
    layer: int
    messages: list[AnyMessage]
    proposals: list[Proposal]
    context: MoAContext
    config: RunnableConfig
    runtime: Runtime[Any]
    earlier_decisions: list[Decision] = field(default_factory=list)
    """Those in the state, an earlier turn's perhaps among them."""
    earlier_drafts: dict[str, Draft] = field(default_factory=dict)
    """Those in the state, of an earlier question perhaps."""
    opens: bool = False
    """Whether the step comes before the proposers, and begins the turn."""

    @classmethod
    def of(
        cls,
        plan: Plan,
        layer: int,
        state: MoAState,
        config: RunnableConfig | None,
        *,
        after: bool = False,
        opens: bool = False,
    ) -> Step | None:
        """The step, or None if the run's context leaves this layer out.

        Args:
            plan: What all nodes of the graph share.
            layer: The layer, from 1.
            state: The node's input.
            config: That of the node's run.
            after: Whether the step stands behind that layer, and reads its proposals.
            opens: Whether it stands before the first.

        Raises:
            ValueError: If the conversation or the context is not usable.
        """
        runtime = get_runtime(MoAContext)
        # A parent graph's own context reaches its subgraphs: it is not meant for us.
        context = runtime.context if isinstance(runtime.context, MoAContext) else MoAContext()
        _check_context(plan, context)
        if layer < plan.layers and layer >= (context.layers or plan.layers):
            return None
        if after:
            layer += 1
        if layer == 1:
            check_conversation(state["messages"])
        return cls(
            plan,
            layer,
            state["messages"],
            state.get("proposals", []),
            context,
            config or {},
            runtime,
            decisions_of(state),
            state.get("drafts") or {},  # type: ignore[arg-type]
            opens,
        )

    # --- what the model is asked ----------------------------------------------------------

    def conversation(
        self, model: Runnable[Any, Any], role: str | None = None, *, own: bool = False
    ) -> list[AnyMessage]:
        """The conversation as a model can take it, with its role.

        Args:
            model: Who is asked.
            role: Its role or persona.
            own: Whether it is the model that writes the graph's answers.
        """
        messages = conversation_for(model, self.messages, own=own)
        return instructed(messages, utf8(role), place_for(model)) if role else messages

    def question(
        self,
        model: Runnable[Any, Any],
        role: str | None = None,
        reads: Reads | None = None,
        *,
        own: bool = False,
    ) -> Question:
        """What a model of this layer is asked: the references of the layer before included.

        Args:
            model: Who is asked.
            role: Its role or persona.
            reads: Which of the references it is shown.
            own: Whether it is the model that writes the graph's answers.

        Raises:
            NotEnoughProposals: If that layer gave too few.
        """
        messages = self.conversation(model, role, own=own)
        if self.layer == 1:
            return Question(messages)
        return self.asking(model, self.references(reads), messages)

    def asking(
        self,
        model: Runnable[Any, Any],
        references: Sequence[Proposal],
        messages: Sequence[AnyMessage] | None = None,
        prompt: str | None = None,
    ) -> Question:
        """The conversation with these references, as this graph shows them to a model.

        Args:
            model: Who is asked.
            references: What it is shown.
            messages: The conversation; by default the state's.
            prompt: What to do with the references; by default the run's, else the graph's.
        """
        return Question(
            self.conversation(model) if messages is None else messages,
            references,
            prompt or self.aggregation_prompt,
            labels=letters(len(references)) if self.lettered else None,
            fenced=self.shown.fenced,
            place=self.place_for(model),
            reasoning=self.shown.reasoning,
            window=self.window_of(model),
            answer=max_tokens_of(model),
        )

    def window_of(self, model: Runnable[Any, Any]) -> int | None:
        """Tokens that a model takes, its answer included; None if nobody knows."""
        return self.shown.window or window_of(model)

    def place_for(self, model: Runnable[Any, Any]) -> Place:
        """Where a model is shown references."""
        return self.shown.place or place_for_references(model, self.messages)

    @property
    def shown(self) -> References:
        """How this step's models are shown references."""
        own = self.policy.references if self.layer < self.plan.layers else None
        return own or self.plan.references

    @property
    def policy(self) -> Policy:
        """This layer's, if it is one of proposers."""
        return self.plan.policies[self.layer - 1]

    @property
    def lettered(self) -> bool:
        """Whether references are called A, B, … instead of 1, 2, …"""
        return self.plan.policies[self.layer_before - 1].lettered

    @property
    def aggregation_prompt(self) -> str:
        """What models are told to do with references: the run's, else the graph's."""
        return utf8(
            self.context.aggregation_prompt or self.shown.prompt or AGGREGATE_AND_SYNTHESIZE
        )

    @property
    def asked(self) -> str:
        """The text of the latest human message."""
        questions = [m.text for m in self.messages if isinstance(m, HumanMessage)]
        return utf8(str(questions[-1])) if questions else ""

    def references(self, reads: Reads | None = None) -> list[Proposal]:
        """The proposals that this step's models are shown, after what was selected of them.

        Args:
            reads: Which of these one model is shown; where it leaves none, all.

        Raises:
            NotEnoughProposals: If the layer before gave too few.
        """
        given = self.usable_before()
        selection = self._decision(f"select_{given[0]['layer']}") if given else None
        if selection is not None:
            by_name = {p["proposer"]: p for p in given}
            given = [
                by_name[name] | {"content": text_for_readers(by_name[name], selection)}
                for name in selection["kept"]
                if name in by_name
            ]
        return (reads(given) or given) if reads else given

    @property
    def decisions(self) -> list[Decision]:
        """What the steps of this turn have decided so far."""
        return [d for d in self.earlier_decisions if d["turn"] == self.turn]

    def _decision(self, step: str) -> Decision | None:
        return next((d for d in self.decisions if d["step"] == step), None)

    def usable_before(self) -> list[Proposal]:
        """The usable proposals of the layer before, in the proposers' order.

        Raises:
            NotEnoughProposals: If there are too few.
        """
        before = proposals_of_layer(self.proposals, self.layer_before)
        references = usable(before)
        if len(references) >= self.plan.policies[self.layer_before - 1].min_proposals:
            return references
        # A quorum leaves enough, so abandoned ones are those that the budget had no room for.
        over_budget = any(p["status"] == "abandoned" for p in before)
        late = self.run_timeout is not None and any(p["status"] == "timed_out" for p in before)
        if over_budget or late:
            for layer in range(self.layer_before, 0, -1):
                if what_there_is := usable(proposals_of_layer(self.proposals, layer)):
                    return what_there_is
        if over_budget:
            return []
        raise self.not_enough(self.layer_before, len(references))

    def not_enough(self, layer: int, count: int) -> NotEnoughProposals:
        """That a layer gave too few usable proposals, which ends the run."""
        before = proposals_of_layer(self.proposals, layer)
        reasons = "; ".join(
            f"{p['proposer']}: {p['error'] or p['status']}" for p in before if p["status"] != "ok"
        )
        self.end_run()
        policy = self.plan.policies[layer - 1]
        return NotEnoughProposals(
            f"Layer {layer} gave {count} usable proposals of "
            f"{policy.width}, and {policy.min_proposals} are needed. {reasons}",
            self.proposals,
        )

    def call(
        self,
        model: Runnable[Any, Any],
        question: Question,
        config: RunnableConfig,
        terms: Terms,
        callbacks: Sequence[BaseCallbackHandler] = (),
        until: float | None = None,
        settings: Settings | None = None,
    ) -> Call:
        """A call of a model within this step."""
        if config.get("max_concurrency") == self.plan.concurrency:
            # The graph's own, and no limit for an agent's tools.
            config = {k: v for k, v in config.items() if k != "max_concurrency"}  # type: ignore[assignment]
        if until is None and (left := self.seconds_left) is not None:
            until = time.monotonic() + left
        return Call(
            model,
            question,
            config,
            terms,
            settings=settings or Settings(),
            context=self.context,
            callbacks=callbacks,
            until=until,
        )

    def terms(self, model: Model, runnable: Runnable[Any, Any], *, last: bool = False) -> Terms:
        """How a model may be called; `last` for the aggregator's, which gives the answer."""
        budget = self._budget
        purse = None
        if budget is not None:
            prices = _prices(budget, model, runnable)
            ledger = self.run.ledger(lambda: self._new_ledger(budget))
            purse = Purse(ledger, highest(prices.values()), prices, always=last)
        return Terms(
            retries=self.plan.retries_of(runnable),
            slots=self.plan.calls.slots,
            names=model.names,
            purse=purse,
            once_shown=last,
        )

    @property
    def streams_proposals(self) -> bool:
        """Whether a stream of messages has the proposers' tokens."""
        streams = self.context.stream_proposals
        return self.plan.stream_proposals if streams is None else streams

    # --- how long it may take -------------------------------------------------------------

    @property
    def run(self) -> Run:
        """What this run's nodes share."""
        return self.plan.runs.of(self.runtime.control, self._namespace)

    def end_run(self) -> None:
        """The run has its answer, or will have none."""
        self.plan.runs.end(self.runtime.control, self._namespace)

    async def within(self, node: Coroutine[Any, Any, T]) -> T:
        """Run a node's coroutine; a run that is cancelled in it leaves no record behind."""
        try:
            return await node
        except sync.Cancelled:
            self.end_run()
            raise

    @property
    def quorum(self) -> Quorum | None:
        """The run's where this layer has room for it, else the layer's."""
        built, asked, grace = self.policy.quorum, self.context.quorum, self.context.grace
        if asked is not None and not self.policy.has_room(asked):
            asked = None
        if asked is None and (grace is None or built is None):
            return built
        return Quorum(
            asked or (built.proposals if built else 1),
            grace if grace is not None else built.grace if built else 0.0,
        )

    @property
    def timeout(self) -> float | None:
        """Seconds that this layer may take: the run's, else the layer's."""
        return self.context.timeout or self.policy.timeout

    @property
    def run_timeout(self) -> float | None:
        """The run's, else the graph's; seconds."""
        built = self.plan.limits.timeout if self.plan.limits else None
        return self.context.run_timeout or built

    @property
    def shared_layer(self) -> LayerWait:
        """This layer of this run."""
        info = self.runtime.execution_info
        return self.run.layer(self.layer, info.checkpoint_id if info else "", self.new_layer)

    def cuts(self, timeout: float | None) -> bool:
        """Whether a proposer, with that timeout of its own, may not be waited for to its end."""
        hedge = self.policy.hedge
        return any((timeout, self.quorum, hedge, self.timeout, self.run_timeout))

    @property
    def seconds_left(self) -> float | None:
        """What the run's timeout leaves for this step, and those after it; at least a moment."""
        if self.run_timeout is None:
            return None
        return max(0.001, self.run.started + self.run_timeout - time.monotonic())

    @property
    def side_wait(self) -> LayerWait:
        """How long a judge may take: a share of what the run's timeout leaves."""
        left = self.seconds_left
        steps = max(1, self.plan.layers - self.layer_before) + 1
        return LayerWait(
            1,
            None,
            None if left is None else left / steps,
            f"its share of the run's {self.run_timeout} s",
        )

    @property
    def last_wait(self) -> LayerWait:
        """How long the answer's model may take: what the run's timeout leaves."""
        return LayerWait(
            1, None, self.seconds_left, f"what was left of the run's {self.run_timeout} s"
        )

    @property
    def _later(self) -> float:
        """Seconds of the run's timeout that later layers have for themselves, where they overlap:
        most of their work is done when those before them end.
        """
        layers = self.context.layers or self.plan.layers
        return (self.run_timeout or 0.0) * (layers - self.layer) / (2 * layers)

    def new_growing_layer(self) -> LayerWait:
        """This step's layer while those before it still write: it may take as long as they do,
        and its own time besides.
        """
        timeout = self.timeout
        limits = [] if timeout is None else [timeout * self.layer]
        if (left := self.seconds_left) is not None and self.run_timeout is not None:
            limits.append(max(0.001, left - self._later))
        return LayerWait(self.policy.width, self.quorum, min(limits, default=None))

    def new_layer(self) -> LayerWait:
        """This step's layer, as if nobody had made it yet."""
        timeout = self.timeout
        why = "the layer's timeout"
        if (left := self.seconds_left) is not None:
            # The same share for each step that is to come, the aggregator's included.
            share = left / ((self.context.layers or self.plan.layers) - self.layer + 1)
            if self.plan.overlaps:
                share = max(0.001, left - self._later)
            if timeout is None or share < timeout:
                timeout, why = share, f"this layer's share of the run's {self.run_timeout:g} s"
        return LayerWait(self.policy.width, self.quorum, timeout, why)

    # --- what it may cost -------------------------------------------------------------------

    @property
    def _budget(self) -> RunLimits | None:
        built, tokens = self.plan.limits, self.context.token_budget
        if tokens is not None:
            usd, prices = (built.usd, built.prices) if built else (None, None)
            return RunLimits(tokens=tokens, usd=usd, prices=prices)
        return built if built and built.has_budget else None

    def _new_ledger(self, budget: RunLimits) -> Ledger:
        spent = Amount(0, 0.0)
        prices: dict[str, Price] = {}
        for model in self.plan.models:
            prices |= _prices(budget, model, model.built)
        for proposal in self._proposals_of_this_turn():
            if (usage := proposal["usage"]) and (price := prices.get(proposal["model"])):
                spent += Amount.used(usage, price)
        for decision in () if self.opens else self.decisions:
            if usage := decision["usage"]:
                spent += Amount(usage["total_tokens"], 0.0)
        layers = (self.context.layers or self.plan.layers) - 1
        calls = sum(policy.width for policy in self.plan.policies[self.layer - 1 : layers])
        return Ledger(budget, calls + 1, spent)

    def _proposals_of_this_turn(self) -> list[Proposal]:
        return [] if self.layer == 1 else self.proposals

    # --- what was answered before this process took over ------------------------------------

    async def stored(self) -> list[Proposal]:
        """Proposals of this layer that an interrupted run has left in its checkpoint."""
        saver, place = self._checkpoint
        if saver is None:
            return []
        checkpoint = await sync.either(
            lambda: saver.get_tuple(place), lambda: saver.aget_tuple(place)
        )
        return _pending(checkpoint, self.layer)

    @property
    def _checkpoint(self) -> tuple[BaseCheckpointSaver[Any] | None, RunnableConfig]:
        saver = checkpointer_in(self.config)
        info = self.runtime.execution_info
        if saver is None or info is None:
            return None, {}
        place = {
            "thread_id": info.thread_id,
            "checkpoint_ns": self._namespace,
            "checkpoint_id": info.checkpoint_id,
        }
        return saver, {"configurable": place}

    # --- what is told ---------------------------------------------------------------------

    def tell_layer_ended(self) -> None:
        """Tell the custom stream that the layer before is done."""
        if self.layer == 1:
            return
        before = proposals_of_layer(self.proposals, self.layer_before)
        ok = len(usable(before))
        self.runtime.stream_writer(
            LayerEnded(type="layer_ended", layer=self.layer_before, ok=ok, failed=len(before) - ok)
        )

    @property
    def layer_before(self) -> int:
        """The layer whose proposals are this step's references; 0 for the first."""
        if self.layer == self.plan.layers:
            for decision in self.decisions:
                if decision["outcome"] == "exit":
                    return decision["layer"]
        return min(self.layer, self.context.layers or self.plan.layers) - 1

    @property
    def turn(self) -> int:
        """The turn of the conversation that the run answers, from 1."""
        for draft in self.drafts.values():
            return draft["turn"]
        before = turn_of(self.proposals)
        if self.layer > 1:
            return before
        begun = turn_of(self.earlier_decisions)
        return begun if self.plan.routed and not self.opens else max(before, begun) + 1

    @property
    def drafts(self) -> dict[str, Draft]:
        """What the nodes have written of this turn's answer so far, by node."""
        return {
            node: draft
            for node, draft in self.earlier_drafts.items()
            if draft["question"] == self.question_key
        }

    def draft(self, node: str) -> Draft:
        """What a node has written so far; an empty draft where that is nothing."""
        return self.drafts.get(node) or Draft(
            node=node,
            question=self.question_key,
            turn=self.turn,
            pieces=[],
            tail="",
            tokens=0,
            ended=False,
            closed=False,
            views=[],
            usage=None,
            attempts=0,
            latency=0.0,
            message_id=f"run--{uuid4()}",
        )

    @property
    def question_key(self) -> str:
        """What tells this turn's question from every other of the thread."""
        last = self.messages[-1]
        return f"{last.id} {fence_of(str(last.content))}"

    @property
    def record_id(self) -> str:
        """An id for what this node writes: that of LangGraph's task, of which each has its own."""
        info = self.runtime.execution_info
        return info.task_id if info else uuid4().hex

    @property
    def attempt(self) -> int:
        """How often LangGraph has started this node, this time included."""
        info = self.runtime.execution_info
        return info.node_attempt if info else 1

    def seconds_since(self, started: float) -> float:
        """Seconds since the node's first attempt; `started` is this attempt's `perf_counter`."""
        info = self.runtime.execution_info
        if info and info.node_attempt > 1 and info.node_first_attempt_time:
            return time.time() - info.node_first_attempt_time
        return time.perf_counter() - started

    @property
    def _namespace(self) -> str:
        info = self.runtime.execution_info
        return info.checkpoint_ns.rpartition("|")[0] if info else ""


def _check_context(plan: Plan, context: MoAContext) -> None:
    if context.layers is not None and context.layers > plan.layers:
        raise ValueError(
            f"The context asks for {context.layers} layers, but this graph was built with "
            f"{plan.layers}: give create_moa(layers={context.layers}) or ask for fewer."
        )
    if context.quorum is None:
        return
    run = plan.policies[: (context.layers or plan.layers) - 1]
    if not any(policy.has_room(context.quorum) for policy in run):
        rooms = ", ".join(f"{policy.min_proposals} to {policy.width}" for policy in run)
        raise ValueError(
            f"The context asks for a quorum of {context.quorum}, for which no layer has room. The "
            f"layers take (min_proposals to proposers): {rooms}."
        )


def _prices(
    budget: RunLimits, model: Model, runnable: Runnable[Any, Any] | None
) -> dict[str, Price]:
    """The prices of all models that may answer for this one, by name."""
    if budget.usd is None:
        return {model.name: (0.0, 0.0)}
    others = chat_models_in(runnable) if runnable is not None else ()
    prices = {
        name_of_chat_model(one): price_of(budget, name_of_chat_model(one), provider_of(one))
        for one in others
    }
    return prices or {model.name: price_of(budget, model.name, model.provider)}


def _pending(checkpoint: CheckpointTuple | None, layer: int) -> list[Proposal]:
    writes = (checkpoint.pending_writes if checkpoint else None) or []
    return [
        proposal
        for _, channel, value in writes
        if channel == "proposals"
        for proposal in value
        if proposal["layer"] == layer
    ]
