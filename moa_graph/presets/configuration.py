"""Configuration of a mixture as plain data, for presets, files and assistants.

A configuration file is TOML or YAML with the fields of `Configuration`. Each field has the
arguments of the object with the same name:

    layers = 3
    aggregator = { strategy = "rank", judge = "openai:gpt-5.2" }
    references = { fenced = true }

    [[proposers]]                     # a Layer
    proposers = ["openai:a", { model = "openai:b", samples = 2 }, "ollama:c"]
    quorum = 3
    select = [{ strategy = "top_k", k = 2 }]

    [[proposers]]                     # the next one
    proposers = ["openai:a", "openai:b"]
    until = { strategy = "agree", then = "answer" }
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Annotated, Any

import tomli_w
import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    model_validator,
)

from moa_graph.building.compiled import MoAGraph
from moa_graph.building.members import is_layer, layers_of
from moa_graph.errors import arguments_of
from moa_graph.graph import create_moa
from moa_graph.layers import Layer, Proposer, References
from moa_graph.limits import CallPolicy, Count, Number, RunLimits
from moa_graph.presets.data import plain_answer, plain_data, plain_proposers, values_of
from moa_graph.presets.defaults import (
    OF_LAYERS,
    answer_with_defaults,
    is_strategy,
    strategy_with_defaults,
    with_defaults,
)
from moa_graph.presets.files import SUFFIXES
from moa_graph.strategies.registry import (
    as_selections,
    as_strategy,
    model_arguments,
    model_of,
    plain,
)

_OPTIONS = (  # of `create_moa`, and fields of `Configuration`
    "layers",
    "references",
    "limits",
    "calls",
    "stream_proposals",
    "name",
)


_IN_FILES = (str, bool, int, float, date, time, References, RunLimits, CallPolicy, type(None))

_NOT_DATA = {
    "checkpointer": "pass it to create(), or use the server's own",
    "store": "pass it to create(), or use the server's own",
    "cache": "pass it to create()",
    "interrupt_before": "pass it to create()",
    "interrupt_after": "pass it to create()",
    "context_schema": "pass it to create()",
}


Data = Annotated[Any, BeforeValidator(plain_data)]
"""Strings, numbers, lists and mappings that `create_moa` validates."""


class Configuration(BaseModel):
    """Configuration of a Mixture-of-Agents as plain data."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    proposers: Data = Field(title="Proposers")
    """A list of models or a layer, used for every layer; or a list of layers. A model is
    `"provider:model"` or the arguments of a `Proposer`. A layer is the arguments of a `Layer`."""
    aggregator: Data = Field(title="Aggregator")
    """A model, as `"provider:model"` or with its settings; or a strategy, as its name or with its
    arguments."""
    layers: int | None = Field(default=None, ge=2)
    """Number of layers, including the aggregator; 2 unless `proposers` is a list of layers."""
    name: StrictStr = "moa"
    description: StrictStr = ""
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    """Default temperature for models without their own."""
    max_tokens: Count | None = None
    """Default limit of the answer's length in tokens, for models without their own."""
    references: References | None = None
    route: Data = None
    """A strategy, or the arguments of a `Route`."""
    progressive: Data = None
    """A strategy, or the arguments of a `Staircase`."""
    limits: RunLimits | None = None
    calls: CallPolicy | None = None
    stream_proposals: StrictBool = False

    @model_validator(mode="before")
    @classmethod
    def _not_in_files(cls, given: Any) -> Any:
        for name, why in _NOT_DATA.items():
            if isinstance(given, Mapping) and name in given:
                raise ValueError(f"{name} cannot be set in a configuration: {why}")
        return given

    @model_validator(mode="after")
    def _makes_a_mixture(self) -> Configuration:
        try:
            for layer in layers_of(self.proposers, self.layers):
                _check_layer(layer)
            if is_strategy(self.aggregator):
                as_strategy("aggregator", self.aggregator, "aggregator")
            else:
                _check_model(self.aggregator, "aggregator")
            as_strategy("route", self.route, "route")
            as_strategy("progressive", self.progressive, "progressive")
        except TypeError as error:
            raise ValueError(str(error)) from None
        return self

    @classmethod
    def of(cls, graph: MoAGraph, **fields: Any) -> Configuration:
        """Return the configuration of a graph with models that were given as `"provider:model"`.

        The configuration does not contain the checkpointer, the store, the cache, interrupts or
        the context schema.

        Args:
            graph: The graph.
            **fields: Values of other fields, such as `description`.

        Raises:
            ValueError: If a part of the graph cannot be written as data, such as a model given as
                an object or a function that is not registered. The message names the part.
        """
        _, given = graph.plan.recipe
        data = {
            "proposers": plain_proposers(given["proposers"]),
            "aggregator": plain_answer(given["aggregator"]),
            "route": plain("route", given["route"], "route"),
            "progressive": plain("progressive", given["progressive"], "progressive"),
            **{name: given[name] for name in _OPTIONS},
        }
        for place, value in values_of(data):
            if not isinstance(value, _IN_FILES):
                raise ValueError(
                    f"{place} cannot be written to a file: it is a {type(value).__name__}."
                )
        return cls(**{**data, **fields})

    def create(self, *, proposers: Sequence[Proposer] | None = None, **options: Any) -> MoAGraph:
        """Build the graph.

        Args:
            proposers: Proposers that replace those of the configuration.
            **options: Other arguments of `create_moa`, such as `checkpointer`. They override the
                values of the configuration, such as `layers`.

        Raises:
            TypeError: See `create_moa`.
            ValueError: See `create_moa`.
        """
        given = {name: getattr(self, name) for name in _OPTIONS}
        return create_moa(
            proposers or with_defaults(self.proposers, self.defaults),
            answer_with_defaults(self.aggregator, self.defaults),
            route=strategy_with_defaults(self.route, self.defaults),
            progressive=self.progressive,
            **{**given, **options},
        )

    def models(self) -> Iterator[str]:
        """Return each model once, as `"provider:model"`, in the order of the graph."""
        return iter(dict.fromkeys(model for model, _ in self.entries()))

    def entries(
        self, fields: Sequence[str] = ("route", "proposers", "aggregator")
    ) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Return every model with its settings, in the order of the graph.

        Args:
            fields: Names of the fields to read.
        """
        for field in fields:
            if field == "proposers":
                yield from self._entries_of_layers()
            elif field == "aggregator" and not is_strategy(self.aggregator):
                yield _entry(self.aggregator)
            else:
                yield from map(_entry, model_arguments(getattr(self, field)).values())

    def _entries_of_layers(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for layer in self.described_layers():
            for proposer in [*layer["proposers"], *(layer.get("reserve") or ())]:
                yield _entry(proposer)
            for field in OF_LAYERS:
                several = layer.get(field) or []
                for strategy in several if isinstance(several, list) else [several]:
                    yield from map(_entry, model_arguments(strategy).values())

    def described_layers(self) -> list[dict[str, Any]]:
        """Return the layers in `proposers`, each as the arguments of a `Layer`."""
        if isinstance(self.proposers, Mapping):
            return [dict(self.proposers)]
        if not any(map(is_layer, self.proposers)):
            return [{"proposers": self.proposers}]
        return [dict(p) if isinstance(p, Mapping) else {"proposers": p} for p in self.proposers]

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        # The parameters of a model may contain an API key.
        for name in type(self).model_fields:
            if (value := getattr(self, name)) is not None:
                yield name, _without_params(value)

    @property
    def depth(self) -> int:
        """Number of layers, including the aggregator."""
        return len(layers_of(self.proposers, self.layers)) + 1

    @property
    def answer(self) -> str:
        """Model that writes the answer, as `"provider:model"`, or the name of a strategy."""
        if isinstance(self.aggregator, Mapping):
            return str(self.aggregator.get("strategy") or self.aggregator.get("model"))
        return str(self.aggregator)

    @property
    def writer(self) -> tuple[str, Mapping[str, Any]] | None:
        """Aggregator model with its settings; None if the aggregator is a strategy."""
        if is_strategy(self.aggregator):
            return None
        model, own = _entry(self.aggregator)
        return model, {**self.defaults, **own}

    def to_toml(self) -> str:
        """Return the configuration as TOML.

        Raises:
            ValueError: If a model's parameters or a schema contain None, which TOML does not have.
        """
        data = self.data()
        for place, value in values_of(data):
            if value is None:
                raise ValueError(f"{place} is None, which TOML does not have. Write YAML instead.")
        return tomli_w.dumps(data)

    def to_yaml(self) -> str:
        """Return the configuration as YAML."""
        return str(yaml.safe_dump(self.data(), sort_keys=False, allow_unicode=True))

    def save(self, path: str | Path) -> None:
        """Write a file for `load_preset`.

        Args:
            path: A path that ends in `.toml`, `.yaml` or `.yml`.

        Raises:
            ValueError: If the path has another suffix; see also `to_toml`.
        """
        suffix = Path(path).suffix.lower()
        if suffix not in SUFFIXES:
            raise ValueError(f"{path} must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}.")
        text = self.to_toml() if suffix == ".toml" else self.to_yaml()
        Path(path).write_text(text, encoding="utf-8", errors="replace")

    def data(self) -> dict[str, Any]:
        """Return the data for a file: the name, and all fields that differ from the defaults."""
        objects = ("references", "limits", "calls")
        dumped = self.model_dump(mode="json", exclude_defaults=True, exclude=set(objects))
        dumped["name"] = self.name
        for name in objects:
            if (value := getattr(self, name)) is not None:
                dumped[name] = arguments_of(value)
        data: dict[str, Any] = plain_data(dumped)
        return data

    # --- default settings of models ----------------------------------------------------------

    @property
    def defaults(self) -> dict[str, Any]:
        """Settings of models without their own."""
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {name: value for name, value in own.items() if value is not None}


def _without_params(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: "…" if k == "params" else _without_params(v) for k, v in value.items()}
    return list(map(_without_params, value)) if isinstance(value, list) else value


def _check_layer(layer: Layer) -> None:
    for entry in (*layer.proposers, *layer.reserve):
        if not isinstance(entry.model, str):
            raise TypeError("proposers: every model must be 'provider:model'.")
    as_selections(layer.select, "select")
    as_strategy("until", layer.until, "until")


def _check_model(value: Any, where: str) -> None:
    if not isinstance(value, str | Mapping):
        raise TypeError(f"{where} must be 'provider:model', or a mapping with `model`.")
    if isinstance(value, Mapping):
        if not isinstance(value.get("model", ""), str):
            raise TypeError(f"{where}: model must be 'provider:model'.")
        model_of({**value, "model": "local:smollm2-135m"} if "model" in value else value, where)


def _entry(value: Any) -> tuple[str, Mapping[str, Any]]:
    """Return a model as `"provider:model"`, and its settings."""
    if isinstance(value, str):
        return value, {}
    own = {k: value[k] for k in ("temperature", "max_tokens") if value.get(k) is not None}
    return str(value["model"]), {**own, **(value.get("params") or {})}
