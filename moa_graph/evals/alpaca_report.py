"""Report of AlpacaEval results next to the published leaderboard."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moa_graph.evals.files import (
    EvalError,
    Row,
    read_text,
)
from moa_graph.evals.tables import table

ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
"""Judge of the AlpacaEval 2.0 leaderboard: GPT-4 Turbo with weighted preferences."""

_NEIGHBOURS = 2

_PAPER = ("Together-MoA", "Together-MoA-Lite", "gpt-4o-2024-05-13", "gpt4_1106_preview")


def doubts(annotations: Sequence[Row]) -> list[str]:
    """Return warnings if the annotations may not all belong to one model.

    The annotations are counted as they are.

    Args:
        annotations: The rows that are passed to `metrics`.
    """
    said = []
    for field, what in (("generator_2", "models"), ("annotator", "annotators")):
        names = list(dict.fromkeys(str(row[field]) for row in annotations if row.get(field)))
        if len(names) > 1:
            said.append(f"These are annotations of {len(names)} {what}, counted together: {names}.")
    times = Counter(str(row["instruction"]) for row in annotations if row.get("instruction"))
    if twice := sum(n > 1 for n in times.values()):
        said.append(f"{twice} instructions are annotated more than once, and count each time.")
    return said


def leaderboard(path: Path | None = None) -> dict[str, dict[str, float | None]]:
    """Return the rows of the published leaderboard by model.

    Args:
        path: A CSV file; by default the file included in the package.
    """
    if path is None:
        with package_of() as alpaca_eval:
            folder = Path(alpaca_eval.__file__).parent
        path = folder / "leaderboards/data_AlpacaEval_2" / f"{ANNOTATOR}_leaderboard.csv"
    rows = list(csv.DictReader(io.StringIO(read_text(path))))
    if not rows or "win_rate" not in rows[0]:
        raise EvalError(f"{path} is not a leaderboard: it has no column win_rate.")
    name = next(iter(rows[0]))
    return {row[name]: {k: _float(row[k]) for k in rows[0] if k and k != name} for row in rows}


def report(name: str, found: Row, published: Mapping[str, Mapping[str, float | None]]) -> str:
    """Return a table of the model, its published row, its neighbours and the paper's models."""
    by = "win_rate" if found["length_controlled_winrate"] is None else "length_controlled_winrate"
    mine = found[by]
    ranked = sorted(
        (model for model in published if published[model].get(by) is not None),
        key=lambda model: -(published[model][by] or 0),
    )
    above = [m for m in ranked if (published[m][by] or 0) > mine and m != name][-_NEIGHBOURS:]
    below = [m for m in ranked if (published[m][by] or 0) <= mine and m != name][:_NEIGHBOURS]
    shown = {*above, *below, *_PAPER} & set(published) - {name}
    rows: list[tuple[float, list[Any]]] = [(mine, [f"**{name}**", *_cells(found)])]
    if name in published:
        rows.append((mine - 1e-9, [f"{name} (published)", *_cells(published[name])]))
    rows += [(published[m].get(by) or 0, [m, *_cells(published[m])]) for m in shown]
    rows.sort(key=lambda row: -row[0])
    text = table(
        ["model", "LC win rate", "LC s.e.", "win rate", "s.e.", "discrete", "length", "n"],
        [row for _, row in rows],
    )
    notes = [f"Judged: {found['n_total']} answers; ranked by {by}."]
    known = found.get("avg_length_of", found["n_total"])
    if known != found["n_total"]:
        notes.append(f"The length is the mean of the {known:g} answers whose text is known.")
    if note := found.get("length_controlled_note"):
        notes.append(f"Length-controlled win rate: {note}.")
    return "\n".join([text, "", *notes])


def _cells(row: Mapping[str, Any]) -> list[Any]:
    return [
        row.get("length_controlled_winrate"),
        row.get("lc_standard_error"),
        row["win_rate"],
        row.get("standard_error"),
        row.get("discrete_win_rate"),
        None if row.get("avg_length") is None else int(row["avg_length"]),
        None if row.get("n_total") is None else int(row["n_total"]),
    ]


@contextlib.contextmanager
def package_of() -> Iterator[Any]:
    """Import the package without changes to process-wide logging or output on stderr."""
    root = logging.getLogger()
    level = root.level
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        import alpaca_eval  # noqa: PLC0415 - needs [evals]

        previous = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        try:
            yield alpaca_eval
        finally:
            logging.disable(previous)
            root.setLevel(level)


def _float(text: str | None) -> float | None:
    try:
        return float(text or "")
    except ValueError:
        return None
