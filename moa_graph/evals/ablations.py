"""The paper's ablations, run on your own models.

Wang et al. (arXiv 2406.04692), section 3.3 and its tables. The studies vary the number and the
diversity of the proposers, the number of layers and the role of each model, and compare synthesis
with ranking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias, get_args

from moa_graph.errors import nearest
from moa_graph.evals.files import EvalError, Row
from moa_graph.presets.configuration import Configuration

Study: TypeAlias = Literal["proposers", "layers", "roles", "ranker"]
STUDIES: tuple[Study, ...] = get_args(Study)
_COUNTS = (1, 2, 3, 6)  # as in Table 3 of the paper
_LAYERS = (3, 4)
_FEWEST = 2


def configurations(
    models: Sequence[str],
    aggregator: str | None = None,
    studies: Sequence[Study] = STUDIES,
    **settings: Any,
) -> list[Configuration]:
    """Return the configurations that an ablation compares, without duplicates.

    Args:
        models: Two or more proposers, as `"provider:model"`.
        aggregator: The model that aggregates; the first of `models` by default.
        studies: `"proposers"` compares 1, 2, 3 and 6 proposers, once as different models and
            once as samples of the aggregator model. `"layers"` compares 2, 3 and 4 layers.
            `"roles"` uses each model as the only proposer model and as the aggregator of all
            proposers. `"ranker"` lets the aggregator model choose one proposal instead of
            writing a synthesis.
        **settings: Fields to set in every configuration, such as `temperature` and `max_tokens`.

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
    """Mixtures that each study compares with the default mixture, as configuration data."""

    def __init__(self, models: Sequence[str], aggregator: str) -> None:
        self._models = models
        self._aggregator = aggregator
        self._everyone = f"{len(models)} different"

    def all(self) -> Row:
        """Return the default mixture: every model once, and the aggregator."""
        return self._shape(self._everyone, self._models)

    def proposers(self) -> Iterator[Row]:
        """Yield mixtures by number of proposers: different models, and samples of one model."""
        for n in _COUNTS:
            if n < len(self._models):
                yield self._shape(f"{n} different", self._models[:n])
            yield self._shape(f"{n} of one model", [{"model": self._aggregator, "samples": n}])

    def layers(self) -> Iterator[Row]:
        """Yield mixtures with more layers."""
        for layers in _LAYERS:
            name = f"{self._everyone}, {layers} layers"
            yield self._shape(name, self._models, layers=layers)

    def roles(self) -> Iterator[Row]:
        """Yield mixtures with each model as the only proposer and as the aggregator."""
        for model in self._models:
            short = model.partition(":")[2].rpartition("/")[2]
            samples = [{"model": model, "samples": len(self._models)}]
            yield self._shape(f"{short} proposes", samples)
            if model != self._aggregator:
                yield self._shape(f"{short} aggregates", self._models, by=model)

    def ranker(self) -> Iterator[Row]:
        """Yield the mixture that chooses a proposal instead of writing a synthesis."""
        ranker = {"strategy": "rank", "judge": self._aggregator}
        yield self._shape(f"{self._everyone}, ranked", self._models, by=ranker)

    def _shape(
        self, name: str, proposers: Sequence[Any], *, by: Any = None, layers: int = 2
    ) -> Row:
        aggregator = by or self._aggregator
        return {"name": name, "proposers": proposers, "aggregator": aggregator, "layers": layers}
