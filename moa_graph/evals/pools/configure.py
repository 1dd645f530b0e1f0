"""Write the recommended mixture as a configuration file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from moa_graph.evals.files import EvalError, Row
from moa_graph.evals.pools.choosing import CENTRAL, RANK, SYNTHESIS, WEIGHTED
from moa_graph.presets.configuration import Configuration

PROVIDER = "together"
ASKING = 'End your reply with a line of its own: "Answer: " and then your answer, and nothing else.'
"""Role of proposers whose answers a vote reads."""


def configuration(
    found: Row,
    *,
    served: Mapping[str, str] | None = None,
    provider: str = PROVIDER,
    parse: Literal["number", "text"] = "text",
    writer: str | None = None,
    asks: bool = False,
) -> Configuration:
    """Return the configuration of a recommendation; of the best model alone if it is not to mix.

    Args:
        found: The field `recommendation` of a study.
        served: The model as `"provider:model"` for names in the records.
        provider: Provider of the other models whose names do not say it.
        parse: How a vote finds the answer in a proposal.
        writer: The model that ranked or synthesized.
        asks: Whether the proposers are told to end with a line that a vote can read, because the
            recorded answers were found in another way.

    Raises:
        EvalError: If the models make no configuration.
    """
    names = found["members"] if found["mix"] else [found["best"]]
    titles = _titles(names)
    proposers = [
        {
            "model": model_of(name, served or {}, provider),
            "name": titles[name],
            **({"prompt": ASKING} if asks and found["mix"] else {}),
        }
        for name in names
    ]
    strategy = found["strategy"] if found["mix"] else None
    aggregator: Any = {"strategy": "vote", "parse": parse}
    if strategy == CENTRAL:
        aggregator = "most_central"
    elif strategy == RANK:
        aggregator = {"strategy": "rank", "judge": writer}
    elif strategy == SYNTHESIS:
        aggregator = writer
    elif strategy == WEIGHTED:
        aggregator["weights"] = {
            titles[name]: round(weight, 4) for name, weight in found["weights"].items()
        }
    elif strategy is None:  # an answer of one model wins any vote, as it is
        aggregator["parse"] = "text"
    try:
        made = Configuration.model_validate(
            {
                "name": "pool",
                "description": found["sentence"],
                "proposers": proposers,
                "aggregator": aggregator,
            }
        )
        made.create()
    except (ValueError, TypeError) as error:
        raise EvalError(
            f"The recommended models make no configuration: {error} Say who serves them (--served, "
            "--provider)."
        ) from None
    return made


def _titles(names: Sequence[str]) -> dict[str, str]:
    """Return a unique name for each proposer, with the characters that names of nodes may have."""
    found: dict[str, str] = {}
    for name in names:
        title = re.sub(r"[^\w.@-]+", "_", name) or "model"
        while title in found.values():
            title += "_"
        found[name] = title
    return found


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
