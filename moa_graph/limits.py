"""Limits of one run, and the call policy of all runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Annotated

from pydantic import AfterValidator, Field, StrictInt, model_validator

from moa_graph.calling.slots import CallSlots
from moa_graph.errors import value_object

Price = tuple[float, float]
"""US dollars per million input tokens, and per million output tokens."""


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""A finite integer or float."""
Seconds = Annotated[Number, Field(gt=0)]
Count = Annotated[StrictInt, Field(ge=1)]


@value_object
class RunLimits:
    """Limits of one run: seconds, tokens, US dollars.

    Tokens and dollars are a budget for proposals. Before each call, the amount already spent plus
    the call's reservation (its estimated prompt and its `max_tokens`) is compared with the budget.
    A call that would exceed it is not made, and its proposal says so. The aggregator then answers
    from the available proposals. The aggregator is always called, so a run can exceed its budget
    by that one call. A call without its own `max_tokens` gets a share of the remaining budget.
    Providers report no usage for a cancelled call, so its whole reservation counts as spent.

    Args:
        timeout: Maximum seconds of the run (above 0). Each layer may use an equal share of the
            remaining time, so time is left for the aggregator. If a layer times out, the run
            continues with the available proposals. If the aggregator times out, the run fails.
        tokens: Maximum input and output tokens of all calls (at least 1).
        usd: Maximum cost in US dollars (above 0). Models that are not in `prices` use the price
            table of the package `genai-prices` (`pip install 'moa-graph[prices]'`).
        prices: Prices by model name: dollars per million input and per million output tokens.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a value is out of range, or no limit is given.
    """

    timeout: Seconds | None = Field(
        default=None, title="Timeout", description="Seconds that the run may take."
    )
    tokens: Count | None = Field(
        default=None, title="Tokens", description="Tokens that the run may spend."
    )
    usd: Annotated[Number, Field(gt=0)] | None = Field(
        default=None, title="US dollars", description="US dollars that the run may spend."
    )
    prices: Mapping[str, Price] | None = Field(
        default=None,
        title="Prices",
        description="By model: dollars per million input, and per million output tokens.",
    )

    @model_validator(mode="after")
    def _limits_something(self) -> RunLimits:
        if self.timeout is None and not self.has_budget:
            raise ValueError("RunLimits() limits nothing: give timeout, tokens or usd.")
        return self

    @property
    def has_budget(self) -> bool:
        """Whether tokens or dollars are limited."""
        return self.tokens is not None or self.usd is not None


def _positive(concurrent: Mapping[str, int]) -> Mapping[str, int]:
    for name, calls in concurrent.items():
        if calls < 1:
            raise ValueError(f"CallPolicy(concurrent={{{name!r}: {calls}}}) must be at least 1.")
    return concurrent


@value_object
class CallPolicy:
    """Retries and concurrency for all runs of a graph, or of several graphs that share the object.

    Args:
        retries: Number of retries after a transient error (at least 0): rate limits (after the
            delay in Retry-After, up to a minute), 408, 5xx, and lost connections. By default the
            `max_retries` of the model's client, at least 2. 0 turns retries off. If the client's
            own retries can be turned off (OpenAI's family), they are replaced by these. Retries
            are never multiplied.
        concurrent: Maximum number of calls in flight, by provider (`{"ollama": 2}`) or by model
            (`{"ollama:llama3.2": 1}`), at least 1. If both are given, both apply. Chat models
            inside agents and chains count too. The limit applies to all runs in one process,
            synchronous and asynchronous.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range.
    """

    retries: Annotated[StrictInt, Field(ge=0)] | None = Field(
        default=None,
        title="Retries",
        description="How often a call is repeated after an error that can pass.",
    )
    concurrent: Annotated[Mapping[str, StrictInt], AfterValidator(_positive)] = Field(
        default_factory=dict,
        title="Concurrent calls",
        description="The most calls in flight, by provider or by “provider:model”.",
    )
    slots: CallSlots = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", CallSlots(self.concurrent))
