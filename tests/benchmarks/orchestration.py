"""What orchestration costs: wall time over the critical path of the server's own latencies, CPU."""

from __future__ import annotations

from statistics import median
from typing import Any

from tests.benchmarks import contenders
from tests.benchmarks.report import Table
from tests.benchmarks.server import Server, critical_paths

SHAPES = [(2, 4), (2, 6), (3, 4), (3, 6)]
AT_ONCE = [1, 64]
TWO = "conclave-cli"  # has two layers only


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """Every contender in every shape, with calls of one second and of none."""
    names = contenders.available(peers)
    rows = []
    for layers, proposers in SHAPES[:1] if quick else SHAPES:
        for at_once in AT_ONCE:
            for latency in (1.0, 0.0):
                for name in names:
                    if name == TWO and layers > 2:
                        continue
                    rows += _measure(server, name, layers, proposers, at_once, latency, quick)
    return {"rows": rows}


def _measure(
    server: Server,
    name: str,
    layers: int,
    proposers: int,
    at_once: int,
    latency: float,
    quick: bool,
) -> list[dict[str, Any]]:
    runs = at_once if latency else max(at_once, 64)
    if latency and at_once == 1:
        runs = 2 if quick else 5
    server.reset()
    result = contenders.measure(
        name, url=server.url, layers=layers, proposers=proposers, behaviour=f"latency={latency}",
        runs=runs, at_once=at_once, warmup=min(at_once, 8),
    )  # fmt: skip
    if result is None:
        return []
    paths = critical_paths(server.calls())
    over = [wall / paths[run] for run, wall in result["walls"].items() if paths.get(run)]
    where = {"contender": name, "layers": layers, "proposers": proposers, "at_once": at_once}
    return [
        where
        | {
            "latency": latency,
            "wall": median(result["walls"].values()),
            "over_critical_path": median(over),
            "cpu": result["cpu"],
            "errors": len(result["errors"]),
        }
    ]


def tables(result: dict[str, Any]) -> list[Table]:
    """One table for the wall time at calls of a second, one for the CPU at calls of none."""
    rows = result["rows"]
    places = sorted({(r["layers"], r["proposers"], r["at_once"]) for r in rows})
    heads = [f"{la}x{p}, {n} at once" for la, p, n in places]
    names = list(dict.fromkeys(r["contender"] for r in rows))

    def value(name: str, place: Any, latency: float, key: str) -> float | None:
        found = [
            r[key]
            for r in rows
            if (r["contender"], r["layers"], r["proposers"], r["at_once"]) == (name, *place)
            and r["latency"] == latency
        ]
        return found[0] if found else None

    def ratio(name: str, place: Any) -> float | None:
        own, base = value(name, place, 0.0, "cpu"), value("langchain script", place, 0.0, "cpu")
        return own / base if own is not None and base else None

    wall = Table("calls of 1 s: wall time over the critical path (median of runs)", heads)
    cpu = Table("calls of 0 s: CPU of a run over the same script on LangChain's models", heads)
    milliseconds = Table("calls of 0 s: CPU of a run, ms", heads)
    for name in names:
        wall.add(name, [value(name, place, 1.0, "over_critical_path") for place in places])
        cpu.add(name, [ratio(name, place) for place in places])
        times = [value(name, place, 0.0, "cpu") for place in places]
        milliseconds.add(name, [t and t * 1000 for t in times], digits=1)
    return [wall, cpu, milliseconds]


def plot(result: dict[str, Any], axes: Any) -> None:
    """Bars: wall over critical path of the largest shape measured."""
    rows = [r for r in result["rows"] if r["latency"] == 1.0]
    shape = max((r["layers"], r["proposers"]) for r in rows)
    names = list(dict.fromkeys(r["contender"] for r in rows))
    for offset, at_once in enumerate(AT_ONCE):
        values = [
            next(
                (
                    r["over_critical_path"]
                    for r in rows
                    if (r["layers"], r["proposers"]) == shape
                    and r["contender"] == name
                    and r["at_once"] == at_once
                ),
                0,
            )
            for name in names
        ]
        places = [i + 0.4 * offset for i in range(len(names))]
        axes.barh(places, values, height=0.35, label=f"{at_once} at once")
    axes.set_yticks([i + 0.2 for i in range(len(names))], names)
    axes.axvline(1, color="grey", linewidth=0.8)
    axes.set_xlabel(
        f"wall time / critical path ({shape[0]} layers, {shape[1]} proposers, calls of 1 s)"
    )
    axes.set_title("Orchestration")
    axes.legend()
