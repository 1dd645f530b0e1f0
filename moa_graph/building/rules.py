"""Checks for parts of a mixture that cannot be combined."""

from __future__ import annotations

from moa_graph.building.parts import Mixture, Part
from moa_graph.layers import References
from moa_graph.models import Model, chat_models_in, nested_graph
from moa_graph.progressive.pieces import Chunkwise, Staircase
from moa_graph.strategies.aggregate import AnswerStrategy
from moa_graph.strategies.robust import DropoutAndCluster, DropoutAndVote
from moa_graph.strategies.sequential import SelfMoASeq
from moa_graph.strategies.until import Unchanged


def check_combination(mixture: Mixture, *, references: References, cached: bool) -> None:
    """Reject parts that contradict each other or would have no effect.

    Args:
        mixture: The parts.
        references: How references are shown.
        cached: Whether proposals are cached.

    Raises:
        ValueError: If two parts cannot be combined. The error names them and the reason.
    """
    if mixture.progressive:
        _check_progressive(mixture, mixture.progressive, cached=cached)
    answer = mixture.strategy
    for number, part in enumerate(mixture.parts, 1):
        _check_select(part, answer)
        _check_until(mixture, part, number)
    if references.fenced and len(mixture.parts) == 1 and answer and answer.whole:
        raise ValueError(
            f"References(fenced=True) and {type(answer).__name__} with layers=2 cannot be "
            "combined: only a judge is shown the references, and sees them fenced in any "
            "case."
        )


def _check_progressive(
    mixture: Mixture, progressive: Staircase | Chunkwise, *, cached: bool
) -> None:
    name = type(progressive).__name__
    layers = [part.layer for part in mixture.parts]
    for what, given, why in (
        ("Layer(select=…)", any(layer.select for layer in layers), "chooses among whole answers"),
        ("Layer(until=…)", any(layer.until for layer in layers), "compares whole answers"),
        (type(mixture.answer).__name__, mixture.strategy, "needs whole answers"),
        (
            "Layer(hedge=…)",
            any(layer.hedge for layer in layers),
            "asks a proposer a second time for a whole answer",
        ),
        (
            "Layer(reserve=…)",
            any(layer.reserve for layer in layers),
            "asks another model for a whole answer",
        ),
    ):
        if given:
            raise ValueError(
                f"{name} and {what} cannot be combined: {what} {why}, but with {name} the "
                "next model reads them while they are written."
            )
    if isinstance(progressive, Chunkwise) and cached:
        raise ValueError(
            "Chunkwise and a cache cannot be combined: each chunk continues the aggregated "
            "text, so the calls differ even for the same question."
        )
    assert isinstance(mixture.answer, Model)
    _check_writers(mixture, mixture.answer, name)


def _check_writers(mixture: Mixture, aggregator: Model, name: str) -> None:
    proposers = [member.model for members in mixture.members for member in members]
    for model in [aggregator, *proposers]:
        if model.built is None:
            continue  # a string is a chat model
        if nested_graph(model.built) or next(chat_models_in(model.built), None) is None:
            raise ValueError(
                f"{name} needs chat models, which can stream and continue their own text, but "
                f"{model.role} ({model.name}) is not one. Use a chat model, or remove "
                f"progressive={name}()."
            )


def _check_select(part: Part, answer: AnswerStrategy | None) -> None:
    select = part.selections
    rewriting = [s for s in select if s.rewrites]
    if not rewriting:
        return
    name = type(rewriting[0]).__name__
    if len(rewriting) > 1 or select[-1] is not rewriting[0]:
        raise ValueError(
            f"Layer(select=…): {name} rewrites the references, each with the others in view, so "
            "it must be the last selection and appear once: put the other selections before it."
        )
    if part.tree:
        raise ValueError(
            f"Layer(select=…): {name} and Tree cannot be combined: what {name} writes refers to "
            "one reference in full, which some readers of a Tree would not see."
        )
    if answer and answer.whole:
        raise ValueError(
            f"Layer(select=…): {name} and {type(answer).__name__} cannot be combined: the answer "
            f"is chosen among whole proposals, and {name} passes on parts of them."
        )
    if isinstance(answer, SelfMoASeq | DropoutAndVote | DropoutAndCluster):
        raise ValueError(
            f"Layer(select=…): {name} and {type(answer).__name__} cannot be combined: what {name} "
            "writes refers to one reference in full, which not every call would see."
        )


def _check_until(mixture: Mixture, part: Part, number: int) -> None:
    until, layers = part.until, len(mixture.parts)
    if until is None:
        return
    first_of_others = number == 1 and not (mixture.repeated and layers > 1)
    if isinstance(until, Unchanged) and first_of_others:
        raise ValueError(
            "Layer(until=Unchanged()) compares a layer with the one before: give layers=3 or more, "
            "and leave it out of the first Layer of a list."
        )
    if until.then == "aggregate" and layers == 1 and not mixture.own_members:
        raise ValueError(
            "Layer(until=…) has no effect with layers=2: the aggregator comes next in any case. "
            "Use layers=3 or more, or then='answer' to return a consensus without it."
        )
