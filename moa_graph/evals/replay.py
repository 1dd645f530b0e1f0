"""Evaluate voting strategies on recorded answers, without calls to models.

Recorded answers replace the proposers, and the strategies of the graph choose among them.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from moa_graph.calling.sync import run
from moa_graph.errors import MoAError
from moa_graph.evals import intervals
from moa_graph.evals.files import EvalError, Row
from moa_graph.evals.intervals import Interval
from moa_graph.evals.pools.answers import usable_models
from moa_graph.evals.pools.choosing import vote_weight
from moa_graph.evals.recorded import RecordedProposals
from moa_graph.evals.tables import table
from moa_graph.evals.verifiable import RecordedModel, RecordedSet
from moa_graph.graph import create_moa
from moa_graph.layers import Proposer
from moa_graph.strategies.aggregate import AnswerStrategy
from moa_graph.strategies.rank import MostCentral
from moa_graph.strategies.vote import Vote

_FOLDS = 5
_SEED = 0
_FEWEST, _POOL = 2, 5
_AT_ONCE = 16

RANDOM, MAJORITY, WEIGHTED = "random pick", "majority", "weighted vote, cross-fitted"
AGREEMENT, ORACLE, BEST = "agreement by TF-IDF", "oracle", "best model, cross-fitted"


def accuracies(recorded: RecordedSet) -> list[Row]:
    """Return the accuracy of every recorded model, with the published accuracy.

    Returns:
        Rows with `model`, `accuracy` and `published` (percent; `accuracy` has two decimals), `n`,
        `interval`, `no_answer` (percent), `replies` (whether full replies are recorded),
        `disagreeing` (number of recorded verdicts that differ from the parsed reply), and `cause`
        (why the accuracy is not as published; None if it is, or if none was published).
    """
    rows = []
    for model in sorted(recorded.models.values(), key=lambda m: -m.accuracy):
        answers = list(model.answers.values())
        rows.append(
            {
                "model": model.name,
                "accuracy": round(100 * model.accuracy, 2),
                "published": model.published,
                "n": len(answers),
                "interval": _interval(recorded, model).as_dict(),
                "no_answer": round(100 * sum(a.answer is None for a in answers) / len(answers), 2),
                "replies": model.has_replies,
                "disagreeing": len(model.disagreeing),
                "cause": _cause(recorded, model),
            }
        )
    return rows


def _cause(recorded: RecordedSet, model: RecordedModel) -> str | None:
    if model.published in {None, round(100 * model.accuracy, 2)}:
        return None
    if (n := len(model.answers)) < len(recorded.questions):
        return f"{n} of {len(recorded.questions)} answers are recorded"
    if model.has_verdicts:
        return "the recorded verdicts give it, so other answers were published"
    return "the answers are read differently here, or other answers were published"


def _interval(recorded: RecordedSet, model: RecordedModel) -> Interval:
    groups = [recorded.group(key) for key in model.answers]
    return intervals.mean([float(a.correct) for a in model.answers.values()], groups=groups)


def default_pools(recorded: RecordedSet) -> dict[str, list[str]]:
    """Return three pools where voting wins or loses, chosen only by accuracy.

    `similar` has the five models of the lower half with the closest accuracies, `strong with weak`
    the best model and the four weakest, and `all` every model. Only models that answered every
    question are used; with at least five such models with full replies, only those. With two to
    five models there is only `all`, and with fewer than two there is no pool.
    """
    usable = [m for m in recorded.models.values() if _covers(m, recorded) and m.has_replies]
    if len(usable) < _POOL:
        usable = [m for m in recorded.models.values() if _covers(m, recorded)]
    ranked = sorted(usable, key=lambda m: (m.accuracy, m.name))
    if len(ranked) < _FEWEST:
        return {}
    names = [m.name for m in ranked]
    if len(ranked) <= _POOL:
        return {"all": names[::-1]}
    lower = ranked[: max(_POOL, (len(ranked) + 1) // 2)]
    windows = [lower[i : i + _POOL] for i in range(len(lower) - _POOL + 1)]
    similar = min(windows, key=lambda w: (w[-1].accuracy - w[0].accuracy, -w[0].accuracy))
    return {
        "similar": [m.name for m in reversed(similar)],
        "strong with weak": [names[-1], *reversed(names[: _POOL - 1])],
        "all": names[::-1],
    }


def _covers(model: RecordedModel, recorded: RecordedSet) -> bool:
    return len(model.answers) == len(recorded.questions)


def replay(
    recorded: RecordedSet,
    pool: Sequence[str],
    *,
    limit: int | None = None,
    title: str = "replay",
    quiet: bool = False,
) -> Row:
    """Compute the accuracy of each strategy with a pool of recorded models.

    Only questions that all members of the pool were asked count. In a tied vote, the first member
    of the pool wins.

    Args:
        recorded: The result of `read_set`.
        pool: Names of at least two models.
        limit: Maximum number of questions, from the start; all by default.
        title: Title of the progress bar.
        quiet: Whether to hide the progress bar.

    Returns:
        `pool`, `n`, `strategies` (accuracy intervals by strategy), `against_best` (paired
        differences to the best model by strategy; the best model is chosen on other questions than
        it is scored on), and `correct` (by strategy, one value from 0 to 1 for each question). The
        agreement by TF-IDF is None if full replies are not recorded.

    Raises:
        EvalError: If a model is unknown or named twice, or there are fewer than two models.
    """
    members = usable_models(recorded, pool)
    keys = [k for k in recorded.questions if all(k in m.answers for m in members)][:limit]
    if not keys:
        raise EvalError(f"There is no question that all of {', '.join(pool)} were asked.")
    right = {m.name: [float(m.answers[k].correct) for k in keys] for m in members}
    folds = _folds(len(keys))
    correct: dict[str, list[float] | None] = dict(right)
    together = list(zip(*right.values(), strict=True))
    best_of = {fold: _best(right, folds, fold) for fold in set(folds)}
    correct[BEST] = [right[best_of[fold]][i] for i, fold in enumerate(folds)]
    correct[RANDOM] = [sum(row) / len(row) for row in together]
    correct[ORACLE] = [max(row) for row in together]
    votes = {fold: Vote(parse=recorded.parse, weights=w) for fold, w in _weights(right, folds)}
    by_weight = [votes[fold] for fold in folds]
    chosen: dict[str, Sequence[AnswerStrategy] | None] = {
        MAJORITY: [Vote(parse=recorded.parse)] * len(keys),
        WEIGHTED: by_weight,
        AGREEMENT: [MostCentral()] * len(keys) if all(m.has_replies for m in members) else None,
    }
    for name, strategies in chosen.items():
        correct[name] = None
        if strategies:
            correct[name] = _through_graph(
                recorded, members, keys, strategies, title=f"{title}: {name}", quiet=quiet
            )
    order = (*right, BEST, RANDOM, MAJORITY, WEIGHTED, AGREEMENT, ORACLE)
    found = {name: correct[name] for name in order}
    best = found[BEST]
    assert best is not None
    groups = [recorded.group(key) for key in keys]
    return {
        "pool": list(pool),
        "n": len(keys),
        "strategies": {
            n: c and intervals.mean(c, groups=groups).as_dict() for n, c in found.items()
        },
        "against_best": {
            n: (c := found[n]) and intervals.difference(c, best, groups=groups).as_dict()
            for n in (RANDOM, MAJORITY, WEIGHTED, AGREEMENT)
        },
        "correct": found,
    }


def _folds(n: int) -> list[int]:
    folds = [i % _FOLDS for i in range(n)]
    random.Random(_SEED).shuffle(folds)  # noqa: S311 - not for security
    return folds


def _others(values: Sequence[float], folds: Sequence[int], fold: int) -> list[float]:
    return [value for value, f in zip(values, folds, strict=True) if f != fold]


def _best(right: Mapping[str, Sequence[float]], folds: Sequence[int], fold: int) -> str:
    return max(right, key=lambda name: sum(_others(right[name], folds, fold)))


def _weights(
    right: Mapping[str, Sequence[float]], folds: Sequence[int]
) -> list[tuple[int, dict[str, float]]]:
    """Return weights by fold: log-odds of a right answer, from the questions of other folds."""
    return [
        (fold, {name: vote_weight(_others(values, folds, fold)) for name, values in right.items()})
        for fold in set(folds)
    ]


def _through_graph(
    recorded: RecordedSet,
    members: Sequence[RecordedModel],
    keys: Sequence[str],
    strategies: Sequence[AnswerStrategy],
    *,
    title: str,
    quiet: bool,
) -> list[float]:
    """Return a list with 1 for each question with a right chosen answer, else 0."""
    from tqdm import tqdm  # noqa: PLC0415 - needs [evals]

    parse = recorded.parse if isinstance(strategies[0], Vote) else None
    proposers = [
        Proposer(
            RecordedProposals(
                m.name, {(recorded.questions[k],): _reply(m, k, parse) for k in keys}
            ),
            name=f"{i}",
        )
        for i, m in enumerate(members)
    ]
    renamed = {m.name: str(i) for i, m in enumerate(members)}
    graphs = {id(s): create_moa(proposers, _renamed(s, renamed)) for s in strategies}
    bar = tqdm(total=len(keys), desc=title, disable=quiet, mininterval=0.5, dynamic_ncols=True)
    slots = asyncio.Semaphore(_AT_ONCE)

    async def choose(key: str, strategy: AnswerStrategy) -> float:
        async with slots:
            try:
                state = await graphs[id(strategy)].ainvoke({"messages": recorded.questions[key]})
            except MoAError:  # no member has an answer to choose
                return 0.0
            finally:
                bar.update()
        place = state["messages"][-1].response_metadata["chosen_proposal"]["proposer"]
        return float(members[int(place)].answers[key].correct)

    async def choose_all() -> list[float]:
        pairs = zip(keys, strategies, strict=True)
        return await asyncio.gather(*(choose(key, strategy) for key, strategy in pairs))

    with bar:
        return list(run(choose_all()))


def _renamed(strategy: AnswerStrategy, names: Mapping[str, str]) -> AnswerStrategy:
    """Return the strategy for renamed proposers; model names can be invalid as node names."""
    if isinstance(strategy, Vote) and strategy.weights:
        weights = {names[name]: weight for name, weight in strategy.weights.items()}
        return Vote(parse=strategy.parse, weights=weights)
    return strategy


def _reply(model: RecordedModel, key: str, parse: Callable[[str], Any] | None) -> str:
    """Return the reply of a model, or its recorded answer if the reply does not parse to it."""
    recorded = model.answers[key]
    if recorded.reply is not None and (parse is None or parse(recorded.reply) == recorded.answer):
        return recorded.reply
    said = recorded.answer
    if isinstance(said, float) and said.is_integer():
        said = int(said)  # avoid an exponent
    return "" if said is None else json.dumps({"answer": str(said)})


def report(recorded: RecordedSet, models: Sequence[Row], pools: Mapping[str, Row]) -> str:
    """Return accuracies and pools as tables, with sentences about the differences."""
    differing = [row for row in models if row["published"] not in {None, row["accuracy"]}]
    parts = [
        f"## {recorded.name}: {len(recorded.questions)} questions{_repeated(recorded)}",
        "",
        table(
            ["model", "accuracy", "published", "difference", "no answer", "n", "replies"],
            [
                [
                    row["model"],
                    row["accuracy"],
                    row["published"],
                    _difference(row),
                    row["no_answer"],
                    row["n"],
                    "yes" if row["replies"] else "no",
                ]
                for row in models
            ],
        ),
    ]
    if differing:
        told = ", ".join(
            f"{row['model']} ({row['accuracy']:.2f}, {_difference(row)}: {row['cause']})"
            for row in differing
        )
        warning = f"WARNING: {len(differing)} of {len(models)} accuracies are not as published"
        parts += ["", f"**{warning}:** {told}."]
    if other := [row for row in models if row["disagreeing"]]:
        told = ", ".join(f"{row['model']} {row['disagreeing']}" for row in other)
        parts += ["", f"Recorded verdicts that differ from what the replies say here: {told}."]
    if not pools:
        parts += [
            "",
            "Fewer than two models have answered every question: name pools (--pool A,B).",
        ]
    for name, row in pools.items():
        parts += ["", _pool_report(name, row)]
    return "\n".join(parts)


def _repeated(recorded: RecordedSet) -> str:
    """Return how many questions are different, if some are equal; these count once in intervals."""
    distinct = len({recorded.group(key) for key in recorded.questions})
    return "" if distinct == len(recorded.questions) else f" ({distinct} different)"


def _difference(row: Row) -> str | None:
    """Return the accuracy minus the published one, in points; None if they are equal."""
    if row["published"] in {None, row["accuracy"]}:
        return None
    return f"{row['accuracy'] - row['published']:+.2f}"


def _pool_report(name: str, row: Row) -> str:
    lines = []
    for strategy, found in row["strategies"].items():
        against = row["against_best"].get(strategy)
        lines.append(
            [
                strategy,
                None if found is None else Interval(**found).percent(),
                None if against is None else Interval(**against).percent(),
            ]
        )
    text = table(["strategy", "accuracy, %", "minus the best model"], lines)
    said = [
        "- " + intervals.says(strategy, "the best model", Interval(**found))
        for strategy, found in row["against_best"].items()
        if found is not None
    ]
    return "\n".join([f"### {name} ({row['n']} questions)", "", text, "", *said])


def summary(pools: Mapping[str, Row]) -> list[dict[str, Any]]:
    """Return the pools for JSON, without the results by question."""
    return [
        {"name": name, **{field: row[field] for field in row if field != "correct"}}
        for name, row in pools.items()
    ]
