"""What each strategy costs: calls, tokens and time, as multiples of the single model's.

A server gives the first token after 0.1 s and 100 tokens a second; answers have 128 tokens, a
judge's two. All proposers say the same, so that early exits and first passes show their best; what
they cost when there is no agreement is in a row of its own.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import sklearn.feature_extraction.text  # noqa: F401 - not within what is measured
from langchain_openai import ChatOpenAI

from moa_graph import Proposer
from moa_graph.strategies import (
    Agree,
    Analyse,
    ClusterAndFilter,
    Deduplicate,
    Diverse,
    DropoutAndCluster,
    DropoutAndVote,
    JudgedAgreement,
    MostCentral,
    PeerReview,
    Rank,
    Residual,
    Route,
    SelfMoASeq,
    Shuffle,
    Similar,
    Staircase,
    TopK,
    Tree,
    Unchanged,
    Vote,
)
from moa_graph.strategies.experimental import Chunkwise
from tests.benchmarks.report import Table
from tests.benchmarks.server import Server
from tests.mixtures import mixture_of

LATENCY, TOKENS_PER_SECOND, TOKENS, PROPOSERS = 0.1, 100, 128, 4
QUESTION = {"messages": [("user", "Write 128 words.")]}
SENTENCES = [" ".join(f"w{i:03}" for i in range(n, n + 16)) for n in range(0, TOKENS, 16)]
ANSWER = ". ".join(SENTENCES)


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """Every strategy once."""
    del peers
    rows: dict[str, dict[str, float]] = {}
    with asyncio.Runner() as runner:
        for name, arguments in _jobs(server).items():
            if quick and len(rows) > 4:
                break
            server.reset()
            server.answer(ANSWER)
            server.answer("2", "judge")
            server.answer("1 2", "judge of two")
            server.answer("yes", "judge of agreement")
            rows[name] = runner.run(_measure(server, arguments))
    return {"rows": rows}


def _jobs(server: Server) -> dict[str, dict[str, Any] | None]:
    def chat(label: str) -> ChatOpenAI:
        behaviour = f"writes&latency={LATENCY}&tps={TOKENS_PER_SECOND}"
        return ChatOpenAI(
            model=f"{label}?{behaviour}", base_url=server.url, api_key="none", stream_usage=True
        )

    agg, judge = chat("agg"), chat("judge")
    differing = Route(chat("cheap"), samples=3, parse=_never_the_same())
    return {
        "single model": None,
        "synthesize (the paper's)": {"aggregator": agg},
        "synthesize, 3 layers": {"aggregator": agg, "layers": 3},
        "staircase": {"aggregator": agg, "progressive": Staircase()},
        "staircase, 3 layers": {"aggregator": agg, "progressive": Staircase(), "layers": 3},
        "chunk-wise": {"aggregator": agg, "progressive": Chunkwise()},
        "Rank": {"aggregator": Rank(judge)},
        "Vote": {"aggregator": Vote()},
        "MostCentral": {"aggregator": MostCentral()},
        "PeerReview": {"aggregator": PeerReview()},
        "PeerReview(writer, top=2)": {"aggregator": PeerReview(agg, top=2)},
        "Analyse": {"aggregator": Analyse(agg)},
        "Self-MoA, 4 samples": {"proposers": [Proposer(agg, samples=4)], "aggregator": agg},
        "SelfMoASeq, 16 samples": {
            "proposers": [Proposer(agg, samples=16)],
            "aggregator": SelfMoASeq(agg, window=6),
        },
        "TopK(2, judge), 3 layers": {
            "aggregator": agg,
            "select": TopK(2, judge=chat("judge of two")),
            "layers": 3,
        },
        "TopK(2), 3 layers": {"aggregator": agg, "select": TopK(2), "layers": 3},
        "Diverse(2), 3 layers": {"aggregator": agg, "select": Diverse(2), "layers": 3},
        "Deduplicate, 3 layers": {"aggregator": agg, "select": Deduplicate(), "layers": 3},
        "Tree(2), 3 layers": {"aggregator": agg, "select": Tree(2), "layers": 3},
        "Residual, 3 layers": {"aggregator": agg, "select": Residual(), "layers": 3},
        "ClusterAndFilter, 6 proposers": {
            "proposers": [Proposer(agg, samples=6)],
            "aggregator": agg,
            "select": ClusterAndFilter(judge=judge),
        },
        "DropoutAndVote, 5 subsets": {"aggregator": DropoutAndVote(agg)},
        "DropoutAndCluster, 5 subsets": {"aggregator": DropoutAndCluster(agg)},
        "Agree, 3 layers": {"aggregator": agg, "until": Agree(), "layers": 3},
        "Similar, 3 layers": {"aggregator": agg, "until": Similar(), "layers": 3},
        "JudgedAgreement, 3 layers": {
            "aggregator": agg,
            "until": JudgedAgreement(chat("judge of agreement")),
            "layers": 3,
        },
        "Unchanged, 4 layers": {"aggregator": agg, "until": Unchanged(), "layers": 4},
        "Shuffle": {"aggregator": agg, "select": Shuffle()},
        "fenced": {"aggregator": agg, "fenced": True},
        "Agree(then='answer')": {"aggregator": agg, "until": Agree(then="answer")},
        "Route, alone": {"aggregator": agg, "route": Route(chat("cheap"), samples=3)},
        "Route, mixture": {"aggregator": agg, "route": differing},
    }


def _never_the_same() -> Any:
    numbers = iter(range(1_000_000))
    return lambda _: next(numbers)


async def _measure(server: Server, arguments: dict[str, Any] | None) -> dict[str, float]:
    if arguments is None:
        behaviour = f"writes&latency={LATENCY}&tps={TOKENS_PER_SECOND}"
        model = ChatOpenAI(model=f"single?{behaviour}", base_url=server.url, api_key="none")
        stream = model.astream(QUESTION["messages"])
    else:
        given = {"proposers": _four(server), **arguments}
        stream = mixture_of(**given).astream(QUESTION, stream_mode="messages")
    started = time.perf_counter()
    first = None
    async for event in stream:
        chunk = event[0] if isinstance(event, tuple) else event
        if chunk.text and first is None:
            first = time.perf_counter() - started
    total = time.perf_counter() - started
    return {"first": first or total, "total": total, **server.totals()}


def _four(server: Server) -> list[ChatOpenAI]:
    behaviour = f"writes&latency={LATENCY}&tps={TOKENS_PER_SECOND}"
    return [
        ChatOpenAI(model=f"p{i}?{behaviour}", base_url=server.url, api_key="none")
        for i in range(PROPOSERS)
    ]


def tables(result: dict[str, Any]) -> list[Table]:
    """Multiples of the single model."""
    rows = result["rows"]
    base = rows["single model"]
    title = (
        f"{PROPOSERS} proposers, first token after {LATENCY} s, {TOKENS_PER_SECOND} tokens a second, "
        f"answers of {TOKENS} tokens: multiples of the single model"
    )
    table = Table(title, ["calls", "read, answers", "written", "first token", "whole time"])
    for name, row in rows.items():
        keys = ("calls", "prompt", "completion", "first", "total")
        units = {**base, "prompt": TOKENS}  # a single model reads nothing but the question
        values = [row[key] / units[key] for key in keys]
        table.add(name, values, digits=1)
    return [table]


def plot(result: dict[str, Any], axes: Any) -> None:
    """Time against tokens written."""
    rows = result["rows"]
    base = rows["single model"]
    for name, row in rows.items():
        x, y = row["completion"] / base["completion"], row["total"] / base["total"]
        axes.plot(x, y, "o", markersize=4)
        axes.annotate(name, (x, y), fontsize=5, xytext=(3, 2), textcoords="offset points")
    axes.set_xlabel("completion tokens, multiples of the single model's")
    axes.set_ylabel("whole time, multiples")
    axes.set_title("What strategies cost")
