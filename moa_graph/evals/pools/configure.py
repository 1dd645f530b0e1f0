"""Write the recommended mixture as a configuration file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from moa_graph.evals.files import EvalError, Row
from moa_graph.evals.pools.choosing import CENTRAL, RANK, SYNTHESIS, WEIGHTED
from moa_graph.presets.configuration import Configuration

PROVIDER = "together"


def configuration(
    found: Row,
    *,
    served: Mapping[str, str] | None = None,
    provider: str = PROVIDER,
    parse: Literal["number", "text"] = "text",
    writer: str | None = None,
) -> Configuration:
    """Return the configuration of a recommendation; of the best model alone if it is not to mix.

    Args:
        found: The field `recommendation` of a study.
        served: The model as `"provider:model"` for names in the records.
        provider: Provider of the other models whose names do not say it.
        parse: How a vote finds the answer in a proposal.
        writer: The model that ranked or synthesized.

    Raises:
        EvalError: If the models make no configuration.
    """
    names = found["members"] if found["mix"] else [found["best"]]
    models = {name: model_of(name, served or {}, provider) for name in names}
    strategy = found["strategy"] if found["mix"] else None
    aggregator: Any = {"strategy": "vote", "parse": parse}
    if strategy == CENTRAL:
        aggregator = "most_central"
    elif strategy == RANK:
        aggregator = {"strategy": "rank", "judge": writer}
    elif strategy == SYNTHESIS:
        aggregator = writer
    elif strategy == WEIGHTED:
        weights = {
            models[name].partition(":")[2]: round(weight, 4)
            for name, weight in found["weights"].items()
        }
        aggregator["weights"] = weights
    elif strategy is None:  # an answer of one model wins any vote, as it is
        aggregator["parse"] = "text"
    try:
        return Configuration.model_validate(
            {
                "name": "pool",
                "description": found["sentence"],
                "proposers": list(models.values()),
                "aggregator": aggregator,
            }
        )
    except ValueError as error:
        raise EvalError(f"The recommended models make no configuration: {error}") from None


def model_of(name: str, served: Mapping[str, str], provider: str) -> str:
    """Return a recorded model as `"provider:model"`.

    Args:
        name: Name in the records.
        served: Models by name, which have priority.
        provider: Provider of names without one.
    """
    if name in served:
        return served[name]
    return name if ":" in name.strip(":") else f"{provider}:{name}"
