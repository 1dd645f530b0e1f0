"""Return one proposal unchanged as the answer, chosen by a judge or by agreement."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage

from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes.aggregator import AnswerNode
from moa_graph.nodes.decision import decided
from moa_graph.nodes.plan import AGGREGATOR, Plan
from moa_graph.nodes.step import Step
from moa_graph.state import Decision, Proposal
from moa_graph.strategies.aggregate import AnswerStrategy, ChoosingNode, word_for_word
from moa_graph.strategies.checks import check_comparable
from moa_graph.strategies.judge import Case, Verdict, judge, numbers_in
from moa_graph.strategies.similarity import most_central, similarities

if TYPE_CHECKING:
    from langchain_core.embeddings import Embeddings

RANKER = (
    "You are given a user's query and responses of several models to it. Decide which one is the "
    "best answer: correct first, then complete, then clear. Judge what they say, neither their "
    "length nor their order. Reply with the number of the best response and nothing else."
)
"""Instructions for the judge."""

_AGAIN = "Reply with one number from 1 to {highest}, and nothing else."


class Rank(AnswerStrategy):
    """Answer with the proposal that a judge model chooses (the paper's LLM ranker).

    This strategy makes one short call instead of a synthesis. Its answer cannot be better than
    the best proposal. The text of the proposal is returned unchanged. If the judge's verdict
    cannot be parsed, the judge is asked again once. If there is still no verdict, the answer is
    the proposal that is most similar to the others, and the failure is recorded.

    Args:
        judge: Model that chooses the proposal.
        embeddings: Embeddings that compare meaning; by default words are compared.

    Raises:
        TypeError: If `judge` is not a model.
        ValueError: If scikit-learn is not installed and no embeddings are given.

    Source: arXiv 2406.04692, section 3.3 ("LLM-Ranker").
    """

    whole = True

    def __init__(self, judge: ModelLike, *, embeddings: Embeddings | str | None = None) -> None:
        check_comparable("Rank", embeddings)
        self.judge = as_model(judge, "Rank(judge=…)")
        self.embeddings = embeddings

    @property
    def models(self) -> Sequence[Model]:
        """See `AnswerStrategy`."""
        return [self.judge]

    def node(self, plan: Plan) -> AnswerNode:
        """See `AnswerStrategy`."""
        return _RankNode(plan, self)


class MostCentral(AnswerStrategy):
    """Answer with the proposal that is most similar to the others, without a model call.

    Args:
        embeddings: Embeddings that compare meaning; by default words are compared.

    Raises:
        ValueError: If scikit-learn is not installed and no embeddings are given.
    """

    whole = True

    def __init__(self, *, embeddings: Embeddings | str | None = None) -> None:
        check_comparable("MostCentral", embeddings)
        self.embeddings = embeddings

    def node(self, plan: Plan) -> AnswerNode:
        """See `AnswerStrategy`."""
        return _CentralNode(plan, self.embeddings)


class _RankNode(ChoosingNode):
    def __init__(self, plan: Plan, rank: Rank) -> None:
        super().__init__(plan, f"Rank({rank.judge.name})")
        self._rank = rank

    async def choose(self, references: list[Proposal], step: Step) -> tuple[AIMessage, Decision]:
        verdict: Verdict[list[int]] = Verdict([1], None, None, 0)
        if len(references) > 1:
            verdict = await judge(
                step,
                self._rank.judge,
                Case(step.asked, references, RANKER, choose=1),
                lambda said: numbers_in(said, len(references), 1),
                _AGAIN.format(highest=len(references)),
            )
        if verdict.value is not None:
            place, by = verdict.value[0] - 1, "judge"
        else:
            place, by = await central_place(references, step, self._rank.embeddings), "agreement"
        return chosen_proposal(step, references, place, by, verdict)


class _CentralNode(ChoosingNode):
    def __init__(self, plan: Plan, embeddings: Embeddings | str | None) -> None:
        super().__init__(plan, "MostCentral")
        self._embeddings = embeddings

    async def choose(
        self,
        references: list[Proposal],
        step: Step,
    ) -> tuple[AIMessage, Decision]:
        place = await central_place(references, step, self._embeddings)
        return chosen_proposal(step, references, place, "agreement", Verdict(None, None, None, 0))


async def central_place(
    references: Sequence[Proposal], step: Step, embeddings: Embeddings | str | None
) -> int:
    """Return the place of the proposal that is most similar to the others."""
    texts = [p["content"] for p in references]
    return most_central(await similarities(texts, step.asked, embeddings))


def chosen_proposal(
    step: Step, references: list[Proposal], place: int, by: str, verdict: Verdict[list[int]]
) -> tuple[AIMessage, Decision]:
    """Return a proposal as the answer, with the record of the decision.

    Args:
        step: Current step of the run.
        references: The proposals.
        place: Position of the chosen one.
        by: Basis of the decision.
        verdict: Verdict of the judge, with its usage.
    """
    best = references[place]
    decision = decided(
        step,
        AGGREGATOR,
        best["layer"],
        "chosen",
        kept=[best],
        left_out={p["proposer"]: "not chosen" for p in references if p is not best},
        by=by,
        error=verdict.error,
        usage=verdict.usage,
        attempts=verdict.attempts,
    )
    return word_for_word(best), decision
