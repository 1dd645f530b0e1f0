"""Compare two answers with a judge, in both orders.

Zheng et al. (arXiv 2306.05685), section 3.4: a judge may prefer the answer that it reads first, so
each pair is judged in both orders, and the two preferences are averaged. The prompts are verbatim
from FastChat (Apache-2.0): `pair-v2`, and with a reference answer `pair-math-v1`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from langchain_core.messages import HumanMessage, SystemMessage

from moa_graph.errors import MoAError
from moa_graph.evals import intervals
from moa_graph.evals.files import EvalError, Row
from moa_graph.evals.intervals import Interval
from moa_graph.evals.targets import AnswerFailed, Target

ORDERS = ("target first", "baseline first")
_VERDICT = re.compile(r"\[\[([ABC])\]\]")
_TIE = 0.5
_BIASED = 0.05  # significance level of the test for position bias
_CRITERIA = (
    "You should choose the assistant that follows the user's instructions and answers the user's "
    "question better. Your evaluation should consider factors such as the helpfulness, relevance, "
    "accuracy, depth, creativity, and level of detail of their responses. Begin your evaluation by "
    "comparing the two responses and provide a short explanation. "
)
_FAIRLY = (
    "Avoid any position biases and ensure that the order in which the responses were presented "
    "does not influence your decision. Do not allow the length of the responses to influence your "
    "evaluation. Do not favor certain names of the assistants. Be as objective as possible. After "
    "providing your explanation, output your final verdict by strictly following this format: "
    '"[[A]]" if assistant A is better, "[[B]]" if assistant B is better, and "[[C]]" for a tie.'
)
SYSTEM = (
    "Please act as an impartial judge and evaluate the quality of the responses provided by two AI "
    f"assistants to the user question displayed below. {_CRITERIA}{_FAIRLY}"
)
SYSTEM_WITH_REFERENCE = (
    "Please act as an impartial judge and evaluate the quality of the responses provided by two AI "
    "assistants to the user question displayed below. Your evaluation should consider correctness "
    "and helpfulness. You will be given a reference answer, assistant A's answer, and assistant "
    "B's answer. Your job is to evaluate which assistant's answer is better. Begin your evaluation "
    "by comparing both assistants' answers with the reference answer. Identify and correct any "
    f"mistakes. {_FAIRLY}"
)
_QUESTION = "[User Question]\n{question}\n\n"
_REFERENCE = "[The Start of Reference Answer]\n{reference}\n[The End of Reference Answer]\n\n"
_ANSWERS = (
    "[The Start of Assistant A's Answer]\n{answer_a}\n[The End of Assistant A's Answer]\n\n"
    "[The Start of Assistant B's Answer]\n{answer_b}\n[The End of Assistant B's Answer]"
)


@dataclass(frozen=True)
class Pair:
    """Two answers to one question, and which one the judge reads first."""

    question: str
    reference: str | None
    answer: str
    other: str
    answer_first: bool


async def compare(judging: Target, pair: Pair) -> Row:
    """Ask the judge to compare a pair.

    Returns:
        `preference` (1 if the judge prefers `answer`, 0 if it prefers `other`, 0.5 for a tie),
        `first` (1 if it prefers the answer that it read first, 0 for the second, 0.5 for a tie),
        `judgment` (the reply), `usage`, `calls` and `cost`.

    Raises:
        AnswerFailed: If the reply has no [[A]], [[B]] or [[C]], or the request failed.
    """
    a, b = (pair.answer, pair.other) if pair.answer_first else (pair.other, pair.answer)
    with_reference = pair.reference is not None
    template = _QUESTION + (_REFERENCE if with_reference else "") + _ANSWERS
    text = template.format(question=pair.question, reference=pair.reference, answer_a=a, answer_b=b)
    system = SYSTEM_WITH_REFERENCE if with_reference else SYSTEM
    said = await judging.ask([SystemMessage(system), HumanMessage(text)])
    verdicts = _VERDICT.findall(said["answer"])
    row = {"judgment": said["answer"], **{k: said[k] for k in ("usage", "calls", "cost")}}
    if not verdicts:
        raise AnswerFailed("the reply of the judge has no verdict ([[A]], [[B]] or [[C]])", row)
    first = {"A": 1.0, "B": 0.0, "C": _TIE}[verdicts[-1]]
    return {**row, "first": first, "preference": first if pair.answer_first else 1 - first}


def tally(preferences: Sequence[Sequence[float]]) -> Row:
    """Count wins, losses and ties of the items, by the mean of both orders.

    Args:
        preferences: The preferences of each item, one for each order.

    Returns:
        `wins`, `losses`, `ties` and `by_order`: the number of items in each group. `by_order`
        counts items that are a tie only because the verdict depends on the order.
    """
    means = [sum(item) / len(item) for item in preferences]
    by_order = sum({0.0, 1.0} <= set(item) for item in preferences)
    return {
        "wins": sum(m > _TIE for m in means),
        "losses": sum(m < _TIE for m in means),
        "ties": sum(m == _TIE for m in means) - by_order,
        "by_order": by_order,
    }


def position_bias(firsts: Sequence[float]) -> Row:
    """Test whether the judge prefers a position.

    Args:
        firsts: One value for each verdict in either order: 1 if the judge preferred the answer it
            read first, 0 for the second, 0.5 for a tie. Each pair is judged in both orders, so an
            unbiased judge gives as many 1 as 0.

    Returns:
        `first` (share of decided verdicts for the first answer, an interval; None if no verdict is
        decided), `p` (of a two-sided binomial test against 0.5), `biased`, and `sentence`.
    """
    from scipy.stats import binomtest  # noqa: PLC0415 - needs [evals]

    if not firsts:
        sentence = "The judge was not asked: the answers are the same."
        return {"first": None, "p": None, "biased": False, "sentence": sentence}
    decided = [first for first in firsts if first != _TIE]
    if not decided:
        sentence = "The judge called every pair a tie."
        return {"first": None, "p": None, "biased": False, "sentence": sentence}
    p = float(binomtest(int(sum(decided)), len(decided)).pvalue)
    share = intervals.mean(decided)
    # In both orders of a pair, an unbiased judge prefers each position once.
    biased = p < _BIASED or (len(decided) > 1 and share.value in {0.0, 1.0})
    place = "first" if share.value > _TIE else "second"
    often = (
        share
        if place == "first"
        else Interval(1 - share.value, 1 - share.high, 1 - share.low, share.n)
    )
    sentence = (
        f"The judge has a position bias: it preferred the {place} answer in {often.percent()} % of "
        f"{len(decided)} decided verdicts. Wins that depend on the order count as ties."
        if biased
        else f"No position bias of the judge is shown: it preferred the first answer in "
        f"{share.percent()} % of {len(decided)} decided verdicts."
    )
    return {"first": share.as_dict(), "p": p, "biased": biased, "sentence": sentence}


def complete(rows: Mapping[tuple[str, int], Row], item: str) -> list[float] | None:
    """Return the preferences of an item in both orders; None if one is missing."""
    found = [rows[item, order] for order in range(len(ORDERS)) if (item, order) in rows]
    return [row["preference"] for row in found] if len(found) == len(ORDERS) else None


def check(judging: Target) -> None:
    """Check that the judge can be called, before any paid request.

    Raises:
        EvalError: If the judge is misconfigured or its API key is missing; the message gives the
            fix.
    """
    try:
        judging.check()
    except MoAError as error:
        raise EvalError(f"The judge {judging.name}: {error}") from None
