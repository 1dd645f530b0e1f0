"""The paper's ablations on models of your own.

Wang et al. (arXiv 2406.04692), section 3.3 and its tables: how many proposers and whether they
differ, how many layers, who is good at which role, and synthesis against the ranker.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

from moa_graph.errors import nearest
from moa_graph.evals.files import EvalError, Row
from moa_graph.presets.configuration import Configuration

Study: TypeAlias = Literal["proposers", "layers", "roles", "ranker"]
STUDIES: tuple[Study, ...] = get_args(Study)
_COUNTS = (1, 2, 3, 6)  # as the paper's Table 3
_LAYERS = (3, 4)
_FEWEST = 2


def configurations(
    models: Sequence[str],
    aggregator: str | None = None,
    studies: Sequence[Study] = STUDIES,
    **settings: Any,
) -> list[Configuration]:
    """Return what an ablation compares, each configuration once.

    Args:
        models: The proposers, as `"provider:model"`; two or more.
        aggregator: Who aggregates; the first of the models by default.
        studies: `"proposers"`: 1, 2, 3 and 6 of them, different ones and samples of the
            aggregator's model; `"layers"`: 2, 3 and 4; `"roles"`: each model as the only kind of
            proposer and as the aggregator of all; `"ranker"`: the aggregator's model chooses a
            proposal instead of a synthesis.
        **settings: Fields of every configuration, such as `temperature` and `max_tokens`.

    Raises:
        EvalError: If there are fewer than two models, or a study is unknown.
    """
    models = list(dict.fromkeys(models))
    if len(models) < _FEWEST:
        raise EvalError("An ablation needs two or more models.")
    for study in studies:
        if study not in STUDIES:
            raise EvalError(
                f"There is no study {study!r}.{nearest(study, STUDIES)} There are: "
                f"{', '.join(STUDIES)}."
            )
    shapes = _Shapes(models, aggregator or models[0])
    found = [shapes.all(), *(shape for study in studies for shape in getattr(shapes, study)())]
    return [
        Configuration.model_validate({**data, **settings})
        for data in {data["name"]: data for data in found}.values()
    ]


class _Shapes:
    """Which mixtures each study compares with the plain one, as data of a configuration."""

    def __init__(self, models: Sequence[str], aggregator: str) -> None:
        self._models = models
        self._aggregator = aggregator
        self._everyone = f"{len(models)} different"

    def all(self) -> Row:
        """Return every model once, and the aggregator."""
        return self._shape(self._everyone, self._models)

    def proposers(self) -> Iterator[Row]:
        """Their number, different ones and samples of one."""
        for n in _COUNTS:
            if n < len(self._models):
                yield self._shape(f"{n} different", self._models[:n])
            yield self._shape(f"{n} of one model", [{"model": self._aggregator, "samples": n}])

    def layers(self) -> Iterator[Row]:
        """More layers."""
        for layers in _LAYERS:
            name = f"{self._everyone}, {layers} layers"
            yield self._shape(name, self._models, layers=layers)

    def roles(self) -> Iterator[Row]:
        """Return each model in each role."""
        for model in self._models:
            short = model.partition(":")[2].rpartition("/")[2]
            samples = [{"model": model, "samples": len(self._models)}]
            yield self._shape(f"{short} proposes", samples)
            if model != self._aggregator:
                yield self._shape(f"{short} aggregates", self._models, by=model)

    def ranker(self) -> Iterator[Row]:
        """Return a proposal is chosen, not a synthesis written."""
        ranker = {"strategy": "rank", "judge": self._aggregator}
        yield self._shape(f"{self._everyone}, ranked", self._models, by=ranker)

    def _shape(
        self, name: str, proposers: Sequence[Any], *, by: Any = None, layers: int = 2
    ) -> Row:
        aggregator = by or self._aggregator
        return {"name": name, "proposers": proposers, "aggregator": aggregator, "layers": layers}
