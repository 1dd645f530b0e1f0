"""What a run or a conversation used: models, seconds, tokens, dollars."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from langchain_core.messages.ai import UsageMetadata

from moa_graph.calling.budget import Amount, known_price
from moa_graph.cli.lines import counted, dollars
from moa_graph.limits import Price
from moa_graph.presets.configuration import Configuration
from moa_graph.state import AGGREGATOR_RECORD, Decision, Proposal


@dataclass(frozen=True)
class Prices:
    """Prices of the models of a mixture.

    Args:
        providers: The provider of each model, by the model's name.
        own: Prices that the configuration sets, by the model's name.
    """

    providers: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, Price] = field(default_factory=dict)

    @classmethod
    def of(cls, configuration: Configuration) -> Prices:
        """Return the prices of a configuration's models."""
        named = (model.partition(":") for model in configuration.models())
        limits = configuration.limits
        return cls(
            {name: provider for provider, _, name in named}, (limits and limits.prices) or {}
        )

    def price(self, model: str) -> Price | None:
        """Return a model's price; None if it is not known."""
        return self.own.get(model) or _known(model, self.providers.get(model))


@cache
def _known(model: str, provider: str | None) -> Price | None:
    try:
        return known_price(model, provider)
    except ImportError:
        return None


@dataclass(frozen=True)
class Used:
    """Tokens of calls to one model."""

    model: str
    """Its name; "" if the record does not tell it."""
    usage: UsageMetadata | None
    """None if the provider reported no usage."""


def used_by(
    proposals: Iterable[Proposal], decisions: Iterable[Decision], message: Any
) -> list[Used]:
    """Return what the records of a turn say about tokens.

    Args:
        proposals: Proposals of the turn.
        decisions: Its decisions.
        message: Its answer; None if there is none.
    """
    found = [Used(p["model"], p["usage"]) for p in proposals if p["usage"] or p["status"] == "ok"]
    found += [Used("", d["usage"]) for d in decisions if d["usage"]]
    record = getattr(message, "response_metadata", {}).get(AGGREGATOR_RECORD)
    if record and record.get("attempts"):
        found.append(Used(record["model"], message.usage_metadata))
    return found


def tokens_of(used: Iterable[Used]) -> tuple[int, int]:
    """Return the sums of input and output tokens."""
    known = [u.usage for u in used if u.usage]
    return sum(u["input_tokens"] for u in known), sum(u["output_tokens"] for u in known)


def cost_of(used: Iterable[Used], prices: Prices) -> str:
    """Return the dollars in words; "" if no price is known.

    If some of the prices or tokens are not known, it says that the amount is a minimum.
    """
    total, missing, priced = 0.0, False, False
    for one in used:
        price = prices.price(one.model) if one.model else None
        if price and one.usage:
            priced = True
            total += Amount.used(one.usage, price).usd
        else:
            missing = True
    if not priced:
        return ""
    return f"at least {dollars(total)}" if missing else dollars(total)


def parts_of(
    used: list[Used], prices: Prices, *, seconds: float, first_token: float | None
) -> list[str]:
    """Return the parts of the line below an answer.

    Args:
        used: The calls of the run.
        prices: Prices of the models.
        seconds: Duration of the run.
        first_token: Seconds until the answer's first token; None if it was not streamed.
    """
    models = len({one.model for one in used if one.model})
    given, written = tokens_of(used)
    return [
        counted(models, "model") if models else "",
        f"{seconds:.1f} s",
        f"first token {first_token:.1f} s" if first_token is not None else "",
        f"{counted(given, 'token')} in, {written:,} out" if given or written else "",
        cost_of(used, prices),
    ]
