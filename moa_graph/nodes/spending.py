"""Budget and terms of the calls of one step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.runnables import Runnable, RunnableConfig

from moa_graph.calling.budget import Amount, Ledger, highest, price_of
from moa_graph.calling.call import Account, Call, CallTerms
from moa_graph.calling.references import Question
from moa_graph.limits import Price, RunLimits
from moa_graph.models import (
    NO_SETTINGS,
    Model,
    Settings,
    chat_models_in,
    name_of_chat_model,
    provider_of,
)
from moa_graph.state import (
    Proposal,
)

if TYPE_CHECKING:
    from moa_graph.nodes.step import Step


class Spending:
    """Budget and terms of the calls of one step.

    Args:
        step: The step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step

    def call(
        self,
        model: Runnable[Any, Any],
        question: Question,
        config: RunnableConfig,
        terms: CallTerms,
        callbacks: Sequence[BaseCallbackHandler] = (),
        until: float | None = None,
        settings: Settings | None = None,
    ) -> Call:
        """Return a call of a model in this step."""
        if config.get("max_concurrency") == self._step.plan.concurrency:
            # This limit is for the graph's nodes, not for an agent's tools.
            config = {k: v for k, v in config.items() if k != "max_concurrency"}  # type: ignore[assignment]
        if until is None and (left := self._step.timing.seconds_left) is not None:
            until = time.monotonic() + left
        return Call(
            model,
            question,
            config,
            terms,
            settings=settings or NO_SETTINGS,
            context=self._step.context,
            callbacks=callbacks,
            until=until,
        )

    def terms(self, model: Model, runnable: Runnable[Any, Any], *, last: bool = False) -> CallTerms:
        """Return the terms of a model's calls; `last` is for the call that makes the answer."""
        budget = self._budget
        account = None
        if budget is not None:
            prices = _prices(budget, model, runnable)
            ledger = self._step.run.ledger(lambda: self._new_ledger(budget))
            account = Account(ledger, highest(prices.values()), prices, always=last)
        return CallTerms(
            retries=self._step.plan.calls.retries,
            slots=self._step.plan.calls.slots,
            names=model.names,
            account=account,
            once_shown=last,
        )

    @property
    def _budget(self) -> RunLimits | None:
        built, tokens = self._step.plan.limits, self._step.context.token_budget
        if tokens is not None:
            usd, prices = (built.usd, built.prices) if built else (None, None)
            return RunLimits(tokens=tokens, usd=usd, prices=prices)
        return built if built and built.has_budget else None

    def _new_ledger(self, budget: RunLimits) -> Ledger:
        spent = Amount(0, 0.0)
        prices: dict[str, Price] = {}
        for model in self._step.plan.models:
            prices |= _prices(budget, model, model.built)
        for proposal in self._proposals_of_this_turn():
            if (usage := proposal["usage"]) and (price := prices.get(proposal["model"])):
                spent += Amount.used(usage, price).at_least_none
        for decision in () if self._step.opens else self._step.decisions:
            if usage := decision["usage"]:
                spent += Amount(usage["total_tokens"], 0.0).at_least_none
        layers = (self._step.context.layers or self._step.plan.layers) - 1
        calls = sum(
            policy.width for policy in self._step.plan.policies[self._step.layer - 1 : layers]
        )
        return Ledger(budget, calls + 1, spent)

    def _proposals_of_this_turn(self) -> list[Proposal]:
        return [] if self._step.layer == 1 else self._step.proposals


def _prices(
    budget: RunLimits, model: Model, runnable: Runnable[Any, Any] | None
) -> dict[str, Price]:
    """Return the prices of this model and its fallbacks, by model name."""
    if budget.usd is None:
        return {model.name: (0.0, 0.0)}
    others = chat_models_in(runnable) if runnable is not None else ()
    prices = {
        name_of_chat_model(one): price_of(budget, name_of_chat_model(one), provider_of(one))
        for one in others
    }
    return prices or {model.name: price_of(budget, model.name, model.provider)}
