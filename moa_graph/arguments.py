"""What `create_moa` refuses, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from langgraph.types import RetryPolicy

from moa_graph.budget import Budget
from moa_graph.completion import Hedge, Quorum, check_seconds
from moa_graph.limits import CallLimits
from moa_graph.models import (
    Model,
    chat_models_in,
    name_of_chat_model,
    nested_graph,
    provider_of,
)


def checked_text(argument: str, value: str) -> str:
    """A text that is not blank."""
    if not isinstance(value, str):
        raise TypeError(f"{argument} must be a text, not {type(value).__name__}.")
    if not value.strip():
        raise ValueError(f"{argument} is blank: leave it out for the paper's prompt.")
    return value


def checked_minimum(min_proposals: int, narrowest: int) -> int:
    """`min_proposals`, within the smallest layer."""
    if isinstance(min_proposals, bool) or not isinstance(min_proposals, int):
        raise TypeError(f"min_proposals={min_proposals!r} must be a whole number, such as 1.")
    if not 1 <= min_proposals <= narrowest:
        raise ValueError(
            f"min_proposals={min_proposals} must be between 1 and {narrowest}, the number of "
            "proposers in the smallest layer."
        )
    return min_proposals


def checked_quorum(quorum: Quorum | int | None, minimum: int, narrowest: int) -> Quorum | None:
    """A quorum within the smallest layer."""
    if quorum is None:
        return None
    quorum = quorum if isinstance(quorum, Quorum) else Quorum(quorum)
    if not minimum <= quorum.proposals <= narrowest:
        raise ValueError(
            f"quorum={quorum.proposals} must be between {minimum} (min_proposals) and "
            f"{narrowest}, the number of proposers in the smallest layer."
        )
    return quorum


def checked_hedge(hedge: Hedge | None, models: Sequence[Model]) -> Hedge | None:
    """A hedge that some proposer can be subject to."""
    if hedge is None:
        return None
    if not isinstance(hedge, Hedge):
        raise TypeError(f"hedge={hedge!r} must be a Hedge, such as Hedge(after=5).")
    if all(model.built is not None and nested_graph(model.built) for model in models):
        raise ValueError(
            "hedge has no proposer that can be asked twice: all of them are graphs, and what an "
            "agent does may have effects. Leave hedge out, or give a chat model too."
        )
    return hedge


def checked_timeout(argument: str, seconds: float | None) -> float | None:
    """Seconds, or None."""
    if seconds is not None:
        check_seconds(argument, seconds)
    return seconds


def checked_count(argument: str, value: int | None, *, least: int) -> int | None:
    """A whole number of at least `least`, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{argument}={value!r} must be a whole number.")
    if value < least:
        raise ValueError(f"{argument}={value} must be at least {least}.")
    return value


def checked_budget(budget: Budget | None, models: Sequence[Model]) -> Budget | None:
    """A budget whose prices are known."""
    if budget is None:
        return None
    if not isinstance(budget, Budget):
        raise TypeError(f"budget={budget!r} must be a Budget, such as Budget(tokens=20_000).")
    if budget.usd is not None:
        for model in models:
            budget.price_of(model.name, model.provider)
            for one in chat_models_in(model.built) if model.built is not None else ():
                budget.price_of(name_of_chat_model(one), provider_of(one))
    return budget


def checked_limits(
    limits: Mapping[str, int] | CallLimits | None, models: Sequence[Model]
) -> CallLimits:
    """Limits that name models of this graph."""
    if isinstance(limits, CallLimits):
        return limits  # it may be for other graphs too
    limits = CallLimits(limits or {})
    known = {name for model in models for name in model.names}
    if any(model.provider is None for model in models):
        return limits  # an agent or a function: which models are inside is not known
    if unknown := sorted(limits.names - known):
        raise ValueError(
            f"max_concurrent_calls names {', '.join(map(repr, unknown))}, but this graph has: "
            f"{', '.join(map(repr, sorted(known)))}."
        )
    return limits


def as_policies(policy: RetryPolicy | Sequence[RetryPolicy] | None) -> Sequence[RetryPolicy]:
    """One policy or several, as several."""
    if policy is None:
        return ()
    return (policy,) if isinstance(policy, RetryPolicy) else tuple(policy)
