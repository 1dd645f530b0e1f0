"""What a run may cost, and what it has cost so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from langchain_core.messages.ai import UsageMetadata

from moa_graph.calling import sync
from moa_graph.errors import MoAError
from moa_graph.limits import Price, RunLimits

_MILLION = 1_000_000
_SHORTEST_ANSWER = 16  # tokens; a call with less is not worth its prompt
_LAST_ANSWER = 256  # tokens that the aggregator has in any case


def price_of(limits: RunLimits, model: str, provider: str | None) -> Price:
    """Return dollars per million input and output tokens.

    Args:
        limits: Those of the run, whose `prices` come first.
        model: The model's name, as its provider spells it.
        provider: The provider's, as LangChain spells it.

    Raises:
        ValueError: If it is not known; says how to give it.
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
    """Return a model's price by the table of the package `genai-prices`.

    Args:
        model: The model's name, as its provider spells it.
        provider: The provider's, as LangChain spells it.

    Returns:
        Dollars per million input and output tokens; None if the table does not have it.

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
    """Return the most that a call may cost where one of several models answers it."""
    known = list(prices) or [(0.0, 0.0)]
    return max(price[0] for price in known), max(price[1] for price in known)


@dataclass(frozen=True)
class Amount:
    """Tokens, and what they cost."""

    tokens: int
    usd: float

    @classmethod
    def of(cls, input_tokens: int, output_tokens: int, price: Price) -> Amount:
        """Return what a call of that size costs."""
        usd = (input_tokens * price[0] + output_tokens * price[1]) / _MILLION
        return cls(input_tokens + output_tokens, usd)

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.usd + other.usd)

    @classmethod
    def used(cls, usage: UsageMetadata, price: Price) -> Amount:
        """Return what a call has cost, by what the provider says."""
        return cls.of(usage["input_tokens"], usage["output_tokens"], price)


class Ledger:
    """What one run has spent, and what calls in flight may still spend; safe between threads.

    Args:
        budget: The most that it may.
        calls: How many calls are to come, the aggregator's included (at least 1).
        spent: What was spent already, before this process took the run over.
    """

    def __init__(self, budget: RunLimits, calls: int, spent: Amount) -> None:
        self.budget = budget
        self._calls = calls
        self._spent = spent
        self._lock = sync.Lock()

    @property
    def tokens_left(self) -> float:
        """Tokens that nothing has been set aside for."""
        if self.budget.tokens is None:
            return math.inf
        return self.budget.tokens - self._spent.tokens

    @property
    def usd_left(self) -> float:
        """Dollars that nothing has been set aside for."""
        return math.inf if self.budget.usd is None else self.budget.usd - self._spent.usd

    def expect_one_call_less(self) -> None:
        """Of the calls to come, one is about to be made."""
        with self._lock:
            self._calls = max(1, self._calls - 1)

    def longest_answer(
        self, input_tokens: int, price: Price, *, always: bool = False
    ) -> int | None:
        """How long the answer of a call may be that nothing else limits: its share of what is left.

        Args:
            input_tokens: The prompt's.
            price: The model's.
            always: Whether the call is made even where the share is too small for an answer.

        Returns:
            Tokens, at least 1; None if the budget does not limit it.

        Raises:
            OverBudget: If the share is too small for an answer.
        """
        calls = self._calls
        self.expect_one_call_less()
        share = self.tokens_left / calls - input_tokens
        if price[1] > 0:
            for_input = input_tokens * price[0] / _MILLION
            share = min(share, (self.usd_left / calls - for_input) / price[1] * _MILLION)
        if share < _SHORTEST_ANSWER and not always:
            raise OverBudget(self.budget)
        if math.isinf(share):
            return None
        return int(max(share, _LAST_ANSWER if always else _SHORTEST_ANSWER))

    def reserve(self, limit: Amount, *, always: bool = False) -> Callable[[Amount], None]:
        """Return set aside what a call may spend, before it is made.

        Args:
            limit: The call's own limit.
            always: Whether to do so whatever is left.

        Returns:
            What to tell afterwards what it has spent. Untold, the limit counts as spent.

        Raises:
            OverBudget: If that much is not left.
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
    """A call that the budget has no room for; it was not made."""

    def __init__(self, budget: RunLimits) -> None:
        limits = []
        if budget.tokens is not None:
            limits.append(f"{budget.tokens:,} tokens")
        if budget.usd is not None:
            limits.append(f"${budget.usd:g}")
        budget_of = " and ".join(limits)
        super().__init__(f"not asked: the run's budget of {budget_of} has no room for it")
