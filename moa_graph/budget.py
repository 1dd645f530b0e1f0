"""What a run may cost, and what it has cost so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from langchain_core.messages.ai import UsageMetadata

from moa_graph import sync
from moa_graph.errors import MoAError

Price: TypeAlias = tuple[float, float]
"""US dollars per million input tokens, and per million output tokens."""

_MILLION = 1_000_000
_SHORTEST_ANSWER = 16  # tokens; a call with less is not worth its prompt
_LAST_ANSWER = 256  # tokens that the aggregator has in any case


@dataclass(frozen=True)
class Budget:
    """The most that a run may spend on proposals.

    Before each call, what is spent already plus the call's own limit (its prompt, estimated, and
    its `max_tokens`) is compared with the budget. A call that would exceed it is not made, which
    its proposal says; the aggregator then answers from what there is. It always answers, so a run
    may exceed its budget by that one call. A call without a `max_tokens` of its own is given its
    share of what is left. Of a cancelled call nobody tells the tokens: its limit counts as spent.

    Args:
        tokens: Input and output tokens of all calls (at least 1).
        usd: US dollars (above 0). Prices come from the table of the package `genai-prices`
            (`pip install 'moa-graph[prices]'`), as far as `prices` does not tell them.
        prices: By the model's name: dollars per million input and per million output tokens.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If neither tokens nor dollars are given, or one is out of range.
    """

    tokens: int | None = None
    usd: float | None = None
    prices: Mapping[str, Price] | None = None

    def __post_init__(self) -> None:
        if self.tokens is None and self.usd is None:
            raise ValueError("Budget() needs tokens, or usd, or both.")
        if self.tokens is not None:
            if isinstance(self.tokens, bool) or not isinstance(self.tokens, int):
                raise TypeError(f"Budget(tokens={self.tokens!r}) must be a whole number.")
            if self.tokens < 1:
                raise ValueError(f"Budget(tokens={self.tokens}) must be at least 1.")
        if self.usd is not None:
            if isinstance(self.usd, bool) or not isinstance(self.usd, int | float):
                raise TypeError(f"Budget(usd={self.usd!r}) must be a number of dollars.")
            if not math.isfinite(self.usd) or self.usd <= 0:
                raise ValueError(f"Budget(usd={self.usd}) must be above 0.")

    def price_of(self, model: str, provider: str | None) -> Price:
        """Dollars per million input and output tokens.

        Args:
            model: The model's name, as its provider spells it.
            provider: The provider's, as LangChain spells it.

        Raises:
            ValueError: If nobody knows it; says how to tell.
        """
        if self.prices and model in self.prices:
            return self.prices[model]
        try:
            known = known_price(model, provider)
        except ImportError as error:
            raise ValueError(
                f"Budget(usd=…): the price of {model!r} is not known. Run pip install "
                f"'moa-graph[prices]', or give it: Budget(usd=…, prices={{{model!r}: (in, out)}})."
            ) from error
        if known is None:
            raise ValueError(
                f"Budget(usd=…): genai-prices has no price for {model!r} of {provider!r}. Give it "
                f"in dollars per million tokens: Budget(usd=…, prices={{{model!r}: (in, out)}})."
            )
        return known


def known_price(model: str, provider: str | None) -> Price | None:
    """A model's price by the table of the package `genai-prices`.

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
    """The most that a call may cost where one of several models answers it."""
    known = list(prices) or [(0.0, 0.0)]
    return max(price[0] for price in known), max(price[1] for price in known)


@dataclass(frozen=True)
class Amount:
    """Tokens, and what they cost."""

    tokens: int
    usd: float

    @classmethod
    def of(cls, input_tokens: int, output_tokens: int, price: Price) -> Amount:
        """What a call of that size costs."""
        usd = (input_tokens * price[0] + output_tokens * price[1]) / _MILLION
        return cls(input_tokens + output_tokens, usd)

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.tokens + other.tokens, self.usd + other.usd)

    @classmethod
    def used(cls, usage: UsageMetadata, price: Price) -> Amount:
        """What a call has cost, by what the provider says."""
        return cls.of(usage["input_tokens"], usage["output_tokens"], price)


class Ledger:
    """What one run has spent, and what calls in flight may still spend; safe between threads.

    Args:
        budget: The most that it may.
        calls: How many calls are to come, the aggregator's included (at least 1).
        spent: What was spent already, before this process took the run over.
    """

    def __init__(self, budget: Budget, calls: int, spent: Amount) -> None:
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
        """Set aside what a call may spend, before it is made.

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

    def __init__(self, budget: Budget) -> None:
        limits = []
        if budget.tokens is not None:
            limits.append(f"{budget.tokens:,} tokens")
        if budget.usd is not None:
            limits.append(f"${budget.usd:g}")
        budget_of = " and ".join(limits)
        super().__init__(f"not asked: the run's budget of {budget_of} has no room for it")
