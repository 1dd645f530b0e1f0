"""Markdown report of a comparison."""

from __future__ import annotations

from typing import Any

from moa_graph.evals.files import Row
from moa_graph.evals.intervals import Interval
from moa_graph.evals.tables import table


def report(found: Row) -> str:
    """Return the report of a comparison as Markdown."""
    judged = found["measure"] == "win rate"
    title = f"# {found['dataset']}: {found['n']} questions"
    how = (
        f"Win rates against {found['baseline']}, judged by {found['judge']['name']} in both orders."
        if judged
        else "Accuracy by the scorer."
    )
    headers = ["configuration", f"{found['measure']}, %"]
    scored = judged and all("accuracy" in row for row in found["targets"].values())
    if scored:
        headers.append("accuracy, %")
    if judged:
        headers += ["length-controlled, %", "won", "lost", "tied", "by order"]
    headers += ["$", "calls", "tokens in", "out", "seconds", "p95", "first token", "characters", ""]
    rows = []
    for name, row in found["targets"].items():
        cells: list[Any] = [name, Interval(**row["quality"]).percent()]
        if scored:
            cells.append(Interval(**row["accuracy"]).percent())
        if judged:
            controlled = row.get("length_controlled")
            cells += [Interval(**controlled).percent() if controlled else None]
            cells += [row.get(field) for field in ("wins", "losses", "ties", "by_order")]
        tokens = row["tokens"] or {}
        cells += [
            None if row["cost"] is None else f"{row['cost']:.3g}",
            f"{row['calls']:.2f}".removesuffix(".00"),
            *(round(tokens[k]) if tokens else None for k in ("input", "output")),
            row["latency"]["median"],
            row["latency"]["p95"],
            row["first_token"],
            round(row["characters"]),
            "dominated" if row["dominated"] else "",
        ]
        rows.append(cells)
    parts = [
        title,
        "",
        f"{how} Intervals are of 95 % confidence, over questions; costs are means a question.",
        "",
        table(headers, rows),
        "",
        *(f"- {sentence}" for sentence in found["says"]),
    ]
    if found["literature"]:
        parts += ["", _literature(found["literature"])]
    if found["failures"]:
        told = [f"{f['target']}, item {f['item']}: {f['error']}" for f in found["failures"]]
        left = f"{found['asked'] - found['n']} of {found['asked']}"
        said = (
            f"{len(told)} answers failed. Their questions are left out for all ({left}); the next"
        )
        parts += ["", f"{said} run tries them again:"]
        parts += [f"- {sentence}" for sentence in told[:20]]
        if len(told) > 20:  # noqa: PLR2004
            parts.append(f"- … and {len(told) - 20} more, in report.json.")
    return "\n".join(parts)


def _literature(rows: list[Row]) -> str:
    return table(
        ["what publications say", "arXiv", "this run", "difference, points"],
        [
            [
                row["claim"],
                row["source"],
                row["verdict"],
                f"{row['first']} minus {row['second']}: {Interval(**row['difference']).percent()}",
            ]
            for row in rows
        ],
    )
