"""Controls of a mixture: what a choice, one model, and one model at equal tokens would answer.

The literature disagrees on which of them is best, so a comparison has all of them by default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from langgraph.cache.base import BaseCache

from moa_graph.evals.answering import answer_all, check_journals, check_names, tokens_of
from moa_graph.evals.datasets import Dataset, Item, Scorer
from moa_graph.evals.experiment import Experiment
from moa_graph.evals.files import EvalError, Row, read_rows, write_json
from moa_graph.evals.intervals import Interval
from moa_graph.evals.targets import Prices, Target, of_configuration, of_model
from moa_graph.presets import load_preset
from moa_graph.presets.configuration import Configuration

_MOST_SAMPLES = 20
_NEARLY = 0.15  # relative difference of tokens that still counts as equal


@dataclass(frozen=True)
class Controls:
    """Names of the targets that belong together.

    Args:
        synthesis: The mixture.
        chosen: The same proposals, of which a judge chooses one.
        alone: The best single model.
        matched: Several answers of that model, for as many tokens as the mixture takes.
    """

    synthesis: str
    chosen: str
    alone: str
    matched: str


@dataclass(frozen=True)
class Mixture:
    """A mixture that synthesizes, with its target and its configuration."""

    target: Target
    configuration: Configuration


def first_synthesis(specs: Sequence[str], targets: Sequence[Target]) -> Mixture | None:
    """Return the first target whose aggregator is a model; None if there is none.

    Args:
        specs: Names or files of the targets, as for `load_target`.
        targets: The targets, in the same order.
    """
    for spec, target in zip(specs, targets, strict=True):
        try:
            configuration = load_preset(spec)
        except (ValueError, TypeError, OSError):
            continue  # a single model
        if configuration.writer is not None:
            return Mixture(target, configuration)
    return None


def with_controls(
    mixture: Mixture,
    targets: Sequence[Target],
    dataset: Dataset,
    folder: Path,
    *,
    prices: Prices,
    cache: Callable[[str], BaseCache[Any]],
    scorer: Scorer | None = None,
    experiment: Experiment | None = None,
    at_once: int = 8,
    quiet: bool = False,
) -> tuple[list[Target], Controls]:
    """Return the targets with the controls of a mixture.

    The mixture is asked first, since the controls depend on it: the best single model is the
    proposer whose proposals in the first layer are right most often, or the aggregator's model if
    there is no scorer; and it answers as often as takes the tokens of the mixture.

    Args:
        mixture: The mixture.
        targets: All targets.
        dataset: The questions.
        folder: Folder for the journals.
        prices: Prices that override the price table.
        cache: Function that creates the cache of a mixture's proposals from its name.
        scorer: How answers are compared.
        experiment: LangSmith experiment that also stores the answers.
        at_once: Maximum number of questions at the same time.
        quiet: Whether to hide the progress bar.

    Raises:
        EvalError: If a control cannot be built.
    """
    asking: dict[str, Any] = {"experiment": experiment, "at_once": at_once, "quiet": quiet}
    configuration, target = mixture.configuration, mixture.target
    chosen = _chosen(mixture, prices, cache)
    check_names([*targets, chosen])
    check_journals([*targets, chosen], folder)
    chosen.check()
    rows = answer_all([target], dataset, folder, **asking)[target.name]
    # What was chosen first stays, so that answers that come later leave it and its results alone.
    kept = _Kept(folder / "controls.json", target)
    model, settings = kept.model or _best_model(configuration, rows, dataset)
    alone = of_model(model, prices, **settings)
    if settings:
        alone = replace(alone, name=f"{model} alone")
    alone = next((t for t in targets if t.digest == alone.digest), alone)
    check_names([t for t in (*targets, chosen) if t is not alone] + [alone])
    single = answer_all([alone], dataset, folder, **asking)[alone.name]
    # A judge that chooses among the answers reads them once more.
    each = 1 if _is_voted(dataset, scorer) else 2
    samples = kept.samples or min(_MOST_SAMPLES, max(2, round(_ratio(rows, single) / each)))
    kept.save(model, settings, samples)
    made = _matched(model, settings, samples, scorer, dataset)
    matched = of_configuration(made, prices=prices, cache=cache)
    everyone = [*targets, chosen, *([] if alone in targets else [alone]), matched]
    return everyone, Controls(target.name, chosen.name, alone.name, matched.name)


class _Kept:
    """The best single model and its number of answers, as an earlier run has chosen them.

    Args:
        path: The file.
        target: The mixture. A choice for another one does not count.
    """

    def __init__(self, path: Path, target: Target) -> None:
        self._path = path
        self._mixture = target.digest
        self.model: tuple[str, dict[str, Any]] | None = None
        self.samples: int | None = None
        if path.exists():
            (row,) = read_rows(path)
            if row.get("mixture") == self._mixture:
                self.model = (str(row["model"]), dict(row["settings"]))
                self.samples = int(row["samples"])

    def save(self, model: str, settings: Mapping[str, Any], samples: int) -> None:
        """Write the file."""
        about = {"mixture": self._mixture, "model": model, "settings": dict(settings)}
        write_json(self._path, [{**about, "samples": samples}])


def _chosen(mixture: Mixture, prices: Prices, cache: Callable[[str], BaseCache[Any]]) -> Target:
    configuration, target = mixture.configuration, mixture.target
    name = f"{configuration.name}, chosen"
    ranker = {"strategy": "rank", "judge": configuration.aggregator}
    data = {**configuration.data(), "name": name, "aggregator": ranker}
    data.pop("progressive", None)  # a choice needs whole proposals
    try:
        return of_configuration(
            Configuration.model_validate(data),
            prices=prices,
            recorded=target.recorded,
            cache=lambda _: cache(configuration.name),  # the proposals are paid for once
        )
    except (ValueError, TypeError) as error:
        raise EvalError(
            f"The control {name!r} cannot be built: {error} Leave the controls out (--no-controls)."
        ) from None


def _best_model(
    configuration: Configuration, rows: Mapping[str, Row], dataset: Dataset
) -> tuple[str, dict[str, Any]]:
    """Return the best single model with its settings."""
    assert configuration.writer is not None
    model, settings = configuration.writer
    entries = dict(configuration.entries(["proposers"]))
    right: dict[str, list[float]] = {}
    for item in dataset.items:
        for spec, score in _scores(item, rows.get(item.key, {}), list(entries)):
            right.setdefault(spec, []).append(score)
    if not right:
        return model, dict(settings)
    best = max(right, key=lambda spec: sum(right[spec]) / len(right[spec]))
    return best, {**configuration.defaults, **entries[best]}


def _scores(item: Item, row: Row, specs: Sequence[str]) -> list[tuple[str, float]]:
    """Return the score of each proposal of the first layer, with its model."""
    if item.score is None:
        return []
    found = []
    for proposal in row.get("proposals", ()):
        asked = proposal.get("asked_model", proposal["model"])
        spec = next((s for s in specs if s.partition(":")[2] == asked), None)
        if spec and proposal["layer"] == 1 and "replaces" not in proposal:
            usable = proposal["status"] == "ok"
            found.append((spec, item.score(proposal["content"]) if usable else 0.0))
    return found


def _ratio(rows: Mapping[str, Row], single: Mapping[str, Row]) -> float:
    """Return the tokens of the mixture as a multiple of those of one answer, or the calls."""
    both = [
        (rows[key], single[key])
        for key in rows
        if key in single and not rows[key].get("error") and not single[key].get("error")
    ]
    tokens = [sum(map(tokens_of, side)) for side in zip(*both, strict=True)] or [0, 0]
    if all(tokens):
        return tokens[0] / tokens[1]
    calls = [sum(int(row["calls"]) for row in side) for side in zip(*both, strict=True)] or [1, 1]
    return calls[0] / max(1, calls[1])


def _matched(
    model: str,
    settings: Mapping[str, Any],
    samples: int,
    scorer: Scorer | None,
    dataset: Dataset,
) -> Configuration:
    """Return the configuration of several answers of one model."""
    own = {name: value for name, value in settings.items() if name in {"temperature", "max_tokens"}}
    params = {name: value for name, value in settings.items() if name not in own}
    asked = {"model": model, **own, **({"params": params} if params else {})}
    vote = {"strategy": "vote", "parse": "number" if scorer == "number" else "text"}
    return Configuration.model_validate(
        {
            "name": f"{model}, {samples} answers",
            "proposers": [{**asked, "samples": samples}],
            "aggregator": vote
            if _is_voted(dataset, scorer)
            else {"strategy": "rank", "judge": asked},
        }
    )


def _is_voted(dataset: Dataset, scorer: Scorer | None) -> bool:
    return all(item.score for item in dataset.items) and scorer != "contains"


def literature(found: Row, controls: Controls) -> list[Row]:
    """Return what publications say, and whether a comparison agrees.

    Args:
        found: The result of `compare`.
        controls: Names of the targets.

    Returns:
        Rows with `claim`, `source`, `first` and `second` (names of targets), `difference` (an
        interval: the first minus the second) and `verdict`: `"agrees"`, `"disagrees"`, `"not
        statistically significant"`, or that tokens are not equal where a claim needs that.
    """
    claims = [
        (
            "A synthesis is better than the best single model.",
            "2406.04692 (Mixture-of-Agents)",
            controls.synthesis,
            controls.alone,
        ),
        (
            "A synthesis is better than a proposal that a judge chooses.",
            "2406.04692, section 3.3",
            controls.synthesis,
            controls.chosen,
        ),
        (
            "A proposal that a judge chooses is better than a synthesis.",
            "2603.20324",
            controls.chosen,
            controls.synthesis,
        ),
        (
            "At equal tokens, the best single model is better than a mixture.",
            "2502.00674 (Self-MoA), 2604.02460, 2606.13003",
            controls.matched,
            controls.synthesis,
        ),
    ]
    rows = []
    for claim, source, first, second in claims:
        difference = _difference(found["pairs"], first, second)
        times = _not_equal(found, first, second) if first == controls.matched else None
        if difference is not None:
            rows.append(
                {
                    "claim": claim,
                    "source": source,
                    "first": first,
                    "second": second,
                    "difference": difference.as_dict(),
                    "verdict": times or _verdict(difference),
                }
            )
    return rows


def _difference(pairs: Sequence[Row], first: str, second: str) -> Interval | None:
    for pair in pairs:
        found = Interval(pair["value"], pair["low"], pair["high"], pair["n"])
        if (pair["target"], pair["other"]) == (first, second):
            return found
        if (pair["target"], pair["other"]) == (second, first):
            return Interval(-found.value, -found.high, -found.low, found.n)
    return None


def _not_equal(found: Row, first: str, second: str) -> str | None:
    """Return how the tokens of two targets differ; None if they are nearly equal or unknown."""
    tokens = [found["targets"][name]["tokens"] for name in (first, second)]
    if not all(tokens):
        return None
    one, other = (sum(of.values()) for of in tokens)
    times = one / other if other else 1.0
    return None if abs(times - 1) <= _NEARLY else f"not comparable: {times:.2f} times the tokens"


def _verdict(difference: Interval) -> str:
    if difference.low > 0:
        return "agrees"
    return "disagrees" if difference.high < 0 else "not statistically significant"
