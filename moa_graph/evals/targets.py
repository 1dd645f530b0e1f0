"""Targets of an evaluation: a preset, a configuration file, a single model, or a graph."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.runnables import Runnable
from langgraph.cache.base import BaseCache

from moa_graph.calling import sync
from moa_graph.calling.answer import Answer, read_answer
from moa_graph.calling.budget import Amount, known_price
from moa_graph.chat_model import ChatMoA
from moa_graph.errors import explain
from moa_graph.evals.files import EvalError, EvalFailed, Row, digest
from moa_graph.evals.recorded import RecordedProposals
from moa_graph.layers import Proposer
from moa_graph.limits import Price
from moa_graph.models import Model, build_chat_model, with_connections_of
from moa_graph.models.runnables import chooses_transport
from moa_graph.presets import PRESETS, load_preset
from moa_graph.presets.configuration import Configuration
from moa_graph.progressive.pieces import Chunkwise
from moa_graph.strategies.registry import as_strategy
from moa_graph.strategies.vote import NothingToCount

Prices = Mapping[str, Price]
"""US dollars per million input tokens and per million output tokens, by model name."""


class AnswerFailed(EvalFailed):
    """A target gave no answer; `record` has the usage and cost of the attempt."""

    def __init__(self, message: str, record: Row) -> None:
        super().__init__(message)
        self.record = record


@dataclass
class Target:
    """One configuration under evaluation.

    Args:
        name: Name in reports.
        model: Function that creates the chat model to evaluate.
        models: All models that the target may call.
        digest: Hash of the configuration, equal for equal targets.
        prices: Prices that override the price table.
        recorded: Recorded answers that replace the proposers.
        fast: Whether the connections may be shared, see `with_connections_of`.
    """

    name: str
    model: Callable[[], BaseChatModel]
    models: Sequence[Model]
    digest: str
    prices: Prices = field(default_factory=dict)
    recorded: Sequence[RecordedProposals] = ()
    fast: bool = True

    def check(self) -> None:
        """Build every model, to report a missing API key before any paid request.

        Raises:
            MoAError: If a model cannot be built; the message gives the fix.
        """
        for model in self.models:
            model.get()

    @cached_property
    def answering(self) -> BaseChatModel:
        """Chat model of the target, created once."""
        return self.model()

    async def ask(self, messages: Sequence[BaseMessage]) -> Row:
        """Get an answer with its usage, cost and latency.

        Args:
            messages: The conversation.

        Returns:
            `answer`, `usage` (input and output tokens by model), `calls` (number of model calls),
            `cost` (US dollars; None if a price or the usage is unknown), `latency` and
            `first_token` (seconds), and for a mixture `proposals`. A vote without any vote to count
            is not a failure: `answer` is then empty, and `no_answer` gives the reason.

        Raises:
            AnswerFailed: If the target gave no answer.
        """
        usage, calls = UsageMetadataCallbackHandler(), _Calls()
        started = time.monotonic()
        first: float | None = None
        whole: AIMessage | None = None
        try:
            async for chunk in self._here().astream(
                list(messages), {"callbacks": [usage, calls], "tags": ["moa:eval"]}
            ):
                if first is None and chunk.text:
                    first = time.monotonic() - started
                whole = _sum(whole, chunk)
            answer = read_answer(whole or AIMessage(""))
            _check_answered(answer)
        except Exception as error:
            record = self._spent(usage, calls, getattr(error, "proposals", []))
            if isinstance(error.__cause__, NothingToCount):
                return {
                    "answer": "",
                    "no_answer": str(error.__cause__),
                    **record,
                    "latency": round(time.monotonic() - started, 4),
                    "first_token": None,
                }
            said = str(error) if isinstance(error, EvalError) else explain(error)
            raise AnswerFailed(said, record) from error
        proposals = answer.message.response_metadata.get("moa", {}).get("proposals", [])
        return {
            "answer": answer.text,
            **self._spent(usage, calls, proposals),
            "latency": round(time.monotonic() - started, 4),
            "first_token": None if first is None else round(first, 4),
            **({"proposals": proposals} if proposals else {}),
        }

    def _here(self) -> Runnable[Any, Any]:
        # LangChain shares connections between models; requests on another loop's ones would hang.
        loop = sync.current_loop()
        own = sync.is_background()
        if loop is None:
            return self.answering
        return with_connections_of(self.answering, loop, own=own, fast=self.fast)

    def _spent(
        self, usage: UsageMetadataCallbackHandler, calls: _Calls, proposals: Sequence[Any]
    ) -> Row:
        used = {
            model: {"input": of["input_tokens"], "output": of["output_tokens"]}
            for model, of in usage.usage_metadata.items()
        }
        # Count cached proposals: an interrupted run or another target paid for them.
        cached = [proposal for proposal in proposals if proposal.get("cached")]
        for proposal in cached:
            if saved := proposal.get("saved_usage"):
                of = used.setdefault(proposal["model"], {"input": 0, "output": 0})
                of["input"] += saved["input_tokens"]
                of["output"] += saved["output_tokens"]
        n = calls.n + len(cached)
        untold = not self.recorded and any(
            p["status"] == "ok" and not (p["usage"] or p.get("saved_usage")) for p in proposals
        )
        spent = {"usage": used, "calls": n, **({"usage_incomplete": True} if untold else {})}
        return {**spent, "cost": self.cost(spent)}

    def cost(self, row: Row) -> float | None:
        """Compute the cost of an answer with current prices.

        Args:
            row: The result of `ask`, or the record of a failed answer.

        Returns:
            US dollars; None if a price or the usage is unknown.
        """
        known = "usage" in row and not row.get("usage_incomplete")
        if not known or (row["calls"] and not row["usage"]):
            return None
        total = Amount(0, 0.0)
        for name, tokens in row["usage"].items():
            price = self._price(name)
            if price is None:
                return None
            total += Amount.of(tokens["input"], tokens["output"], price)
        return total.usd

    def _price(self, name: str) -> Price | None:
        # Providers may return a dated name for the requested model.
        asked = max(
            (m for m in self.models if name.startswith(m.name)),
            key=lambda m: len(m.name),
            default=self.models[0] if len(self.models) == 1 else None,
        )
        names = [name, *([asked.name, f"{asked.provider}:{asked.name}"] if asked else [])]
        for known in names:
            if known in self.prices:
                return self.prices[known]
        providers = {asked.provider} if asked else {m.provider for m in self.models}
        if providers == {"local"}:
            return (0.0, 0.0)
        return known_price(name, providers.pop() if len(providers) == 1 else None)


class _Calls(BaseCallbackHandler):
    """Callback that counts model calls."""

    def __init__(self) -> None:
        self.n = 0

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], **kwargs: Any
    ) -> None:
        """Count a model call; a mixture does not count, but its models do."""
        if (kwargs.get("metadata") or {}).get("ls_provider") != "moa":
            self.n += 1


def _check_answered(answer: Answer) -> None:
    if not answer.text.strip():
        raise EvalFailed(answer.why_empty)


def _sum(whole: AIMessage | None, chunk: AIMessage) -> AIMessage:
    if isinstance(whole, AIMessageChunk) and isinstance(chunk, AIMessageChunk):
        return whole + chunk
    return chunk


def load_target(
    spec: str | Path,
    *,
    prices: Prices | None = None,
    recorded: Sequence[RecordedProposals] = (),
    cache: Callable[[str], BaseCache[Any]] | None = None,
) -> Target:
    """Create the target that a command-line argument names.

    Args:
        spec: Name of a preset, a configuration file (`.toml`, `.yaml`), or one model as
            `"provider:model"`.
        prices: Prices that override the price table.
        recorded: Recorded answers that replace the proposers; the target is then the aggregator
            with these answers as proposals.
        cache: Function that creates a LangGraph cache from the name of the configuration; called
            only for valid configurations. The cache keeps the proposals of an interrupted run.

    Raises:
        EvalError: If the preset, file or model does not exist or is invalid; the message gives the
            cause.
    """
    spec = str(spec)
    try:
        if not _is_model(spec):
            configuration = load_preset(spec)
        elif recorded:
            configuration = Configuration.model_validate(
                {"name": spec, "proposers": [spec], "aggregator": spec}
            )
        else:
            return of_model(spec, prices)
        return of_configuration(configuration, prices=prices, recorded=recorded, cache=cache)
    except (ValueError, TypeError, OSError) as error:
        raise EvalError(str(error) + _or_a_model(spec)) from None


def of_configuration(
    configuration: Configuration,
    *,
    prices: Prices | None = None,
    recorded: Sequence[RecordedProposals] = (),
    cache: Callable[[str], BaseCache[Any]] | None = None,
) -> Target:
    """Create a target from a configuration; see `load_target` for the arguments.

    Raises:
        TypeError: See `create_moa`.
        ValueError: See `create_moa`.
    """
    described: Any = configuration.data()
    if not recorded:
        # Chunk-wise proposals are partial answers, which cannot be cached.
        progressive = as_strategy("progressive", configuration.progressive, "progressive")
        whole = not isinstance(progressive, Chunkwise)
        kept = cache(configuration.name) if cache and whole else None
        graph = configuration.create(cache=kept)
        return of_graph(configuration.name, graph, described, prices)
    members = [Proposer(p, name=proposer_name(p)) for p in recorded]
    graph = configuration.create(proposers=members, layers=2)
    described["proposers"] = [proposals.digest for proposals in recorded]
    name = f"{configuration.name} over {len(recorded)} recorded"
    return replace(of_graph(name, graph, described, prices), recorded=recorded)


def of_model(spec: str, prices: Prices | None = None, **params: Any) -> Target:
    """Create a target from a single model.

    Args:
        spec: The model as `"provider:model"`.
        prices: Prices that override the price table.
        **params: Other parameters of the chat model, such as `temperature`.

    Raises:
        ValueError: If the provider is missing or unknown.
    """
    models = [Model(spec, spec, **params)]
    described = digest([spec, params] if params else spec)
    return Target(
        spec,
        lambda: build_chat_model(spec, params),
        models,
        described,
        prices or {},
        fast=not chooses_transport(params),
    )


def aggregator_alone(spec: str | Path, prices: Prices | None = None) -> Target:
    """Create a target from only the aggregator model of a configuration, with the same settings.

    Raises:
        EvalError: If the configuration does not exist, or has no model that writes the answer.
    """
    try:
        configuration = load_preset(spec)
    except (ValueError, OSError) as error:
        raise EvalError(str(error)) from None
    if configuration.writer is None:
        raise EvalError(f"{configuration.name} has no aggregator model that can answer by itself.")
    model, params = configuration.writer
    return replace(of_model(model, prices, **params), name=f"{model} alone")


def of_graph(name: str, graph: Any, described: Any, prices: Prices | None = None) -> Target:
    """Create a target from a graph of `create_moa`.

    Args:
        name: Name in reports.
        graph: The graph.
        described: Data that identify the graph; results with other data are never mixed with its
            results.
        prices: Prices that override the price table.
    """
    chat = ChatMoA(graph=graph)
    return Target(name, lambda: chat, chat.models, digest(described), prices or {})


def unique_names(targets: Sequence[Target]) -> None:
    """Check that the names of the targets are unique.

    Raises:
        EvalError: If two targets have the same name.
    """
    names = [target.name for target in targets]
    for name in names:
        if names.count(name) > 1:
            raise EvalError(
                f"Two configurations are named {name!r}: give one of the files a name of its own "
                "(name = …)."
            )


def proposer_name(proposals: RecordedProposals) -> str:
    """Return the name of recorded answers as a proposer; a name of a node has neither : nor |."""
    return str(proposals.name).replace(":", "-").replace("|", "-")


def _is_model(spec: str) -> bool:
    return (
        ":" in spec
        and spec not in PRESETS
        and Path(spec).suffix.lower() not in {".toml", ".yaml", ".yml"}
    )


def _or_a_model(spec: str) -> str:
    return (
        "" if Path(spec).suffix or ":" in spec else " A single model is written 'provider:model'."
    )
