"""Prometheus metrics of the runs in this process."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from prometheus_client import Counter, Gauge, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from moa_graph.calling.budget import Amount, known_price
from moa_graph.limits import Price
from moa_graph.presets import PRESETS
from moa_graph.server.settings import SETTINGS
from moa_graph.server.written import records_in
from moa_graph.state import AGGREGATOR_RECORD

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
_MOST_MODELS = 200  # clients choose models, and each one is a time series
_OTHER = "other"
_LONGEST = 128  # characters of a label or an id
_TOKEN = b"event: messages"
ACCEPTED_AT = "moa_accepted_at"
"""Metadata of a run: when the server accepted it, in Unix seconds."""

RUNS_ACCEPTED = Counter("moa_runs_accepted", "Runs that clients have started.")
RUNS_STARTED = Counter("moa_runs_started", "Runs that this process has begun.", ["graph"])
RUNS = Counter("moa_runs", "Ended runs: success, error or cancelled.", ["graph", "status"])
RUNNING = Gauge("moa_runs_in_progress", "Runs in progress in this process.", ["graph"])
RUN_SECONDS = Histogram("moa_run_seconds", "Duration of runs.", ["graph"], buckets=_SECONDS)
QUEUE_SECONDS = Histogram("moa_queue_seconds", "Time in the queue.", buckets=_SECONDS)
FIRST_TOKEN_SECONDS = Histogram(
    "moa_first_token_seconds",
    "Time from a request that streams messages to the answer's first token.",
    buckets=_SECONDS,
)
PROPOSALS = Counter(
    "moa_proposals",
    "Proposals: ok, failed, timed_out, or abandoned once a quorum was there.",
    ["model", "status"],
)
PROPOSAL_SECONDS = Histogram(
    "moa_proposal_seconds", "Duration of proposals.", ["model"], buckets=_SECONDS
)
TOKENS = Counter("moa_tokens", "Tokens of models: input or output.", ["model", "kind"])
DOLLARS = Counter("moa_dollars", "US dollars of models with a known price.", ["model"])

_logger = logging.getLogger(__name__)
_names: set[str] = set()  # that clients have chosen


def runs_now() -> tuple[float, float]:
    """Return how many runs are in progress in this process, and how many it has ended."""
    values: dict[str, float] = dict.fromkeys(("moa_runs_in_progress", "moa_runs_total"), 0)
    for family in (*RUNNING.collect(), *RUNS.collect()):
        for sample in family.samples:
            if sample.name in values:
                values[sample.name] += sample.value
    return values["moa_runs_in_progress"], values["moa_runs_total"]


@dataclass
class _Run:
    started: float
    metadata: Mapping[str, Any]
    tokens: int = 0
    dollars: float = 0.0
    statuses: dict[str, int] = field(default_factory=dict)


class RunMetrics(BaseCallbackHandler):
    """Callback handler that counts the runs of a graph, and logs each one when it ends.

    Args:
        graph: Name of the graph.
    """

    run_inline = True  # it only counts
    ignore_llm = True
    ignore_chat_model = True
    ignore_retriever = True
    ignore_agent = True
    ignore_custom_event = True

    def __init__(self, graph: str) -> None:
        self._graph = graph
        self._runs: dict[UUID, _Run] = {}

    def on_chain_start(
        self,
        serialized: dict[str, Any],
        inputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Count the start of a run of the graph."""
        if parent_run_id is not None:
            return
        metadata = metadata or {}
        self._runs[run_id] = _Run(time.monotonic(), metadata)
        RUNS_STARTED.labels(self._graph).inc()
        RUNNING.labels(self._graph).inc()
        with suppress(KeyError, TypeError, ValueError):
            QUEUE_SECONDS.observe(max(0.0, time.time() - float(metadata[ACCEPTED_AT])))

    def on_chain_end(
        self,
        outputs: dict[str, Any],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """Count what a node has paid for, or the end of a run."""
        if run_id in self._runs:
            self._end(run_id, "success")
        elif parent_run_id in self._runs and isinstance(outputs, Mapping):
            for model, usage in _count(outputs, self._runs[parent_run_id]):
                _pay(model, usage, self._runs[parent_run_id])

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Count the end of a run that failed or was cancelled."""
        if run_id in self._runs:
            self._end(run_id, "cancelled" if isinstance(error, asyncio.CancelledError) else "error")

    def _end(self, run_id: UUID, status: str) -> None:
        run = self._runs.pop(run_id)
        seconds = time.monotonic() - run.started
        RUNNING.labels(self._graph).dec()
        RUNS.labels(self._graph, status).inc()
        RUN_SECONDS.labels(self._graph).observe(seconds)
        _logger.info(
            "Run of %s: %s",
            self._graph,
            status,
            extra={
                "moa_graph": self._graph,
                "moa_status": status,
                "moa_seconds": round(seconds, 3),
                "moa_proposals": run.statuses,
                "moa_tokens": run.tokens,
                "moa_dollars": round(run.dollars, 6),
                "moa_run_id": str(run.metadata.get("run_id", run_id)),
                "moa_request_id": _request_id(run.metadata),
            },
        )


class FirstTokens:
    """ASGI middleware that measures the time to the first token of streamed runs.

    The routes under `/v1` stream runs of the server's own API, so they are measured, too.

    Args:
        app: ASGI application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application, and measure its first token."""
        if scope["type"] != "http" or not scope["path"].endswith("/runs/stream"):
            await self._app(scope, receive, send)
            return
        started, waits = time.monotonic(), True

        async def sending(message: Message) -> None:
            nonlocal waits
            if waits and _TOKEN in message.get("body", b""):
                waits = False
                FIRST_TOKEN_SECONDS.observe(time.monotonic() - started)
            await send(message)

        await self._app(scope, receive, sending)


def _request_id(metadata: Mapping[str, Any]) -> str | None:
    found = metadata.get("request_id") or metadata.get("langgraph_request_id")
    return str(found)[:_LONGEST] if found else None


def _count(written: Mapping[str, Any], run: _Run) -> Iterator[tuple[str, Any]]:
    """Count the proposals that a node wrote; yield each model and the usage to pay for."""
    for proposal in records_in(written, "proposals"):
        model, status = _label(proposal["model"]), proposal["status"]
        run.statuses[status] = run.statuses.get(status, 0) + 1
        PROPOSALS.labels(model, status).inc()
        if proposal["attempts"]:
            PROPOSAL_SECONDS.labels(model).observe(proposal["latency"])
        yield proposal["model"], proposal["usage"]
    for decision in records_in(written, "decisions"):
        yield str(decision.get("model") or _OTHER), decision.get("usage")
    for message in records_in(written, "messages"):
        if isinstance(message, BaseMessage):
            record = message.response_metadata.get(AGGREGATOR_RECORD) or {}
            yield record.get("model") or _OTHER, getattr(message, "usage_metadata", None)


def _pay(model: str, usage: Any, run: _Run) -> None:
    if not usage:
        return
    label = _label(model)
    TOKENS.labels(label, "input").inc(usage["input_tokens"])
    TOKENS.labels(label, "output").inc(usage["output_tokens"])
    run.tokens += usage["input_tokens"] + usage["output_tokens"]
    if (price := _price(model)) is not None:
        dollars = Amount.used(usage, price).usd
        DOLLARS.labels(label).inc(dollars)
        run.dollars += dollars


@lru_cache(maxsize=_MOST_MODELS)
def _price(model: str) -> Price | None:
    try:
        return known_price(model, None)
    except ImportError:
        return None


def _label(model: str) -> str:
    """Return a model's name as a label; one name for all models above the maximum.

    The models that the operator names are not counted.
    """
    model = model[:_LONGEST]
    if model in _operators_models() or model in _names:
        return model
    if len(_names) == _MOST_MODELS:
        return _OTHER
    _names.add(model)
    return model


@cache
def _operators_models() -> frozenset[str]:
    """Return the models of the presets and of `MOA_ALLOWED_MODELS`, with and without provider."""
    named = set(SETTINGS.allowed_names)
    named.update(model for preset in PRESETS.values() for model in preset.models())
    return frozenset({*named, *(one.partition(":")[2] for one in named)})
