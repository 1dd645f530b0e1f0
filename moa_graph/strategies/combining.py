"""Which strategies go together, and why others do not."""

from __future__ import annotations

from collections.abc import Sequence

from moa_graph.completion import Hedge
from moa_graph.models import Model, chat_models_in, nested_graph
from moa_graph.proposers import Seat
from moa_graph.strategies.answers import AnswerStrategy
from moa_graph.strategies.early_exit import Unchanged, Until
from moa_graph.strategies.pieces import Chunkwise, Staircase
from moa_graph.strategies.robust import DropoutAndCluster, DropoutAndVote
from moa_graph.strategies.route import Route
from moa_graph.strategies.selection import Selection, Tree
from moa_graph.strategies.sequential import SelfMoASeq


def check_combination(
    *,
    proposer_layers: int,
    select: Sequence[Selection],
    until: Until | None,
    answer: AnswerStrategy | None,
    fenced: bool,
    staircase: Staircase | None,
    chunkwise: Chunkwise | None,
    hedge: Hedge | None,
    cache: bool,
) -> None:
    """Refuse strategies that contradict each other, or would do nothing.

    Args:
        proposer_layers: How many layers of proposers there are.
        select: The selections, in their order.
        until: The early exit.
        answer: What gives the answer; None for a model that synthesizes.
        fenced: Whether references are fenced.
        staircase: The staircase.
        chunkwise: The chunk-wise aggregation.
        hedge: When a proposer is asked twice.
        cache: Whether proposals are kept in a cache.

    Raises:
        ValueError: Says which two, and why.
    """
    if staircase and chunkwise:
        raise ValueError(
            "staircase and chunkwise cannot be combined: in a staircase the proposers write their "
            "own answers to the end, chunk-wise they go on from the aggregated one."
        )
    if piecewise := staircase or chunkwise:
        name = type(piecewise).__name__.lower()
        for what, given, why in (
            ("select", select, "chooses among whole answers"),
            ("until", until, "compares whole answers"),
            (type(answer).__name__, answer, "needs whole answers"),
            ("hedge", hedge, "asks a proposer a second time for a whole answer"),
        ):
            if given:
                raise ValueError(
                    f"{name} and {what} cannot be combined: {what} {why}, and in {name} the next "
                    "model reads them while they are written."
                )
    if chunkwise and cache:
        raise ValueError(
            "chunkwise and cache cannot be combined: each chunk goes on from the aggregated text, "
            "so that the same question leads to other calls."
        )
    _check_select(select, answer)
    if until is not None:
        _check_until(until, proposer_layers)
    if fenced and proposer_layers == 1 and answer and answer.whole:
        raise ValueError(
            f"fenced=True and {type(answer).__name__} with layers=2 cannot be combined: nobody is "
            "shown the references but a judge, who sees them fenced in any case."
        )


def as_selections(select: Selection | Sequence[Selection] | None) -> list[Selection]:
    """One selection or several, as several.

    Raises:
        TypeError: If one is something else.
    """
    given = [] if select is None else [select] if isinstance(select, Selection) else select
    if not isinstance(given, Sequence) or not all(isinstance(s, Selection) for s in given):
        raise TypeError(
            f"select={select!r} must be a selection, such as TopK(3), or a list of them."
        )
    return list(given)


def check_kinds(
    *,
    until: object,
    route: object,
    staircase: object,
    chunkwise: object,
) -> None:
    """Refuse what is no strategy, or one in another's place.

    Raises:
        TypeError: Names the argument, and what belongs there.
    """
    for argument, value, kind, example in (
        ("until", until, Until, "Agree()"),
        ("route", route, Route, "Route(model, samples=3)"),
        ("staircase", staircase, Staircase, "Staircase(first=16)"),
        ("chunkwise", chunkwise, Chunkwise, "Chunkwise(first=64)"),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{argument}={value!r} must be a {kind.__name__}, such as {example}.")


def check_writers(seats: Sequence[Seat], aggregator: Model, staircase: Staircase | None) -> None:
    """Refuse models that cannot write piece by piece.

    Args:
        seats: The proposers of all layers.
        aggregator: The aggregator's model.
        staircase: The staircase; None for chunk-wise aggregation.

    Raises:
        ValueError: If one is an agent or a function, and not a chat model.
    """
    name = "staircase" if staircase else "chunkwise"
    writers = [aggregator, *(seat.model for seat in seats)]
    for model in writers:
        if model.built is None:
            continue  # a string is a chat model
        if nested_graph(model.built) or next(chat_models_in(model.built), None) is None:
            raise ValueError(
                f"{name} needs chat models, which stream and go on from a text of their own: "
                f"{model.role} ({model.name}) is none. Leave {name} out, or give a chat model."
            )


def _check_select(select: Sequence[Selection], answer: AnswerStrategy | None) -> None:
    rewriting = [s for s in select if s.rewrites]
    if len(rewriting) > 1 or (rewriting and select[-1] is not rewriting[0]):
        name = type(rewriting[0]).__name__
        raise ValueError(
            f"select: {name} writes the references anew, each in view of the others, so it comes "
            "last and once: put the other selections before it."
        )
    if sum(isinstance(s, Tree) for s in select) > 1:
        raise ValueError("select has two Trees: one says who sees what.")
    tree = next((s for s in select if isinstance(s, Tree)), None)
    if not rewriting:
        return
    name = type(rewriting[0]).__name__
    if tree:
        raise ValueError(
            f"select: {name} and Tree cannot be combined: what {name} writes refers to one "
            "reference in full, which some readers of a Tree would not see."
        )
    if answer and answer.whole:
        raise ValueError(
            f"select: {name} and {type(answer).__name__} cannot be combined: the answer is chosen "
            f"among whole proposals, and {name} passes on parts of them."
        )
    if isinstance(answer, SelfMoASeq | DropoutAndVote | DropoutAndCluster):
        raise ValueError(
            f"select: {name} and {type(answer).__name__} cannot be combined: what {name} writes "
            "refers to one reference in full, which not every call would see."
        )


def _check_until(until: Until, proposer_layers: int) -> None:
    if isinstance(until, Unchanged) and proposer_layers == 1:
        raise ValueError(
            "until: Unchanged compares a layer with the one before: give layers=3 or more."
        )
    if until.then == "aggregate" and proposer_layers == 1:
        raise ValueError(
            "until: with layers=2 the aggregator comes next in any case: give layers=3 or more, or "
            "then='answer' to return a consensus without it."
        )
