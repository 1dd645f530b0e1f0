"""How long a run takes when one call of twenty is ten times slower."""

from __future__ import annotations

from statistics import quantiles
from typing import Any

from tests.benchmarks import contenders
from tests.benchmarks.report import Table
from tests.benchmarks.server import Server

MEDIAN = 0.2  # seconds of a call
LAYERS, PROPOSERS, AT_ONCE = 2, 6, 8
OURS = {
    "moa-graph, wait for all": {},
    "moa-graph, quorum": {"quorum": 4, "grace": 0.1},
    "moa-graph, hedging": {"hedge": "2x"},
    "moa-graph, quorum and hedging": {"quorum": 4, "grace": 0.1, "hedge": "2x"},
}


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """The same latencies for everybody: log-normal, one of twenty ten times slower.

    Only proposers have them; the aggregator takes the median. It would hide in its own tail what
    a layer can do about its.
    """
    rows = {}
    runs = 120 if quick else 400
    jobs = {name: ("moa-graph", options) for name, options in OURS.items()}
    others = [
        n for n in contenders.available(peers) if not n.startswith(("moa-graph", "langgraph"))
    ]
    jobs |= {name: (name, {}) for name in others}
    for name, (contender, options) in jobs.items():
        server.reset()
        result = contenders.measure(
            contender, url=server.url, layers=LAYERS, proposers=PROPOSERS,
            behaviour=f"tail={MEDIAN}", aggregator_behaviour=f"latency={MEDIAN}", runs=runs,
            at_once=AT_ONCE, options=options, warmup=AT_ONCE,
        )  # fmt: skip
        if result:
            rows[name] = sorted(result["walls"].values())
    return {"median_call": MEDIAN, "seconds": rows}


def tables(result: dict[str, Any]) -> list[Table]:
    """Quantiles of the whole run, in seconds."""
    title = (
        f"{PROPOSERS} proposers, calls of about {MEDIAN} s, 5 % ten times slower: seconds of a run"
    )
    table = Table(title, ["median", "p95", "p99", "max"])
    for name, walls in result["seconds"].items():
        cuts = quantiles(walls, n=100, method="inclusive")
        table.add(name, [cuts[49], cuts[94], cuts[98], walls[-1]])
    return [table]


def plot(result: dict[str, Any], axes: Any) -> None:
    """The share of runs that take longer than that many seconds."""
    for name, walls in result["seconds"].items():
        share = [1 - i / len(walls) for i in range(len(walls))]
        style = "-" if name.startswith("moa-graph") else ":"
        axes.plot(walls, share, style, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("seconds of a run")
    axes.set_ylabel("share of runs that take longer")
    axes.set_title("Tail: 5 % of the calls are ten times slower")
    axes.legend(fontsize=7)
