"""Settings of one run, which do not require rebuilding the graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, field_validator, model_validator

from moa_graph.errors import nearest
from moa_graph.models.options import AggregatorOptions
from moa_graph.models.text import utf8
from moa_graph.prompts import AGGREGATE_AND_SYNTHESIZE

if TYPE_CHECKING:
    from moa_graph.calling.turn import Turn
    from moa_graph.state import MoAState


_BUILT_IN = {
    **dict.fromkeys(
        (
            "proposers", "aggregator", "references", "route", "progressive", "limits", "calls",
            "checkpointer", "store", "cache", "interrupt_before", "interrupt_after", "name",
            "context_schema",
        ),
        "an argument of create_moa",
    ),
    **dict.fromkeys(("min_proposals", "hedge", "select", "until", "reserve"), "a Layer"),
    **dict.fromkeys(("prompt", "place", "fenced", "window", "reasoning"), "its References"),
    **dict.fromkeys(("usd", "prices"), "its RunLimits"),
    **dict.fromkeys(("retries", "concurrent"), "its CallPolicy"),
}  # fmt: skip


class MoAContext(BaseModel):
    """Settings of one run: `moa.invoke(..., context=MoAContext(layers=2))`.

    A plain dict with the same keys works too. A setting that is None keeps the graph's own value.
    Temperatures and token limits apply to every chat model, including one inside
    `.with_fallbacks()`, `.with_retry()`, `.with_config()` or a `prompt | model` chain. A graph
    or a function used as a model keeps its own settings.

    Raises:
        pydantic.ValidationError: If a setting is unknown or a value is out of range, before any
            model is called.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    _call_options: dict[str, Any] = PrivateAttr(default_factory=dict)
    _turn: Any = PrivateAttr(default=None)
    _on_proposal: Any = PrivateAttr(default=None)

    proposer_temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        title="Proposer temperature",
        description="Sampling temperature of every proposer. Higher gives more varied proposals.",
    )
    proposer_max_tokens: int | None = Field(
        default=None,
        ge=1,
        title="Proposer max tokens",
        description="The longest answer of a proposer, in tokens.",
    )
    aggregator_temperature: float | None = Field(
        default=None,
        ge=0,
        le=2,
        title="Aggregator temperature",
        description="Sampling temperature of the aggregator.",
        json_schema_extra={"langgraph_nodes": ["aggregator"]},
    )
    aggregator_max_tokens: int | None = Field(
        default=None,
        ge=1,
        title="Aggregator max tokens",
        description="The longest final answer, in tokens.",
        json_schema_extra={"langgraph_nodes": ["aggregator"]},
    )
    aggregator_options: AggregatorOptions | None = Field(
        default=None,
        title="Aggregator options",
        description=(
            "What else the aggregator's call is given: `tools`, `tool_choice`, "
            "`response_format`, `stop` …"
        ),
        json_schema_extra={"langgraph_nodes": ["aggregator"]},
    )
    aggregation_prompt: str | None = Field(
        default=None,
        min_length=1,
        title="Aggregation prompt",
        description=(
            "What a model is told to do with the proposals of the layer before; they follow it "
            "as a numbered list. Empty: the graph's own, which by default is the paper's "
            f"Aggregate-and-Synthesize prompt (“{AGGREGATE_AND_SYNTHESIZE[:40]}…”)."
        ),
        json_schema_extra={"langgraph_nodes": ["aggregator"], "langgraph_type": "prompt"},
    )
    layers: int | None = Field(
        default=None,
        ge=2,
        title="Layers",
        description=(
            "How many of the built layers to run, the aggregator's included: 2 runs the first "
            "layer of proposers and the aggregator. None runs all."
        ),
    )
    quorum: int | None = Field(
        default=None,
        ge=1,
        title="Quorum",
        description=(
            "How many proposals complete a layer, in every layer that has room for it; the "
            "proposers that are late are cancelled. None: as the graph was built."
        ),
    )
    grace: float | None = Field(
        default=None,
        ge=0,
        title="Grace",
        description="Seconds that late proposers still have once the quorum is there.",
    )
    timeout: float | None = Field(
        default=None,
        gt=0,
        title="Layer timeout",
        description="Seconds that each layer of proposers may take. None: as the graph was built.",
    )
    run_timeout: float | None = Field(
        default=None,
        gt=0,
        title="Run timeout",
        description=(
            "Seconds that the whole run may take; each layer may use an equal share of what is "
            "left. None: as the graph was built."
        ),
    )
    token_budget: int | None = Field(
        default=None,
        ge=1,
        title="Token budget",
        description=(
            "Tokens that the whole run may spend; proposers that would exceed it are not asked. "
            "None: as the graph was built."
        ),
    )
    stream_proposals: bool | None = Field(
        default=None,
        title="Stream proposals",
        description=(
            "Whether a stream of messages has the proposers' tokens too, told apart by their "
            "metadata. None: as the graph was built."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else ():
            if name in cls.model_fields:
                continue
            if name in _BUILT_IN:
                raise ValueError(
                    f"{name} cannot be set per run. It is set when the graph is built, with "
                    f"{_BUILT_IN[name]}."
                )
            raise ValueError(
                f"unknown field {name!r}.{nearest(str(name), cls.model_fields)} Fields are: "
                f"{', '.join(cls.model_fields)}."
            )
        return given

    @property
    def _private(self) -> Mapping[str, Any]:
        # The usual way to a private attribute takes ten times as long, and each call needs several.
        return self.__pydantic_private__ or {}

    @property
    def call_options(self) -> Mapping[str, Any]:
        """Options of the aggregator's call that only code can set: tools in any form, `stop` …"""
        options: Mapping[str, Any] = self._private["_call_options"]
        return options

    @property
    def options(self) -> dict[str, Any]:
        """Options of the aggregator's call: tools, a response format, `stop` …"""
        given = self.aggregator_options
        return {**(given.given() if given else {}), **self.call_options}

    def with_call_options(self, options: Mapping[str, Any]) -> Self:
        """Return a copy of the settings with options for the aggregator's call."""
        context = self.model_copy()
        context._call_options = dict(options)  # noqa: SLF001 - of another object of this class
        return context

    @property
    def turn(self) -> Turn | None:
        """The turn of an agent to which the run belongs; None if it always asks the proposers."""
        turn: Turn | None = self._private["_turn"]
        return turn

    @property
    def once_a_turn(self) -> bool:
        """Whether the proposers are asked once for each question, also without a `turn`."""
        return False

    def check_state(self, state: MoAState) -> None:
        """Check the state that a node reads. A server's contexts have bounds; others have none.

        Args:
            state: State of the graph.

        Raises:
            ValueError: If it exceeds a bound of the server.
        """

    def with_turn(self, turn: Turn | None) -> Self:
        """Return a copy of the settings for a run that belongs to a turn of an agent."""
        context = self.model_copy()
        context._turn = turn  # noqa: SLF001 - of another object of this class
        return context

    @property
    def on_proposal(self) -> Callable[[Any], None] | None:
        """Function that is called with the event of each new proposal; None for no function."""
        function: Callable[[Any], None] | None = self._private["_on_proposal"]
        return function

    def with_listener(self, on_proposal: Callable[[Any], None] | None) -> Self:
        """Return a copy of the settings with a function to call with each new proposal."""
        context = self.model_copy()
        context._on_proposal = on_proposal  # noqa: SLF001 - of another object of this class
        return context

    @property
    def for_proposers(self) -> dict[str, Any]:
        """The settings that affect the proposals."""
        return self.model_dump(exclude=_NOT_OF_PROPOSERS, exclude_none=True)

    @field_validator("aggregation_prompt", mode="before")
    @classmethod
    def _utf8(cls, prompt: Any) -> Any:
        return utf8(prompt) if isinstance(prompt, str) else prompt


_NOT_OF_PROPOSERS = {
    "aggregator_temperature",
    "aggregator_max_tokens",
    "aggregator_options",
    "run_timeout",
    "token_budget",
    "stream_proposals",
    "consult",  # of a server's contexts
}
_OF_PROPOSERS = (
    "proposer_temperature",
    "proposer_max_tokens",
    "quorum",
    "grace",
    "timeout",
    "stream_proposals",
)


def context_schema_of(
    base: type[MoAContext], *, proposers: Sequence[str], layers: int, quorum: int
) -> type[MoAContext]:
    """Return the context class of one graph. Studio shows each field at its nodes, with limits.

    Args:
        base: The class of the settings.
        proposers: Node names of the proposers.
        layers: Number of layers of the graph.
        quorum: Highest quorum that any layer can have.

    Returns:
        A subclass with a different JSON schema and the same validation.
    """

    def add(schema: dict[str, Any]) -> None:
        fields = schema["properties"]
        for name in _OF_PROPOSERS:
            fields[name]["langgraph_nodes"] = list(proposers)
        later = [node for node in proposers if not node.startswith("layer_1_")]
        fields["aggregation_prompt"]["langgraph_nodes"] = [*later, "aggregator"]
        fields["layers"]["anyOf"][0].setdefault("maximum", layers)
        fields["quorum"]["anyOf"][0].setdefault("maximum", quorum)
        for field in fields.values():
            field.setdefault("langgraph_nodes", [*proposers, "aggregator"])

    @classmethod  # type: ignore[misc]
    def model_json_schema(cls: type[MoAContext], *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return pydantic's schema. The default schema is cached: servers need it in every run."""
        if args or kwargs:
            return base.model_json_schema.__func__(cls, *args, **kwargs)  # type: ignore[attr-defined, no-any-return]
        return _default_schema(cls)

    namespace = {
        "__doc__": base.__doc__,
        "__module__": base.__module__,
        "model_config": ConfigDict(json_schema_extra=add),
        "model_json_schema": model_json_schema,
    }
    return type(base.__name__, (base,), namespace)


@lru_cache(maxsize=256)
def _default_schema(schema: type[MoAContext]) -> dict[str, Any]:
    return BaseModel.model_json_schema.__func__(schema)  # type: ignore[attr-defined, no-any-return]
