"""Who proposes: what a user gives as proposers, and each one's place in its layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from moa_graph.completion import check_seconds
from moa_graph.models import Model, ModelLike, as_model
from moa_graph.state import Proposal

_FEWEST_LAYERS = 2  # one of proposers, and the aggregator
_RESERVED = (":", "|")  # LangGraph's separators in checkpoint namespaces

Reads: TypeAlias = Callable[[list[Proposal]], list[Proposal]]
"""Which of the references a model is shown."""


@dataclass(frozen=True, init=False)
class Proposer:
    """A model that proposes answers, and how it does.

    Args:
        model: `"provider:model"`, a chat model, or any Runnable from messages to a message,
            such as an agent compiled by LangGraph.
        name: What it is called in traces, in Studio and in its proposals; unique within its
            layer. By default made from the model's name.
        prompt: A role or persona, added to the system message of this proposer's calls only.
        samples: How many answers to draw from it, each a proposer of its own (at least 1).
            `samples=6` of one good model is Self-MoA (arXiv 2502.00674). They do not answer from
            LangChain's LLM cache, in which they would all be the same.
        timeout: Seconds that it may take, repeated calls included (above 0). Then its request is
            cancelled, and its proposal is `"timed_out"`.
        cache_key: By what a `cache` tells this model from others, for one that cannot be told
            apart by itself: an agent or another graph, a function, a Runnable of your own. Change
            it whenever the model's answers may change. Proposals of such a model are not cached
            without it.

    Raises:
        TypeError: If `samples` or `timeout` is not a number, or `name`, `prompt` or `cache_key`
            not a string.
        ValueError: If `samples` is below 1, `timeout` not above 0, or the name cannot be a
            node's.

    Example:
        ```python
        create_moa(
            [
                Proposer("together:openai/gpt-oss-120b", samples=3),
                Proposer("together:zai-org/GLM-5.2", name="critic", prompt="Look for errors."),
            ],
            "together:deepseek-ai/DeepSeek-V4-Pro",
        )
        ```
    """

    model: ModelLike
    name: str | None
    prompt: str | None
    samples: int
    timeout: float | None
    cache_key: str | None

    def __init__(
        self,
        model: ModelLike,
        *,
        name: str | None = None,
        prompt: str | None = None,
        samples: int = 1,
        timeout: float | None = None,
        cache_key: str | None = None,
    ) -> None:
        for argument, value in (("name", name), ("prompt", prompt), ("cache_key", cache_key)):
            if value is not None and not isinstance(value, str):
                raise TypeError(f"Proposer({argument}=…) must be a string, not {value!r}.")
        if cache_key is not None and not cache_key.strip():
            raise ValueError("Proposer(cache_key=…) must not be blank.")
        if isinstance(samples, bool) or not isinstance(samples, int):
            raise TypeError(f"Proposer(samples={samples!r}) must be a whole number, such as 6.")
        if samples < 1:
            raise ValueError(f"Proposer(samples={samples}) must be at least 1.")
        if timeout is not None:
            check_seconds("Proposer(timeout=…)", timeout)
        if name is not None and (
            not name.strip() or not name.isprintable() or any(c in name for c in _RESERVED)
        ):
            raise ValueError(
                f"Proposer(name={name!r}) cannot name a node: it must not be blank, nor contain "
                "':', '|' or a line break."
            )
        object.__setattr__(self, "model", model)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "prompt", prompt)
        object.__setattr__(self, "samples", samples)
        object.__setattr__(self, "timeout", timeout)
        object.__setattr__(self, "cache_key", cache_key)

    def __repr__(self) -> str:
        # A model object may hold more than should be printed.
        model = self.model if isinstance(self.model, str) else type(self.model).__name__
        return f"Proposer({model!r}, name={self.name!r}, samples={self.samples})"


ProposerLike: TypeAlias = ModelLike | Proposer


@dataclass(frozen=True)
class Seat:
    """One proposer's place in a layer."""

    name: str
    model: Model
    prompt: str | None
    sample: int
    """How many earlier ones of its layer have the same model and role."""
    timeout: float | None
    reads: Reads | None = None
    """What it is shown of the references; None for all."""
    cache_key: str | None = None
    """By what a cache knows its model."""

    def node_name(self, layer: int) -> str:
        """Its node's name in that layer."""
        return f"layer_{layer}_{self.name}"

    def reading(self, reads: Reads) -> Seat:
        """The same place, with what it is shown of the references."""
        return replace(self, reads=reads)


def layers_of(
    proposers: Sequence[ProposerLike] | Sequence[Sequence[ProposerLike]], layers: int | None
) -> list[list[Seat]]:
    """The proposers of each layer, each in its place.

    Raises:
        TypeError: If that is no list of models, or of lists of them.
        ValueError: If one is empty, names collide, or it contradicts `layers`.
    """
    if isinstance(proposers, str) or not isinstance(proposers, Sequence):
        raise TypeError(
            "proposers must be a list of models (or a list of lists, one a layer), not "
            f"{type(proposers).__name__}. For one model write proposers=[model]."
        )
    if layers is not None and (isinstance(layers, bool) or not isinstance(layers, int)):
        raise TypeError(
            f"layers={layers!r} must be a whole number: 2 is one layer of proposers and the "
            "aggregator, 3 is the paper's MoA."
        )
    if layers is not None and layers < _FEWEST_LAYERS:
        raise ValueError(
            f"layers={layers} must be at least 2: it counts the aggregator's layer, so 2 is one "
            "layer of proposers and the aggregator."
        )
    if not proposers:
        raise ValueError("proposers is empty: give at least one model.")
    nested = [_is_layer(entry) for entry in proposers]
    if any(nested) and not all(nested):
        raise TypeError(
            "proposers mixes models and lists: give either one flat list for every layer, or "
            "one list a layer."
        )
    if not any(nested):
        layer = list(_seats(proposers, "proposers"))  # type: ignore[arg-type]
        return [layer] * ((layers or _FEWEST_LAYERS) - 1)
    if layers is not None and layers != len(proposers) + 1:
        raise ValueError(
            f"layers={layers} contradicts proposers, which has {len(proposers)} lists: with the "
            f"aggregator that makes {len(proposers) + 1} layers. Leave layers out, or give "
            f"{layers - 1} lists."
        )
    return [
        list(_seats(layer, f"proposers[{i}]"))  # type: ignore[arg-type]
        for i, layer in enumerate(proposers)
    ]


def _is_layer(entry: object) -> bool:
    return isinstance(entry, Sequence) and not isinstance(entry, str)


def _seats(layer: Sequence[ProposerLike], where: str) -> Iterator[Seat]:
    if not layer:
        raise ValueError(f"{where} is empty: every layer needs at least one proposer.")
    entries = [entry if isinstance(entry, Proposer) else Proposer(entry) for entry in layer]
    models = [as_model(entry.model, f"{where}[{i}]") for i, entry in enumerate(entries)]
    taken = Counter(
        name for entry in entries if entry.name for name in _sample_names(entry.name, entry.samples)
    )
    for name, times in taken.items():
        if times > 1:
            raise ValueError(
                f"{where} has {times} proposers named {name!r}: names must be unique within a "
                "layer."
            )
    drawn: Counter[tuple[str, str | None]] = Counter()
    for entry, model in zip(entries, models, strict=True):
        base = entry.name or _unused(_short(model.name), taken, entry.samples)
        for name in _sample_names(base, entry.samples):
            sample = drawn[model.name, entry.prompt]
            drawn[model.name, entry.prompt] += 1
            yield Seat(name, model, entry.prompt, sample, entry.timeout, cache_key=entry.cache_key)


def _sample_names(name: str, samples: int) -> list[str]:
    return [name] if samples == 1 else [f"{name}_{i}" for i in range(1, samples + 1)]


def _unused(name: str, taken: Counter[str], samples: int) -> str:
    """The name, numbered where it or one of its samples is taken; then taken itself."""
    candidate, number = name, 1
    while any(n in taken for n in _sample_names(candidate, samples)):
        number += 1
        candidate = f"{name}_{number}"
    taken.update(_sample_names(candidate, samples))
    return candidate


def _short(model_name: str) -> str:
    short = model_name.rstrip("/").rpartition("/")[2] or "model"
    for character in _RESERVED:
        short = short.replace(character, "-")
    return short
