"""The tool `consult` as MCP clients see it: its arguments and its result."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mcp.types import Tool, ToolAnnotations
from pydantic import BaseModel, ConfigDict, Field

from moa_graph.agents.tool import CONTEXT, DESCRIPTION, QUESTION
from moa_graph.server.protocols.fields import Text
from moa_graph.state import ProposalStatus

NAME = "consult"
DEFAULT = "mixture"
"""Mixture that is asked if the client names none: the graph `mixture` with its defaults."""
_MOST_NAMES = 50
_KIND = re.compile(r"[A-Z]\w*(?=: |$)|[^(]*")  # a class, or a reason without what it quotes


class Arguments(BaseModel):
    """Arguments of a call."""

    model_config = ConfigDict(extra="forbid", strict=True)

    question: Text = Field(min_length=1, description=QUESTION)
    context: Text | None = Field(default=None, description=CONTEXT)
    mixture: Text | None = Field(
        default=None, min_length=1, description=f"Name or id of the panel. None: {DEFAULT!r}."
    )


class Tokens(BaseModel):
    """Tokens of all models together."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class Outcome(BaseModel):
    """How one proposer ended. Its answer is not shown."""

    layer: int = Field(description="The layer, counted from 1.")
    proposer: str = Field(description="Unique within the layer.")
    model: str
    status: ProposalStatus
    error: str | None = Field(description="Kind of error, such as RateLimitError.")


class Consultation(BaseModel):
    """Structured result of a call."""

    answer: str
    model: str = Field(description="Name of the mixture.")
    finish_reason: str = Field(description="stop; length if the answer was cut; content_filter.")
    usage: Tokens | None = Field(description="Tokens of all models together, if known.")
    ok: int = Field(description="Number of proposals that the answer is based on.")
    failed: int = Field(description="Number of proposers that gave none.")
    proposals: list[Outcome]


def tool(mixtures: Sequence[str]) -> Tool:
    """Return the description of the tool.

    Args:
        mixtures: Names of the mixtures that the client may ask.
    """
    schema = Arguments.model_json_schema()
    schema["properties"]["mixture"]["description"] += f" Available: {listed(mixtures)}."
    return Tool(
        name=NAME,
        title="Consult several models",
        description=DESCRIPTION,
        input_schema=schema,
        output_schema=Consultation.model_json_schema(),
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=True),
    )


def listed(mixtures: Sequence[str]) -> str:
    """Return the names in one line; if there are many, only the first ones."""
    more = len(mixtures) - _MOST_NAMES
    names = ", ".join(map(repr, mixtures[:_MOST_NAMES]))
    return f"{names} and {more} more" if more > 0 else names


def outcome(proposal: Mapping[str, Any]) -> Outcome:
    """Return how a proposer ended, without the text of an error, which a provider wrote."""
    kind = _KIND.match(proposal["error"] or "")
    return Outcome(
        layer=proposal["layer"],
        proposer=proposal["proposer"],
        model=proposal["model"],
        status=proposal["status"],
        error=kind[0].strip() or None if kind else None,
    )
