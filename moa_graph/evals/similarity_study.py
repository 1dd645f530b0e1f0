"""Similarity between proposals and the aggregate: BLEU, TF-IDF and Levenshtein.

Section 3.3 of the paper (arXiv 2406.04692) finds that the aggregate is most similar to the
proposals that a judge prefers, by Spearman's rank correlation.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from moa_graph.evals import intervals
from moa_graph.evals.files import EvalError, Row, name_of, read_rows
from moa_graph.evals.intervals import Interval
from moa_graph.evals.tables import table

MEASURES = ("bleu", "tf_idf", "levenshtein")
"""BLEU is from 0 to 100 as in `sacrebleu`, the other measures are from 0 to 1."""
_HIGHEST = {"bleu": 100.0, "tf_idf": 1.0, "levenshtein": 1.0}
_FEWEST = 2  # a rank correlation needs more values than this


def similarities(aggregate: str, proposals: Sequence[str]) -> list[dict[str, float]]:
    """Compute the similarity of each proposal to the aggregate.

    Args:
        aggregate: The aggregator's answer.
        proposals: The proposals given to the aggregator.

    Returns:
        For each proposal, `bleu` (`sacrebleu.sentence_bleu(aggregate, [proposal]).score`), `tf_idf`
        (cosine similarity with scikit-learn's `TfidfVectorizer`, fitted on the aggregate and all
        proposals of this question) and `levenshtein`
        (`rapidfuzz.distance.Levenshtein.normalized_similarity`).
    """
    import sacrebleu  # noqa: PLC0415 - needs [evals]
    from rapidfuzz.distance import Levenshtein  # noqa: PLC0415
    from sklearn.feature_extraction.text import TfidfVectorizer  # noqa: PLC0415
    from sklearn.metrics.pairwise import cosine_similarity  # noqa: PLC0415

    try:
        matrix = TfidfVectorizer().fit_transform([aggregate, *proposals])
        cosines = cosine_similarity(matrix[:1], matrix[1:])[0]
    except ValueError:  # the texts have no words
        cosines = [0.0] * len(proposals)
    return [
        {
            "bleu": sacrebleu.sentence_bleu(aggregate, [proposal]).score,
            "tf_idf": float(cosine),
            "levenshtein": Levenshtein.normalized_similarity(aggregate, proposal),
        }
        for proposal, cosine in zip(proposals, cosines, strict=True)
    ]


def study(
    aggregate: Path,
    proposals: Sequence[Path],
    *,
    win_rates: Mapping[str, float] | None = None,
    annotations: Sequence[Path] = (),
    limit: int | None = None,
) -> Row:
    """Compare recorded aggregates with their recorded proposals.

    Args:
        aggregate: A file with `instruction` and `output`.
        proposals: One such file for each proposer, with all instructions of the aggregate.
        win_rates: Scores by generator, such as win rates on a leaderboard.
        annotations: Files with preferences of a judge (`instruction`, `generator_2` and
            `preference`), for a correlation within each question.
        limit: Maximum number of instructions, from the start; all by default.

    Returns:
        `aggregate` (its generator), `n`, `proposers` (by generator, an interval for each measure),
        `spearman` (by measure, `value` and `p` of the correlation over proposers between mean
        similarity and `win_rates`; None with fewer than three win rates), and `spearman_within` (by
        measure, an interval over questions; None without annotations).

    Raises:
        EvalError: If a file has another format, or an instruction has no proposal.
    """
    base = _outputs(aggregate)
    asked = list(base[1])[:limit]
    if not asked:
        raise EvalError(f"{aggregate} has no outputs.")
    others = [_outputs(path) for path in proposals]
    if not others:
        raise EvalError("Give the files of at least one proposer.")
    names = [name for name, _ in others]
    for path, (name, outputs) in zip(proposals, others, strict=True):
        if names.count(name) > 1:
            raise EvalError(f"Two files have the generator {name!r}.")
        if missing := [text for text in asked if text not in outputs]:
            raise EvalError(
                f"{path} has no output for {len(missing)} of {len(asked)} instructions, such as "
                f"{missing[0][:60]!r}."
            )
    by_question = [
        similarities(base[1][text], [outputs[text] for _, outputs in others]) for text in asked
    ]
    found = {
        name: {
            m: intervals.mean([row[i][m] for row in by_question], highest=_HIGHEST[m])
            for m in MEASURES
        }
        for i, name in enumerate(names)
    }
    preferences = _preferences(annotations, names)
    return {
        "aggregate": base[0],
        "n": len(asked),
        "proposers": {n: {m: f.as_dict() for m, f in of.items()} for n, of in found.items()},
        "spearman": _over_proposers(found, win_rates or {}),
        "spearman_within": _within(asked, names, by_question, preferences) if preferences else None,
    }


def _outputs(path: Path) -> tuple[str, dict[str, str]]:
    rows = read_rows(path, ["instruction", "output"])
    for i, row in enumerate(rows, 1):
        if not isinstance(row["output"], str | None):
            raise EvalError(f"{path}, row {i}: `output` must be a string.")
    name = str(rows[0].get("generator") or name_of(path))
    return name, {
        str(row["instruction"]): row["output"] for row in rows if row["output"] is not None
    }


def _over_proposers(
    found: Mapping[str, Mapping[str, Interval]], win_rates: Mapping[str, float]
) -> Row | None:
    from scipy.stats import spearmanr  # noqa: PLC0415 - needs [evals]

    known = [name for name in found if name in win_rates]
    if len(known) <= _FEWEST:
        return None
    result: Row = {"proposers": known}
    for measure in MEASURES:
        with warnings.catch_warnings():  # undefined if all values are equal
            warnings.simplefilter("ignore")
            of = spearmanr([found[n][measure].value for n in known], [win_rates[n] for n in known])
        if math.isfinite(of.statistic):
            result[measure] = {"value": float(of.statistic), "p": float(of.pvalue)}
    return result


def _preferences(paths: Sequence[Path], names: Sequence[str]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for path in paths:
        for row in read_rows(path, ["instruction", "generator_2", "preference"]):
            if row["generator_2"] in names and row["preference"] is not None:
                of = found.setdefault(str(row["generator_2"]), {})
                if not isinstance(row["preference"], int | float):
                    raise EvalError(f"{path}: {row['preference']!r} is not a preference.")
                of[str(row["instruction"])] = float(row["preference"])
    return found


def _within(
    asked: Sequence[str],
    names: Sequence[str],
    by_question: Sequence[Sequence[Mapping[str, float]]],
    preferences: Mapping[str, Mapping[str, float]],
) -> Row:
    from scipy.stats import spearmanr  # noqa: PLC0415 - needs [evals]

    result: Row = {}
    for measure in MEASURES:
        values = []
        for text, rows in zip(asked, by_question, strict=True):
            known = [i for i, name in enumerate(names) if text in preferences.get(name, {})]
            if len(known) <= _FEWEST:
                continue
            with warnings.catch_warnings():  # undefined if all values are equal
                warnings.simplefilter("ignore")
                of = spearmanr(
                    [rows[i][measure] for i in known],
                    [preferences[names[i]][text] for i in known],
                ).statistic
            if math.isfinite(of):
                values.append(float(of))
        result[measure] = intervals.mean(values, lowest=-1).as_dict() if values else None
    return result


def report(found: Row) -> str:
    """Return the study as a table, most similar proposer first, with the correlations."""
    of = found["proposers"]
    ranked = sorted(of, key=lambda name: -of[name]["tf_idf"]["value"])
    parts = [
        f"Similarity to {found['aggregate']}, means over {found['n']} instructions, 95 % intervals",
        "",
        table(
            ["proposer", "BLEU (0–100)", "TF-IDF (0–1)", "Levenshtein (0–1)"],
            [[name, *(str(Interval(**of[name][m])) for m in MEASURES)] for name in ranked],
        ),
    ]
    if over := found["spearman"]:
        told = ", ".join(
            f"{m.replace('_', '-')} {over[m]['value']:+.2f} (p = {over[m]['p']:.2f})"
            for m in MEASURES
            if m in over
        )
        n = len(over["proposers"])
        parts += ["", f"Spearman with the win rates of {n} proposers: {told}."]
        parts += [f"With {n} proposers, only a correlation near 1 or -1 says anything."]
    if within := found["spearman_within"]:
        told = ", ".join(
            f"{m.replace('_', '-')} {Interval(**within[m])}" for m in MEASURES if within[m]
        )
        parts += ["", f"Spearman with the judge's preferences, mean within questions: {told}."]
    return "\n".join(parts)
