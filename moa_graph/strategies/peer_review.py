"""Let the proposers score each other's answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage

from moa_graph.calling.references import Question
from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes.aggregator import AggregatorNode, AnswerNode
from moa_graph.nodes.decision import DecidingNode, decided
from moa_graph.nodes.plan import Plan
from moa_graph.nodes.step import Step
from moa_graph.state import Decision, Proposal, total_usage
from moa_graph.strategies.aggregate import AnswerStrategy, ChoosingNode
from moa_graph.strategies.checks import check_comparable, check_whole
from moa_graph.strategies.judge import Case, Verdict, judge
from moa_graph.strategies.rank import central_place, chosen_proposal

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

NODE = "peer_review"
REVIEW = (
    "You are given a user's query and responses of other models to it. Score each response from 1 "
    "(useless or wrong) to 10 (correct, complete and clear). Judge what they say, neither their "
    "length nor their order nor how certain they sound. Reply with one line: the {count} scores in "
    "the order of the responses, separated by commas, and nothing else."
)
"""Instructions for a reviewer."""

_AGAIN = "Reply with one line of {count} numbers from 1 to 10, separated by commas."
_LOWEST, _HIGHEST = 1.0, 10.0
_OF_TEN = r"(?:\s*(?:/|out of)\s*10)?"
_ONE = rf"\d+(?:\.\d+)?{_OF_TEN}"
_SCORE = re.compile(rf"(\d+(?:\.\d+)?){_OF_TEN}")
_PREFIX = re.compile(r"^(?:the\s+)?scores?\W*", re.IGNORECASE)
_ROW = re.compile(
    rf"(?:(?:the\s+)?scores?\W*)?[\[(]?{_ONE}(?:\s*[,;|]\s*{_ONE}|\s+{_ONE})*[\])]?\.?",
    re.IGNORECASE,
)
_LABELLED = re.compile(
    rf"(?:(?:response|answer|model|no)\W*)?(\d+)\W*[:.=)–-]\W*(\d+(?:\.\d+)?){_OF_TEN}\W*",
    re.IGNORECASE,
)
_AROUND = " *_`#>•\t"
_ROUNDS = 100
_TOP = 3


class PeerReview(AnswerStrategy):
    """Answer with the proposal that the proposers score highest, or synthesize the best ones.

    Each proposer scores the answers of the others, without their names and never its own, in one
    call. A reviewer that scores all answers high or low has no advantage: scores are compared
    after the difference between reviewers was estimated and subtracted. With two proposers, which
    score one answer each, there is nothing to estimate it from, and the scores count as they are.

    A review that fails is recorded, and the others decide. If they leave a proposal without a
    score, none counts: the writer sees all proposals; without a writer, the answer is the proposal
    that is most similar to the others.

    Args:
        writer: Model that synthesizes the best proposals; by default the best proposal is the
            answer, word for word.
        top: Number of proposals for the writer, at least 1; 3 by default.
        embeddings: Embeddings that compare meaning if all reviews fail; by default words are
            compared.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If `top` is less than 1 or given without a writer, or scikit-learn is not
            installed and neither a writer nor embeddings are given.

    Source: arXiv 2512.23213 (peer review among models), and the council projects.
    """

    def __init__(
        self,
        writer: ModelLike | None = None,
        *,
        top: int | None = None,
        embeddings: Embeddings | str | None = None,
    ) -> None:
        self._writer = None if writer is None else as_model(writer, "PeerReview(writer=…)")
        if top is not None:
            check_whole("PeerReview(top=…)", top)
        if self._writer is None:
            if top is not None:
                raise ValueError(
                    "PeerReview(top=…) is the number of proposals for the writer: give "
                    "PeerReview(writer, top=…)."
                )
            check_comparable("PeerReview", embeddings)
        elif embeddings is not None:
            raise ValueError("PeerReview() takes a writer or embeddings, not both.")
        self.top = top or _TOP
        self.embeddings = embeddings
        self.whole = self._writer is None

    @property
    def models(self) -> Sequence[Model]:
        """See `AnswerStrategy`."""
        return [self._writer] if self._writer else []

    @property
    def writer(self) -> Model | None:
        """See `AnswerStrategy`."""
        return self._writer

    def check(self, proposers: Collection[str]) -> None:
        """See `AnswerStrategy`."""

    def before(self, plan: Plan) -> DecidingNode:
        """See `AnswerStrategy`."""
        return _ReviewNode(plan, self)

    def node(self, plan: Plan) -> AnswerNode:
        """See `AnswerStrategy`."""
        return _WriterNode(plan, self._writer) if self._writer else _BestNode(plan, self)


class _ReviewNode(DecidingNode):
    def __init__(self, plan: Plan, review: PeerReview) -> None:
        super().__init__(plan, NODE, plan.layers - 1)
        self._review = review

    def _step(self, state: Any, config: Any) -> Step | None:
        # An early exit or the run's context can make any layer the last one.
        return Step.of(self.plan, self.plan.layers, state, config)

    async def decide(self, step: Step) -> dict[str, Any]:
        """See `DecidingNode`."""
        references = step.reading.references()
        reviewers = _reviewers(step, references)
        verdicts = await asyncio.gather(
            *(_scores(step, model, references, place) for place, model in reviewers.items())
        )
        scores = {
            place: verdict.value
            for place, verdict in zip(reviewers, verdicts, strict=True)
            if verdict.value is not None
        }
        if len({place for given in scores.values() for place in given}) < len(references):
            scores = {}  # an answer that nobody has scored is neither good nor bad
        merits = unbiased(scores, len(references))
        order = sorted(range(len(references)), key=lambda i: (-round(merits[i], 9), i))
        most = self._review.top if self._review.writer else 1
        kept = order[:most] if scores else list(range(len(references)))
        reasons = {references[i]["proposer"]: f"score {merits[i]:.1f}" for i in order[most:]}
        errors = [verdict.error for verdict in verdicts if verdict.error]
        decision = decided(
            step,
            NODE,
            references[0]["layer"] if references else step.layer_before,
            "kept" if scores or len(references) <= 1 else "failed",
            kept=[references[i] for i in kept],
            left_out=reasons if scores else {},
            by="peers" if scores else "all",
            error="; ".join(errors) or None,
            usage=total_usage(verdict.usage for verdict in verdicts),
            attempts=sum(verdict.attempts for verdict in verdicts),
        )
        if scores:
            decision["scores"] = {references[i]["proposer"]: round(merits[i], 4) for i in order}
        return {"decisions": [decision]}


def _reviewers(step: Step, references: Sequence[Proposal]) -> dict[int, Model]:
    """Return the models that review: those of the proposals, by place; none of a single one."""
    if len(references) <= 1:
        return {}
    models = {i: _model_of(step.plan, reference) for i, reference in enumerate(references)}
    return {i: model for i, model in models.items() if model is not None}


def _model_of(plan: Plan, proposal: Proposal) -> Model | None:
    """Return the model that was asked for a proposal; None if the graph has it no more."""
    layer = proposal["layer"] - 1
    asked = proposal.get("asked_model", proposal["model"])
    reserve = plan.reserves[layer] if "replaces" in proposal else ()
    own = [member for member in plan.members[layer] if member.name == proposal["proposer"]]
    found = [*(member for member in reserve if member.model.name == asked), *own]
    return found[0].model if found else None


async def _scores(
    step: Step, model: Model, references: Sequence[Proposal], own: int
) -> Verdict[dict[int, float]]:
    """Ask one reviewer for its scores of the others, by place."""
    # Each reviewer begins with the one after its own, so that no answer is always read first.
    places = [(own + i) % len(references) for i in range(1, len(references))]
    task = REVIEW.format(count=len(places))
    verdict = await judge(
        step,
        model,
        Case(step.asked, [references[i] for i in places], task, choose=0),
        lambda said: scores_in(said, len(places)),
        _AGAIN.format(count=len(places)),
    )
    scores = None if verdict.value is None else dict(zip(places, verdict.value, strict=True))
    return Verdict(scores, verdict.error, verdict.usage, verdict.attempts)


def scores_in(text: str, count: int) -> list[float] | None:
    """Return the scores of `count` responses, from 1 to 10; None if a text does not say them.

    They are in one line of nothing but numbers (`7, 9`, `Scores: 7/10, 9/10`), the last of several;
    or in a line for each response that begins with its number (`Response 1: 7`, `2. 9`).
    """
    lines = [line.strip(_AROUND) for line in text.splitlines()]
    for line in reversed(lines):
        if _ROW.fullmatch(line):
            found = [float(score) for score in _SCORE.findall(_PREFIX.sub("", line))]
            if len(found) == count:
                return found if all(map(_is_score, found)) else None
    labelled = [match for line in lines if (match := _LABELLED.fullmatch(line))]
    by_label = {int(match[1]): float(match[2]) for match in labelled}
    complete = len(labelled) == count and sorted(by_label) == list(range(1, count + 1))
    if not complete or not all(map(_is_score, by_label.values())):
        return None
    return [by_label[label] for label in range(1, count + 1)]


def _is_score(value: float) -> bool:
    return _LOWEST <= value <= _HIGHEST


def unbiased(scores: Mapping[int, Mapping[int, float]], count: int) -> list[float]:
    """Return the merit of each proposal: its mean score without the differences of reviewers.

    The scores are explained as the sum of a proposal's merit and a reviewer's severity, by least
    squares.

    Args:
        scores: Scores by reviewer and proposal; no reviewer scores its own.
        count: Number of proposals.

    Returns:
        The merits, on the scale of the scores; 0 for a proposal without a score.
    """
    by_proposal: dict[int, dict[int, float]] = {}
    for reviewer, given in scores.items():
        for proposal, score in given.items():
            by_proposal.setdefault(proposal, {})[reviewer] = score
    severity = dict.fromkeys(scores, 0.0)
    merits: dict[int, float] = {}
    for _ in range(_ROUNDS):
        merits = {
            proposal: sum(score - severity[r] for r, score in given.items()) / len(given)
            for proposal, given in by_proposal.items()
        }
        severity = {
            reviewer: sum(score - merits[p] for p, score in given.items()) / len(given)
            for reviewer, given in scores.items()
        }
        centre = sum(severity.values()) / len(severity) if severity else 0.0
        severity = {reviewer: value - centre for reviewer, value in severity.items()}
    return [merits.get(i, 0.0) for i in range(count)]


def _kept(step: Step, references: Sequence[Proposal]) -> list[Proposal]:
    """Return the references that the review has kept, the best first; all if it failed."""
    decision = step.decision(NODE)
    names = decision["kept"] if decision else []
    by_name = {reference["proposer"]: reference for reference in references}
    return [by_name[name] for name in names if name in by_name] or list(references)


class _BestNode(ChoosingNode):
    def __init__(self, plan: Plan, review: PeerReview) -> None:
        super().__init__(plan, "PeerReview")
        self._embeddings = review.embeddings

    async def choose(self, references: list[Proposal], step: Step) -> tuple[AIMessage, Decision]:
        kept = _kept(step, references)
        best, by = kept[0], "peers"
        if len(kept) > 1:  # no review
            best, by = kept[await central_place(kept, step, self._embeddings)], "agreement"
        none: Verdict[list[int]] = Verdict(None, None, None, 0)
        return chosen_proposal(step, references, references.index(best), by, none)


class _WriterNode(AggregatorNode):
    def _question(self, step: Step, model: Any) -> Question:
        kept = _kept(step, step.reading.references())
        return step.reading.asking(model, kept, step.reading.conversation(model, own=True))
