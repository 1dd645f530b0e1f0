"""Staircase streaming: every layer starts on the first chunks of the previous layer.

All nodes of the graph are visited in rounds. In each round, every proposer of the first layer
returns the new text of its streaming call. Every later node writes its next piece from the text
that the previous layer had at the end of the last round. The checkpoint after a round has all of
the text.

Source: Wang et al., Staircase Streaming (arXiv 2510.05059).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp
from langgraph.types import Command

from moa_graph.calling import sync
from moa_graph.calling.answer import Answer, NoAnswer
from moa_graph.calling.callbacks import mark_run
from moa_graph.calling.streams import WrittenTokens, without_message_stream
from moa_graph.calling.waiting import LayerWait, Quorum
from moa_graph.models import Model, without_llm_cache
from moa_graph.nodes.aggregator import AggregatorNode, AnswerNode
from moa_graph.nodes.plan import AGGREGATOR, Plan
from moa_graph.nodes.proposer import ProposerNode
from moa_graph.nodes.settings import aggregator_settings, must_act, proposer_settings
from moa_graph.nodes.shared import Run
from moa_graph.nodes.step import Step
from moa_graph.progressive.live import LiveProposal, LiveProposerCall
from moa_graph.progressive.pace import pace_of
from moa_graph.progressive.piece_question import View
from moa_graph.progressive.pieces import LEAST, MOST, Staircase, first_share
from moa_graph.progressive.rounds import (
    Reader,
    all_was_in_view,
    how_it_failed,
    layer_of_turn,
    named,
    with_tail,
    with_unfinished,
)
from moa_graph.progressive.writing import IN_PARTS, Piece, PieceSetup
from moa_graph.progressive.written import piece_size, written_answer
from moa_graph.state import (
    Draft,
    MoAState,
    Proposal,
    ProposalStatus,
)


class StaircaseProposer(ProposerNode):
    """A proposer of the first layer: one streaming call that is read while it runs."""

    def __init__(self, plan: Plan, staircase: Staircase, **place: Any) -> None:
        super().__init__(plan, **place)
        self.staircase = staircase

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        return sync.run(step.within(self._visit(step, input)))

    async def ainvoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        return await step.within(self._visit(step, input))

    async def _visit(self, step: Step, state: MoAState) -> dict[str, Any]:
        for model in self.plan.models:
            await model.ready()
        draft = step.draft(self.node)
        if draft["ended"]:
            return {}
        run = step.run
        with run.visited():
            live = run.live.get(self.node)
            if not isinstance(live, LiveProposal):
                asking = LiveProposerCall(self, step, state, await self.model.here(), draft)
                if (
                    asking.cache
                    and asking.key
                    and (kept := await asking.cache.proposal(asking.key))
                ):
                    update = asking.answer_again(kept)
                    return update | {"drafts": {self.node: _ended(draft, kept["content"])}}
                live = run.live[self.node] = asking.live
                live.start(asking)
            try:
                await self._reach(step, run, live, draft)
                if not live.task.done() and draft["pieces"]:
                    # The round ends with the later layers' pieces. Until then, keep streaming.
                    await sync.until_either(live.task, run.written())
            except sync.Cancelled:
                live.cancel()
                raise
            if not live.task.done():
                return {"drafts": {self.node: live.draft(draft)}}
            run.live.pop(self.node, None)
            proposal = live.task.result()
        if live.cache and live.key and proposal["status"] == "ok":
            await live.cache.keep(live.key, proposal)
        mark_run(
            self.node,
            proposal["error"],
            moa_status=proposal["status"],
            moa_attempts=proposal["attempts"],
        )
        return {
            "drafts": {self.node: _ended(live.draft(draft))},
            "proposals": [proposal],
        }

    def _aim(self, step: Step, live: LiveProposal, draft: Draft) -> None:
        """Set the length that this visit waits for."""
        visits = len(draft["pieces"])
        if not visits and self.staircase.first is None:
            live.aim(LEAST, first_share(self.plan.layers), MOST)
            return
        # A model that is slow, or begins late, must not keep the later layers waiting.
        known = filter(None, (draft.get("pace"), pace_of(step.drafts)))
        layers, pace = self.plan.layers, min(known, default=None)
        sizes = (piece_size(self.staircase, layers, 1, i, pace) for i in range(visits + 1))
        live.aim(sum(sizes))

    async def _reach(self, step: Step, run: Run, live: LiveProposal, draft: Draft) -> None:
        """Wait for the visit's length, the end, or a quorum of the layer and its grace time."""
        self._aim(step, live, draft)
        layer = [node for node in run.live.values() if isinstance(node, LiveProposal)]
        signal = live.signal = layer[0].signal
        quorum = step.timing.quorum
        since: float | None = None
        while not live.there:
            left = live.seconds_left or None
            if quorum and _there(run, step, quorum):
                since = since or time.monotonic()
                grace = since + quorum.grace - time.monotonic()
                if grace <= 0:
                    return
                left = min(left or grace, grace)
            await signal.wait(left)


def _there(run: Run, step: Step, quorum: Quorum) -> bool:
    there = sum(isinstance(one, LiveProposal) and one.there for one in run.live.values())
    ended = sum(p["turn"] == step.turn and p["status"] == "ok" for p in layer_of_turn(step, 1))
    return there + ended >= quorum.proposals


class StaircaseReader(ProposerNode):
    """A proposer of a later layer, which writes piece by piece from the previous layer."""

    def __init__(
        self,
        plan: Plan,
        staircase: Staircase,
        before: Sequence[tuple[str, str]],
        **place: Any,
    ) -> None:
        super().__init__(plan, **place)
        self.reader = Reader(staircase, before)

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        return sync.run(step.within(self._visit(step)))

    async def ainvoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        return await step.within(self._visit(step))

    async def _visit(self, step: Step) -> dict[str, Any]:
        draft = step.draft(self.node)
        if draft["ended"]:
            return {}
        view = self.reader.view(step)
        if not self.reader.is_ready(step, draft, view):
            return {}
        with step.run.visited(), step.run.writing():
            piece, update, ended = await self._write(step, draft, view)
        result: dict[str, Any] = {"drafts": {self.node: update}}
        if ended:
            status, error = ended
            trimmed = piece.question.trimmed if piece else []
            text = "".join(update["pieces"]) if status == "ok" else ""
            proposal = self.record(
                step,
                status,
                content=text,
                error=error,
                usage=update["usage"],
                latency=update["latency"],
                attempts=update["attempts"],
                trimmed=trimmed,
                reasoning=update.get("reasoning", ""),
                dropped=piece.call.dropped if piece and piece.call else (),
                model=self.model.answering(piece.call.answered) if piece and piece.call else None,
            )
            if status == "ok":
                self._shared(step, view).answered(self.position, update["latency"])
            result["proposals"] = [proposal]
        return result

    def _shared(self, step: Step, view: View) -> LayerWait:
        """Return the `LayerWait` of this layer. Its time starts after the previous layers end."""
        if view.complete:
            return step.run.layer(self.layer, "complete", step.timing.new_layer)
        return step.run.layer(self.layer, "growing", step.timing.new_growing_layer)

    async def _write(
        self, step: Step, draft: Draft, view: View
    ) -> tuple[Piece | None, Draft, tuple[ProposalStatus, str | None] | None]:
        """Return the piece, the updated draft, and the status and error if the text has ended."""
        piece = None
        try:
            layer = self._shared(step, view)
            layer.check_open()
            if view.complete and all_was_in_view(draft, view):
                return None, with_tail(draft), ("ok", None)
            model = await self.model.here()
            model = without_llm_cache(model) if self.sample else model
            settings = proposer_settings(step)
            tuned = settings.applied(model)
            config = step.config if step.streams_proposals else without_message_stream(step.config)
            if not draft["pieces"]:
                self.tell_started(step)
            timeout = None if self.timeout is None else max(0.001, self.timeout - draft["latency"])
            piece = Piece(
                PieceSetup(
                    step,
                    model,
                    settings,
                    step.spending.terms(self.model, tuned),
                    config,
                    layer,
                    timeout,
                    hold=self.model.begins_in_reasoning,
                ),
                draft,
                view,
                size=self.reader.size(step, draft),
                note=IN_PARTS,
                messages=step.reading.proposers_conversation(tuned, self.prompt),
                last=view.complete,
            )
            update = await piece.write()
            self.model.begins_in_reasoning |= piece.answer.unopened
        except (GraphBubbleUp, sync.Cancelled):
            raise
        except Exception as error:  # whatever a model raises is recorded
            ended: Draft = {**(piece.with_spent(draft) if piece else draft), "ended": True}
            return piece, ended, how_it_failed(piece, error)
        if not (view.complete and update["closed"]):
            return piece, update, None
        update["ended"] = True
        if not "".join(update["pieces"]).strip():
            return piece, update, ("failed", piece.answer.why_empty)
        return piece, update, ("ok", None)


class StaircaseAggregator(AggregatorNode):
    """An aggregator that writes the answer piece by piece from the last layer.

    Args:
        plan: Settings that all nodes of the graph share.
        model: Its model.
        staircase: Sizes of the pieces.
        nodes: The proposers of every layer, because a run may skip the last layers.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        staircase: Staircase,
        nodes: Sequence[Sequence[ProposerNode]],
    ) -> None:
        super().__init__(plan, model)
        self._staircase = staircase
        self._nodes = nodes

    def paid_for(self, step: Step) -> list[Proposal]:
        """Return the proposals to put in an error, including unfinished ones."""
        return with_unfinished(step, self._nodes)

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        return AnswerNode.invoke(self, input, config, **kwargs)  # always on the shared event loop

    async def answer(self, step: Step) -> Any:
        """Write the next piece of the answer, in one visit."""
        given = step.earlier_drafts.get(AGGREGATOR)
        if given and given["ended"] and given["message_id"] == step.messages[-1].id:
            return {}  # already answered; a skipped layer ran after the answer
        draft = step.draft(AGGREGATOR)
        reader = Reader(self._staircase, named(self._nodes[step.layer_before - 1]))
        view = reader.view(step)
        whole = must_act(step)
        if not reader.is_ready(step, draft, view) or (whole and not view.complete):
            return self._visit_again(step)
        if whole:
            answered = await super().answer(step)
            answer: AIMessage = answered["messages"][0]
            if answer.id is None:
                answer.id = draft["message_id"]
            ended: Draft = {**draft, "ended": True, "message_id": answer.id}
            return {**answered, "drafts": {AGGREGATOR: ended}}
        piece = None
        tokens = WrittenTokens.of(draft["message_id"], step.config)
        try:
            if view.complete and all_was_in_view(draft, view):
                tokens.write(draft["tail"])
                await tokens.end()
                return self._finished(step, with_tail(draft), None)
            piece = await self._piece(step, draft, view, tokens, reader.size(step, draft))
            with step.run.visited(), step.run.writing():
                update = await piece.write()
            self.model.begins_in_reasoning |= piece.answer.unopened
            await tokens.end()
            if not (view.complete and update["closed"]):
                return {"drafts": {AGGREGATOR: update}}
            return self._finished(step, {**update, "ended": True}, piece)
        except BaseException as error:
            await tokens.end()
            if isinstance(error, Exception):
                self._fail(step, piece.call if piece else None, error)
            raise

    async def _piece(
        self, step: Step, draft: Draft, view: View, tokens: WrittenTokens, size: int
    ) -> Piece:
        """Return the next piece of the answer, before it is written."""
        model = await self.model.here()
        settings = aggregator_settings(step)
        tuned = settings.applied(model)
        if not draft["pieces"]:
            self._tell_started(step)
        setup = PieceSetup(
            step,
            model,
            settings,
            step.spending.terms(self.model, tuned, last=True),
            without_message_stream(step.config),
            step.timing.last_wait,
            hold=self.model.begins_in_reasoning,
            show=tokens.write,
        )
        return Piece(
            setup,
            draft,
            view,
            size=size,
            note=IN_PARTS,
            messages=step.reading.conversation(tuned, own=True),
            last=view.complete,
        )

    def _visit_again(self, step: Step) -> Any:
        """Return a command that visits every unfinished proposer again.

        Each proposer also has an edge to itself. But if LangGraph cancels a node directly after
        its state was written, because another node failed, a resumed run does not follow that edge.
        """
        nodes = (node for layer in self._nodes[: step.layer_before] for node in layer)
        return Command(goto=[n.node for n in nodes if not step.draft(n.node)["ended"]])

    def _finished(self, step: Step, draft: Draft, piece: Piece | None) -> dict[str, Any]:
        text = "".join(draft["pieces"])
        answer = piece.answer if piece else Answer(AIMessage(""))
        if not text.strip():
            raise NoAnswer(answer.why_empty)
        step.end_run()
        message = written_answer(self.model, draft, piece)
        return {"drafts": {AGGREGATOR: draft}, "messages": [message]}


def _ended(draft: Draft, text: str | None = None) -> Draft:
    pieces = draft["pieces"] if text is None else [*draft["pieces"], text]
    return {**draft, "pieces": pieces, "ended": True, "closed": True}
