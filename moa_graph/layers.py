"""Parts of a mixture: proposers, layers, and how references are shown."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BeforeValidator, Field, StrictBool, StrictStr, WithJsonSchema, model_validator

from moa_graph.errors import check_names, value_object
from moa_graph.limits import Count, Number, Seconds
from moa_graph.models import Model, ModelLike, as_model

RESERVED = (":", "|")  # LangGraph's separators in checkpoint namespaces
_MULTIPLE = re.compile(r"\s*\d+(?:\.\d+)?\s*x\s*", re.IGNORECASE)


@value_object
class Proposer:
    """A model that proposes answers, with its settings.

    Args:
        model: `"provider:model"`, a chat model, or any Runnable from messages to a message,
            such as an agent compiled by LangGraph.
        name: Name in traces, in Studio and in proposals; unique within the layer. By default
            derived from the model's name.
        prompt: A role or persona, added to the system message of this proposer's calls only.
        samples: Number of answers to request (at least 1). Each sample counts as a separate
            proposer. `samples=6` of one good model is Self-MoA (arXiv 2502.00674). LangChain's
            LLM cache answers only the first sample.
        timeout: Maximum seconds, including retries (above 0). After that the request is
            cancelled, and the proposal's status is `"timed_out"`.
        cache_key: Identifies the model in a `cache`, for an agent, a function or your own
            Runnable. Without it, the proposals of such a model are not cached. Change it whenever
            the model's answers may change.
        temperature: Sampling temperature, from 0 to 2; only for a `"provider:model"`.
        max_tokens: Maximum length of the answer, in tokens; only for a `"provider:model"`.
        params: Other arguments of the provider's chat model, such as `base_url` or `top_p`; only
            for a `"provider:model"`. Put API keys in the environment, where each provider's
            client reads its own.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a value is out of range, or the name cannot be used as a node name.

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

    model: Annotated[Any, WithJsonSchema({"type": "string"})] = Field(
        title="Model", description="“provider:model”."
    )
    _: KW_ONLY
    name: StrictStr | None = Field(
        default=None, title="Name", description="What it is called; unique within its layer."
    )
    prompt: StrictStr | None = Field(
        default=None, title="Role", description="A role or persona, for this proposer only."
    )
    samples: Count = Field(
        default=1, title="Samples", description="How many answers to draw from it."
    )
    timeout: Seconds | None = Field(
        default=None, title="Timeout", description="Seconds that it may take."
    )
    cache_key: StrictStr | None = Field(
        default=None, title="Cache key", description="By what a cache tells its model from others."
    )
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = Field(
        default=None, title="Temperature", description="Sampling temperature."
    )
    max_tokens: Count | None = Field(
        default=None, title="Max tokens", description="The longest answer, in tokens."
    )
    params: Mapping[str, Any] = Field(
        default_factory=dict,
        repr=False,
        title="Parameters",
        description="What else the provider's chat model takes.",
    )

    @model_validator(mode="after")
    def _usable(self) -> Proposer:
        name = self.name
        if name is not None and (
            not name.strip() or not name.isprintable() or any(c in name for c in RESERVED)
        ):
            raise ValueError(
                f"Proposer(name={name!r}) cannot name a node: it must not be blank, nor contain "
                "':', '|', a line break or another character that is not printable."
            )
        if self.cache_key is not None and not self.cache_key.strip():
            raise ValueError("Proposer(cache_key=…) must not be blank.")
        if self.settings and not isinstance(self.model, str):
            raise ValueError(
                f"Proposer({next(iter(self.settings))}=…) is for a model given as "
                "'provider:model': set it on the chat model itself."
            )
        return self

    @property
    def settings(self) -> dict[str, Any]:
        """Arguments of its chat model, except the name."""
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        return {**{k: v for k, v in own.items() if v is not None}, **self.params}

    def as_model(self, role: str) -> Model:
        """Return its model. Error messages call the model `role`."""
        return (
            Model(self.model, role, **self.settings)
            if self.settings
            else (as_model(self.model, role))
        )


ProposerLike: TypeAlias = ModelLike | Proposer | Mapping[str, Any]
"""A model, a `Proposer`, or a mapping with the arguments of a `Proposer`."""


@value_object
class References:
    """How the previous layer's answers (the references) are shown to a model.

    Args:
        prompt: Instruction before the numbered list of references. By default the paper's
            Aggregate-and-Synthesize prompt (arXiv 2406.04692, Table 1), word for word.
        place: `"system"` puts the references in the system message, as in the paper. `"human"`
            puts them at the end of the latest human message, so a provider's prompt cache can
            reuse everything before them. By default `"human"` if the reader has tools, or if a
            tool's result follows the latest human message; else `"system"`.
        fenced: Whether to mark references as untrusted, between delimiters that proposers cannot
            know.
        window: Context window of every reader in tokens, including its answer (at least 1). By
            default the value in LangChain's model profile (`model.profile`), if there is one.
            References that do not fit are shortened, each to a fair share, and the record says so.
        reasoning: Whether to show the proposers' reasoning before their answers, where there is
            one, shortened to about 2,000 tokens each (arXiv 2605.29116).

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a value is out of range.
    """

    prompt: StrictStr | None = Field(
        default=None, title="Prompt", description="What to do with the references."
    )
    place: Literal["system", "human"] | None = Field(
        default=None,
        title="Place",
        description="In the system message (the paper), or behind the latest human message.",
    )
    fenced: StrictBool = Field(
        default=False, title="Fenced", description="Whether they are shown as untrusted."
    )
    window: Count | None = Field(
        default=None, title="Window", description="Tokens that every reader takes."
    )
    reasoning: StrictBool = Field(
        default=False, title="Reasoning", description="Whether the proposers' reasoning is shown."
    )

    @model_validator(mode="after")
    def _says_something(self) -> References:
        if self.prompt is not None and not self.prompt.strip():
            raise ValueError(
                "References(prompt=…) must not be blank: leave it out for the paper's prompt."
            )
        return self


def _as_proposers(value: Any, argument: str = "proposers") -> Any:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence):
        raise TypeError(
            f"Layer({argument}=…) must be a list of models, not {type(value).__name__}. For one "
            "model write [model]."
        )
    if not value:
        raise ValueError(f"Layer({argument}=[]) is empty: every layer needs at least one proposer.")
    return tuple(_placed(i, entry) for i, entry in enumerate(value))


def _placed(place: int, entry: ProposerLike) -> Proposer:
    if not isinstance(entry, Mapping):
        return as_proposer(entry)
    try:
        return as_proposer(entry)
    except (TypeError, ValueError) as error:
        raise type(error)(f"proposers[{place}]: {error}") from None


def _as_reserve(value: Any) -> Any:
    return () if value is None or value in ([], ()) else _as_proposers(value, "reserve")


def as_proposer(value: ProposerLike) -> Proposer:
    """Return a proposer made from a model or from a mapping of arguments.

    Raises:
        TypeError: If an argument has the wrong type or does not exist.
        ValueError: If a value is out of range.
    """
    if isinstance(value, Proposer):
        return value
    if isinstance(value, Mapping):
        check_names(Proposer, value)
        return Proposer(**value)
    return Proposer(value)


def _as_selections(value: Any) -> Any:
    if value is None:
        return ()
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    return tuple(_as_strategy(one, "select") for one in (value if several else [value]))


def _as_until(value: Any) -> Any:
    return None if value is None else _as_strategy(value, "until")


def _as_strategy(value: Any, argument: str) -> Any:
    # Strategy names are looked up when the graph is built.
    named = isinstance(value, str) or (isinstance(value, Mapping) and "strategy" in value)
    if named or callable(value) or hasattr(value, "given"):
        return value
    raise TypeError(
        f"Layer({argument}={value!r}) must be a strategy of moa_graph.strategies, its name, or a "
        "function."
    )


def _as_hedge(value: Any) -> Any:
    if isinstance(value, str):
        if not _MULTIPLE.fullmatch(value) or not float(value.lower().replace("x", "")):
            raise ValueError(
                f"Layer(hedge={value!r}) must be seconds, such as 5, or a multiple of the layer's "
                "median time, such as '2x'."
            )
    elif isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError(f"Layer(hedge={value!r}) must be seconds, such as 5, or such as '2x'.")
    elif value is not None and not 0 < value < math.inf:
        raise ValueError(f"Layer(hedge={value!r}) must be above 0 and finite.")
    return value


Proposers = Annotated[tuple[Proposer, ...], BeforeValidator(_as_proposers)]
_STRATEGY_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "string"},
        {
            "type": "object",
            "properties": {"strategy": {"type": "string"}},
            "required": ["strategy"],
        },
    ]
}
StrategyData = Annotated[
    Any, WithJsonSchema({"anyOf": [*_STRATEGY_SCHEMA["anyOf"], {"type": "null"}]})
]
"""A strategy. In configuration data: its name, or an object with its name and arguments."""
Strategies = Annotated[
    tuple[Any, ...],
    BeforeValidator(_as_selections),
    WithJsonSchema({"type": "array", "items": _STRATEGY_SCHEMA}),
]


@value_object
class Layer:
    """Proposers that answer in parallel, and the policy of their layer.

    Args:
        proposers: The models: `"provider:model"`, a chat model, a Runnable from messages to a
            message, or a `Proposer` with a name, a role or samples.
        min_proposals: Minimum number of usable proposals for the run to continue, from 1 to the
            number of proposers.
        quorum: Number of usable proposals that completes the layer, from `min_proposals` to the
            number of proposers. Late proposers are cancelled (`"abandoned"`).
        grace: Seconds to wait for the other proposers after the quorum is reached (at least 0).
        timeout: Maximum seconds of the layer (above 0). Proposers that have not answered by then
            are cancelled (`"timed_out"`).
        hedge: When to send a second request to a late proposer: seconds after the first request,
            or a multiple of the median latency of the layer's proposers, such as `"2x"`. The
            median is known after half of them have answered. The first answer wins, and the other
            request is cancelled. Graphs, such as agents with tools, are not called twice, because
            they may have side effects. (Dean and Barroso, The Tail at Scale, CACM 56(2), 2013.)
        select: Which proposals the next layer sees: a selection of `moa_graph.strategies`, your
            own function, or a list of these, applied in order.
        until: Condition to skip the remaining layers, drawn as a conditional edge after the layer.
            If one `Layer` is used for several layers, the condition follows each of them. The
            last layer only has it with `then="answer"`, because the aggregator is next anyway.
        reserve: Replacement models for proposers that fail or are late, in order. Each is called
            at most once per run of the layer. The proposal's `replaces` records it.
        references: How this layer's models are shown the previous layer's answers; by default
            the graph's setting. It has no effect on the first layer.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a value is out of range, or names collide.

    Example: `create_moa([Layer([a, b, c], quorum=2), [a, b]], c)`
    """

    proposers: Proposers = Field(title="Proposers", description="Who answers.")
    _: KW_ONLY
    min_proposals: Count = Field(
        default=1,
        title="Min proposals",
        description="How many usable proposals it must give for the run to go on.",
    )
    quorum: Count | None = Field(
        default=None,
        title="Quorum",
        description="How many proposals complete it; the proposers that are late are cancelled.",
    )
    grace: Annotated[Number, Field(ge=0)] = Field(
        default=0,
        title="Grace",
        description="Seconds that the others still have once the quorum is there.",
    )
    timeout: Seconds | None = Field(
        default=None, title="Timeout", description="Seconds that it may take."
    )
    hedge: Annotated[float | str | None, BeforeValidator(_as_hedge)] = Field(
        default=None,
        title="Hedge",
        description="When to ask a late proposer again: seconds, or such as “2x” the median.",
    )
    select: Strategies = Field(
        default=(),
        title="Select",
        description=(
            "What of its proposals goes on, in this order: strategies such as “top_k” with their "
            "arguments."
        ),
    )
    until: Annotated[StrategyData, BeforeValidator(_as_until)] = Field(
        default=None,
        title="Until",
        description="When no further layer is needed: a strategy such as “agree”.",
    )
    reserve: Annotated[tuple[Proposer, ...], BeforeValidator(_as_reserve)] = Field(
        default=(), title="Reserve", description="Who takes the place of proposers that fail."
    )
    references: References | None = Field(
        default=None,
        title="References",
        description="How its models are shown the answers of the layer before.",
    )

    @model_validator(mode="after")
    def _has_room(self) -> Layer:
        width = self.width
        if self.min_proposals > width:
            raise ValueError(
                f"Layer(min_proposals={self.min_proposals}) must be at most {width}, the number of "
                "its proposers."
            )
        if self.quorum is not None and not self.min_proposals <= self.quorum <= width:
            raise ValueError(
                f"Layer(quorum={self.quorum}) must be between {self.min_proposals} (min_proposals) "
                f"and {width}, the number of its proposers."
            )
        if self.grace and self.quorum is None:
            raise ValueError("Layer(grace=…) needs quorum: it starts when the quorum is reached.")
        taken = Counter(
            name
            for entry in self.proposers
            if entry.name
            for name in sample_names(entry.name, entry.samples)
        )
        for name, times in taken.items():
            if times > 1:
                raise ValueError(
                    f"Layer(proposers=…) has {times} proposers named {name!r}: names must be "
                    "unique within a layer."
                )
        return self

    @property
    def width(self) -> int:
        """Number of proposers, counting each sample."""
        return sum(entry.samples for entry in self.proposers)


def sample_names(name: str, samples: int) -> list[str]:
    """Return the names of a proposer's samples."""
    return [name] if samples == 1 else [f"{name}_{i}" for i in range(1, samples + 1)]
