"""Chunk-wise aggregation: proposers write each next chunk from the aggregated text.

The graph loops over its layers. In each round, every proposer continues the current answer by one
chunk, and the aggregator writes the next piece of the answer from these chunks.

Source: named as future work in arXiv 2406.04692, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langgraph.errors import GraphBubbleUp

from moa_graph.calling import sync
from moa_graph.calling.answer import Answer, NoAnswer
from moa_graph.calling.streams import WrittenTokens, without_message_stream
from moa_graph.models import Model, without_llm_cache
from moa_graph.nodes.aggregator import AggregatorNode, AnswerNode
from moa_graph.nodes.plan import AGGREGATOR, Plan
from moa_graph.nodes.proposer import ProposerNode
from moa_graph.nodes.settings import aggregator_settings, must_act, proposer_settings
from moa_graph.nodes.step import Step
from moa_graph.progressive.piece_question import View
from moa_graph.progressive.pieces import Chunkwise
from moa_graph.progressive.rounds import (
    how_it_failed,
    layer_of_turn,
    named,
    with_tail,
    with_unfinished,
)
from moa_graph.progressive.writing import IN_CHUNKS, Piece, PieceSetup
from moa_graph.progressive.written import written_answer
from moa_graph.state import Draft, MoAState, Proposal

Nodes = Sequence[tuple[str, str]]
"""The nodes of a layer, each with its proposer's name."""


class ChunkProposer(ProposerNode):
    """A proposer that writes one chunk per visit."""

    def __init__(self, plan: Plan, chunkwise: Chunkwise, before: Nodes, **place: Any) -> None:
        super().__init__(plan, **place)
        self.chunkwise = chunkwise
        self.before = before

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        if must_act(step):
            return super().invoke(input, config, **kwargs)
        return sync.run(step.within(self._visit(step)))

    async def ainvoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        if (step := Step.of(self.plan, self.layer, input, config)) is None:
            return {}
        if must_act(step):
            return await super().ainvoke(input, config, **kwargs)
        return await step.within(self._visit(step))

    async def _visit(self, step: Step) -> dict[str, Any]:
        for needed in self.plan.models:
            await needed.ready()
        draft = step.draft(self.node)
        if draft["ended"]:
            return {}
        if self.before:
            _, view = chunks(step, [*[()] * (self.layer - 2), self.before])
        else:
            view = View({}, {}, complete=False)
        aggregated = step.draft(AGGREGATOR)
        piece = None
        try:
            layer = step.timing.shared_layer
            layer.check_open()
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
                ),
                # It continues the answer, not its own chunks.
                {**draft, "pieces": aggregated["pieces"], "tokens": aggregated["tokens"]},
                view,
                size=self.chunkwise.size(len(aggregated["pieces"])),
                note=IN_CHUNKS,
                messages=step.reading.proposers_conversation(tuned, self.prompt),
                last=False,
                fresh=True,
            )
            written = await piece.write()
        except (GraphBubbleUp, sync.Cancelled):
            raise
        except Exception as error:  # whatever a model raises is recorded
            return self._failure(step, draft, piece, error)
        update: Draft = {
            **written,
            "pieces": [*draft["pieces"], written["pieces"][-1]],
            "views": [],
        }
        layer.answered(self.position, update["latency"])
        return {"drafts": {self.node: update}}

    def _failure(
        self, step: Step, draft: Draft, piece: Piece | None, error: Exception
    ) -> dict[str, Any]:
        status, reason = how_it_failed(piece, error)
        ended: Draft = {**(piece.with_spent(draft) if piece else draft), "ended": True}
        proposal = self.record(
            step,
            status,
            content="",
            error=reason,
            usage=ended["usage"],
            latency=ended["latency"],
            attempts=ended["attempts"],
            trimmed=[],
        )
        return {"drafts": {self.node: ended}, "proposals": [proposal]}

    def finished(self, step: Step) -> Proposal | None:
        """Return its record at the end of the run; None if its failure is already recorded."""
        draft = step.draft(self.node)
        if draft["ended"]:
            return None
        text = "".join([*draft["pieces"], draft["tail"]])
        said = bool(text.strip())
        return self.record(
            step,
            "ok" if said else "failed",
            content=text if said else "",
            error=None if said else "the answer was empty",
            usage=draft["usage"],
            latency=draft["latency"],
            attempts=draft["attempts"],
            trimmed=[],
            reasoning=draft.get("reasoning", ""),
        )


class ChunkAggregator(AggregatorNode):
    """An aggregator that writes the next piece of the answer from the last layer's chunks.

    Args:
        plan: Settings that all nodes of the graph share.
        model: Its model.
        chunkwise: Sizes of the chunks.
        layers: The proposers of each layer.
    """

    def __init__(
        self,
        plan: Plan,
        model: Model,
        chunkwise: Chunkwise,
        layers: Sequence[Sequence[ProposerNode]],
    ) -> None:
        super().__init__(plan, model)
        self._chunkwise = chunkwise
        self._layers = layers

    def invoke(
        self, input: MoAState, config: RunnableConfig | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        return AnswerNode.invoke(self, input, config, **kwargs)  # always on the shared event loop

    def paid_for(self, step: Step) -> list[Proposal]:
        """Return the proposals to put in an error, including unfinished ones."""
        return with_unfinished(step, self._layers)

    async def answer(self, step: Step) -> dict[str, Any]:
        """Write the next piece of the answer, in one visit."""
        draft = step.draft(AGGREGATOR)
        if must_act(step):
            update = await super().answer(step)
            return {**update, "drafts": {AGGREGATOR: {**draft, "ended": True}}}
        before = [named(layer) for layer in self._layers[: step.layer_before]]
        ended, view = chunks(step, before, last=True)
        tokens = WrittenTokens.of(draft["message_id"], step.config)
        piece = None
        try:
            if not draft["pieces"]:
                self._tell_started(step)
            nothing_new = not any(view.texts.values())
            if nothing_new and draft["closed"] and draft["pieces"]:
                tokens.write(draft["tail"])
                draft = with_tail(draft)
            else:
                model = await self.model.here()
                settings = aggregator_settings(step)
                tuned = settings.applied(model)
                setup = PieceSetup(
                    step,
                    model,
                    settings,
                    step.spending.terms(self.model, tuned, last=True),
                    without_message_stream(step.config),
                    step.timing.last_wait,
                    show=tokens.write,
                )
                size = self._chunkwise.size(len(draft["pieces"]))
                last = ended
                while True:
                    piece = Piece(
                        setup,
                        draft,
                        view,
                        size=size,
                        note=IN_CHUNKS,
                        messages=step.reading.conversation(tuned, own=True),
                        last=last,
                        fresh=True,
                    )
                    draft = await piece.write()
                    if draft["pieces"][-1] or draft["closed"]:
                        break
                    last = True  # a reasoning model may need more tokens than one chunk
            await tokens.end()
        except BaseException as error:
            await tokens.end()
            if isinstance(error, Exception):
                self._fail(step, piece.call if piece else None, error)
            raise
        added = bool(draft["pieces"][-1])
        if draft["closed"] and (ended or nothing_new or not added):
            if draft["tail"]:
                tokens.write(draft["tail"])
                await tokens.end()
                draft = with_tail(draft)
            return self._finished(step, draft, piece)
        return {"drafts": {AGGREGATOR: draft}}

    def _finished(self, step: Step, draft: Draft, piece: Piece | None) -> dict[str, Any]:
        text = "".join(draft["pieces"])
        answer = piece.answer if piece else Answer(AIMessage(""))
        if not text.strip():
            self._fail(step, None, NoAnswer(answer.why_empty))
        built = (node for layer in self._layers[: step.layer_before] for node in layer)
        proposals = [
            p for node in built if isinstance(node, ChunkProposer) and (p := node.finished(step))
        ]
        step.end_run()
        return {
            "drafts": {AGGREGATOR: {**draft, "ended": True}},
            "proposals": proposals,
            "messages": [written_answer(self.model, draft, piece)],
        }


def chunks(step: Step, layers: Sequence[Nodes], *, last: bool = False) -> tuple[bool, View]:
    """Return the chunks of a layer in this round.

    Args:
        step: The view of the run.
        layers: The nodes of every layer before the step. The last of these layers is read.
        last: Whether the step makes the answer. If so, and time or budget left too few proposers
            in the layer, it uses an earlier layer, or only its own text.

    Returns:
        Whether all proposers ended their texts themselves, and the chunks.

    Raises:
        NotEnoughProposals: If too few proposers are left.
    """
    layer = len(layers)
    failed = layer_of_turn(step, layer)
    names = {p["proposer"] for p in failed}
    left = [(node, name) for node, name in layers[-1] if name not in names]
    if len(left) < step.plan.policies[layer - 1].min_proposals:
        cut = any(p["status"] in ("abandoned", "timed_out") for p in failed)
        if last and cut and layer > 1:
            return chunks(step, layers[:-1], last=last)
        if not (last and cut and step.draft(AGGREGATOR)["pieces"]):
            raise step.reading.not_enough(layer)
        return True, View({}, {}, complete=True)
    drafts = {node: step.draft(node) for node, _ in left}
    texts = {node: draft["pieces"][-1] if draft["pieces"] else "" for node, draft in drafts.items()}
    labels = {node: str(place) for place, (node, _) in enumerate(left, 1)}
    ended = all(draft["closed"] for draft in drafts.values())
    return ended, View(texts, labels, complete=False)
