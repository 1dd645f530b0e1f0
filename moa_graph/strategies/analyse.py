"""Analyse the agreement and contradictions of the references, then write the answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moa_graph.calling.references import Question
from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes.aggregator import AggregatorNode, AnswerNode
from moa_graph.nodes.ask import ask
from moa_graph.nodes.decision import DecidingNode, decided
from moa_graph.nodes.plan import Plan
from moa_graph.nodes.step import Step
from moa_graph.prompts import Place, fence_of, fenced, instructed
from moa_graph.strategies.aggregate import AnswerStrategy

ANALYSE = (
    "You have been provided with a set of responses from various models to the latest user query. "
    "Do not answer the query yet. Analyse the responses for the one who will, in five short "
    "lists:\n"
    "Consensus: what they agree on.\n"
    "Contradictions: where they contradict each other, and who is probably right and why.\n"
    "Gaps: what the query asks for and no response covers.\n"
    "Unique points: what only one response says and is worth keeping.\n"
    "Errors: what is wrong or unfounded, though several may say it.\n"
    "\n"
    "Responses from models:"
)
"""Instructions for the analyst model; the responses follow."""

USE_ANALYSIS = (
    "An analysis of these responses follows. It may be wrong too: use it to check them, to settle "
    "what they contradict each other in, and to fill the gaps. Answer the query itself; mention "
    "neither the responses nor the analysis.\n"
    "\n"
    "Analysis:\n"
)
"""Instructions added to the writer's aggregation prompt; the analysis follows."""

NODE = "analysis"


class Analyse(AnswerStrategy):
    """Analyse the references (consensus, contradictions, gaps, errors), then write the answer.

    This strategy makes one more call than plain synthesis. If the analyst fails, the failure is
    recorded and the answer is written without an analysis.

    Args:
        writer: Model that writes the answer from the references and the analysis.
        analyst: Model that writes the analysis; the writer by default.

    Raises:
        TypeError: If an argument is not a model.
    """

    def __init__(self, writer: ModelLike, *, analyst: ModelLike | None = None) -> None:
        self._writer = as_model(writer, "Analyse(writer=…)")
        self.analyst = self._writer if analyst is None else as_model(analyst, "Analyse(analyst=…)")

    @property
    def models(self) -> Sequence[Model]:
        """See `AnswerStrategy`."""
        return [self.analyst, self._writer]

    @property
    def writer(self) -> Model:
        """See `AnswerStrategy`."""
        return self._writer

    def before(self, plan: Plan) -> DecidingNode:
        """See `AnswerStrategy`."""
        return _AnalysisNode(plan, self.analyst)

    def node(self, plan: Plan) -> AnswerNode:
        """See `AnswerStrategy`."""
        return _WriterNode(plan, self._writer)


class _AnalysisNode(DecidingNode):
    def __init__(self, plan: Plan, model: Model) -> None:
        super().__init__(plan, NODE, plan.layers - 1)
        self._model = model

    def _step(self, state: Any, config: Any) -> Step | None:
        # An early exit or the run's context can make any layer the last one.
        return Step.of(self.plan, self.plan.layers, state, config)

    async def decide(self, step: Step) -> dict[str, Any]:
        """See `DecidingNode`."""
        references = step.reading.references()
        reply = await ask(
            step, self._model, lambda model: step.reading.asking(model, references, prompt=ANALYSE)
        )
        text = reply.answer.text if reply.answer and not reply.answer.filtered else ""
        why = reply.why_unusable
        decision = decided(
            step,
            NODE,
            step.layer_before,
            "analysed" if text else "failed",
            kept=references,
            by=self._model.name,
            error=f"The analyst {self._model.name} failed: {why}" if why else None,
            usage=reply.usage,
            attempts=reply.attempts,
            texts={NODE: text} if text else None,
        )
        return {"decisions": [decision]}


class _WriterNode(AggregatorNode):
    def _question(self, step: Step, model: Any) -> Question:
        texts = [d.get("texts", {}).get(NODE, "") for d in step.decisions if d["step"] == NODE]
        question = step.reading.question(model, own=True)
        if not (texts and texts[0]):
            return question
        analysis = texts[0]
        if step.reading.shown.fenced:
            analysis = fenced(analysis, "analysis", fence_of("analysis", analysis))
        return _WithAnalysis(question, analysis, step.reading.place_for(model))


class _WithAnalysis(Question):
    """A question with an analysis after the references."""

    def __init__(self, question: Question, analysis: str, place: Place) -> None:
        self._inner = question
        self._analysis = analysis
        self._place = place

    @property
    def messages(self) -> Any:
        return instructed(self._inner.messages, USE_ANALYSIS + self._analysis, self._place)

    @property
    def trimmed(self) -> Any:
        return self._inner.trimmed

    @property
    def place(self) -> Any:
        return self._inner.place

    def prepare(self, model: Any) -> Any:
        return self._inner.prepare(model)

    def shorten(self, *, guess: bool = False) -> bool:
        return self._inner.shorten(guess=guess)
