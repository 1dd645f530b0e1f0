"""What one run may take, and how calls are made over all runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, field
from typing import Annotated

from pydantic import AfterValidator, Field, StrictInt, model_validator

from moa_graph.calling.slots import CallSlots
from moa_graph.errors import value_object

Price = tuple[float, float]
"""US dollars per million input tokens, and per million output tokens."""


Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
"""An integer or a float, finite."""
Seconds = Annotated[Number, Field(gt=0)]
Count = Annotated[StrictInt, Field(ge=1)]


@value_object
class RunLimits:
    """The most that one run may take: seconds, tokens, dollars.

    Tokens and dollars are a budget for proposals. Before each call, what is spent already plus the
    call's own limit (its prompt, estimated, and its `max_tokens`) is compared with it. A call that
    would exceed it is not made, which its proposal says; the aggregator then answers from what
    there is. It always answers, so a run may exceed its budget by that one call. A call without a
    `max_tokens` of its own is given its share of what is left. Providers report no usage for a
    cancelled call, so its whole reservation counts as spent.

    Args:
        timeout: Seconds that the run may take (above 0). Each layer may use an equal share of what
            is left, so that the aggregator has its own; layers that were late are made up for with
            what there is. An aggregator that is late fails the run.
        tokens: Input and output tokens of all calls (at least 1).
        usd: US dollars (above 0). Prices come from the table of the package `genai-prices`
            (`pip install 'moa-graph[prices]'`), as far as `prices` does not tell them.
        prices: By the model's name: dollars per million input and per million output tokens.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a value is out of range, or nothing is limited.
    """

    timeout: Seconds | None = Field(
        default=None, title="Timeout", description="Seconds that the run may take."
    )
    _: KW_ONLY
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
    """How calls are made, over all runs of a graph, or of several that share this object.

    Args:
        retries: How often a call is repeated after an error that can pass (at least 0): rate
            limits (as late as Retry-After asks, up to a minute), 408, 5xx, and lost connections.
            By default as often as the model's own client would (its `max_retries`), at least
            twice. 0 turns it off. Repetitions by the client itself are taken over where it can be
            told so (OpenAI's family), and never multiplied.
        concurrent: The most calls in flight, by provider (`{"ollama": 2}`) or by model
            (`{"ollama:llama3.2": 1}`), at least 1. A call must pass both where both are given.
            Chat models inside agents and chains count, too. In one process this holds over all
            runs, synchronous or not.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a number is out of range.
    """

    retries: Annotated[StrictInt, Field(ge=0)] | None = Field(
        default=None,
        title="Retries",
        description="How often a call is repeated after an error that can pass.",
    )
    _: KW_ONLY
    concurrent: Annotated[Mapping[str, StrictInt], AfterValidator(_positive)] = Field(
        default_factory=dict,
        title="Concurrent calls",
        description="The most calls in flight, by provider or by “provider:model”.",
    )
    slots: CallSlots = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slots", CallSlots(self.concurrent))
