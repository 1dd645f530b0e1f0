"""Enforce a run's budget in tokens and dollars."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from langchain_core.messages.ai import UsageMetadata

from moa_graph.calling import sync
from moa_graph.errors import MoAError
from moa_graph.limits import Price, RunLimits

_MILLION = 1_000_000
_SHORTEST_ANSWER = 16  # tokens; no call is made for a shorter answer
_LAST_ANSWER = 256  # tokens that the aggregator always gets


def price_of(limits: RunLimits, model: str, provider: str | None) -> Price:
    """Return a model's price in dollars per million input and output tokens.

    Args:
        limits: Limits of the run; its `prices` take precedence.
        model: Name of the model, as its provider spells it.
        provider: Name of the provider, as LangChain spells it.

    Raises:
        ValueError: If the price is unknown; the message says how to set it.
    """
    if limits.prices and model in limits.prices:
        return limits.prices[model]
    try:
        known = known_price(model, provider)
    except ImportError as error:
        raise ValueError(
            f"RunLimits(usd=…): the price of {model!r} is not known. Run pip install "
            f"'moa-graph[prices]', or give it: RunLimits(usd=…, prices={{{model!r}: (in, out)}})."
        ) from error
    if known is None:
        raise ValueError(
            f"RunLimits(usd=…): genai-prices has no price for {model!r} of {provider!r}. Give it "
            f"in dollars per million tokens: RunLimits(usd=…, prices={{{model!r}: (in, out)}})."
        )
    return known


def known_price(model: str, provider: str | None) -> Price | None:
    """Look up a model's price in the package `genai-prices`.

    Args:
        model: Name of the model, as its provider spells it.
        provider: Name of the provider, as LangChain spells it.

    Returns:
        Dollars per million input and output tokens; None if the package has no price.

    Raises:
        ImportError: If the package is not installed.
    """
    from genai_prices import Usage, calc_price  # noqa: PLC0415 - an optional dependency

    for known_provider in dict.fromkeys((provider, None)):
        try:
            of_a_million = [
                calc_price(usage, model, provider_id=known_provider).total_price
                for usage in (Usage(input_tokens=_MILLION), Usage(output_tokens=_MILLION))
            ]
        except LookupError:
            continue
        return float(of_a_million[0]), float(of_a_million[1])
    return None


def highest(prices: Iterable[Price]) -> Price:
    """Return the highest input price and output price of several models."""
    known = list(prices) or [(0.0, 0.0)]
    return max(price[0] for price in known), max(price[1] for price in known)


@dataclass(frozen=True)
class Amount:
    """Number of tokens, and their cost."""

    tokens: int
    usd: float

    @classmethod
    def of(cls, input_tokens: int, output_tokens: int, price: Price) -> Amount:
        """Return the cost of a call with these numbers of tokens."""
        usd = (input_tokens * price[0] + output_tokens * price[1]) / _MILLION
        return cls(input_tokens + output_tokens, usd)

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.usd + other.usd)

    @property
    def at_least_none(self) -> Amount:
        """This amount without negative numbers, which a record that was edited may have."""
        return Amount(max(0, self.tokens), max(0.0, self.usd))

    @classmethod
    def used(cls, usage: UsageMetadata, price: Price) -> Amount:
        """Return the cost of a call from the usage that the provider reported."""
        return cls.of(usage["input_tokens"], usage["output_tokens"], price)


class Ledger:
    """Amounts that one run has spent and reserved; thread-safe.

    Args:
        budget: The run's budget.
        calls: Number of calls to come, including the aggregator's (at least 1).
        spent: Amount spent before this process resumed the run.
    """

    def __init__(self, budget: RunLimits, calls: int, spent: Amount) -> None:
        self.budget = budget
        self._calls = calls
        self._spent = spent
        self._lock = sync.Lock()

    @property
    def tokens_left(self) -> float:
        """Tokens that are not spent or reserved."""
        if self.budget.tokens is None:
            return math.inf
        return self.budget.tokens - self._spent.tokens

    @property
    def usd_left(self) -> float:
        """Dollars that are not spent or reserved."""
        return math.inf if self.budget.usd is None else self.budget.usd - self._spent.usd

    def expect_one_call_less(self) -> None:
        """Reduce the number of expected calls by one, because a call is about to be made."""
        with self._lock:
            self._calls = max(1, self._calls - 1)

    def longest_answer(
        self, input_tokens: int, price: Price, *, own: int | None = None, always: bool = False
    ) -> int | None:
        """Return the maximum length of an answer: an equal share of the remaining budget.

        Args:
            input_tokens: Number of tokens in the prompt.
            price: Price of the model.
            own: Limit of the model itself; a share of that size is never too small.
            always: Whether the call is made even if the share is too small for an answer.

        Returns:
            Tokens, at least 1; None if the budget does not limit the answer.

        Raises:
            OverBudget: If the share is too small for an answer.
        """
        calls = self._calls
        self.expect_one_call_less()
        share = self.tokens_left / calls - input_tokens
        if price[1] > 0:
            for_input = input_tokens * price[0] / _MILLION
            share = min(share, (self.usd_left / calls - for_input) / price[1] * _MILLION)
        shortest = min(_SHORTEST_ANSWER, own or _SHORTEST_ANSWER)
        if share < shortest and not always:
            raise OverBudget(self.budget)
        if math.isinf(share):
            return None
        return int(max(share, _LAST_ANSWER if always else shortest))

    def reserve(self, limit: Amount, *, always: bool = False) -> Callable[[Amount], None]:
        """Reserve the most that a call may spend, before the call is made.

        Args:
            limit: The most that the call may spend.
            always: Whether to reserve it even if the remaining budget is too small.

        Returns:
            Function to call with the amount spent. If it is not called, the whole reservation
            counts as spent.

        Raises:
            OverBudget: If the remaining budget is too small.
        """
        with self._lock:
            too_much = limit.tokens > self.tokens_left or limit.usd > self.usd_left
            if too_much and not always:
                raise OverBudget(self.budget)
            self._add(limit.tokens, limit.usd)

        def settle(spent: Amount) -> None:
            with self._lock:
                self._add(spent.tokens - limit.tokens, spent.usd - limit.usd)

        return settle

    def _add(self, tokens: int, usd: float) -> None:
        self._spent += Amount(tokens, usd)


class OverBudget(MoAError):
    """A call was not made because the remaining budget is too small."""

    def __init__(self, budget: RunLimits) -> None:
        limits = []
        if budget.tokens is not None:
            limits.append(f"{budget.tokens:,} tokens")
        if budget.usd is not None:
            limits.append(f"${budget.usd:g}")
        budget_of = " and ".join(limits)
        super().__init__(
            f"not called: the rest of the run's budget of {budget_of} is too small for it"
        )
