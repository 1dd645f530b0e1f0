"""Options of the aggregator's call that a run can set."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class AggregatorOptions(BaseModel):
    """Options of the aggregator's call, in the form that chat models accept.

    They cannot set a model's URL or API key, so clients may set them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    tools: list[dict[str, Any]] | None = Field(
        default=None,
        title="Tools",
        description="Tools that it may call, as JSON in OpenAI's form.",
    )
    tool_choice: str | None = Field(
        default=None,
        title="Tool choice",
        description="“auto”, “none”, “any”, or the name of the tool that it must call.",
    )
    parallel_tool_calls: bool | None = Field(
        default=None,
        title="Parallel tool calls",
        description="Whether it may call several tools at once.",
    )
    response_format: dict[str, Any] | None = Field(
        default=None,
        title="Response format",
        description="The form of its answer, such as a JSON schema (OpenAI's `response_format`).",
    )
    stop: list[str] | None = Field(
        default=None, title="Stop", description="Texts at which the answer ends."
    )
    top_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        title="Top p",
        description="Nucleus sampling: the share of tokens.",
    )
    frequency_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        title="Frequency penalty",
        description="How much tokens are avoided that came often.",
    )
    presence_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        title="Presence penalty",
        description="How much tokens are avoided that came at all.",
    )
    seed: int | None = Field(
        default=None, title="Seed", description="For answers that can be repeated, where served."
    )

    reasoning_effort: str | None = Field(
        default=None, title="Reasoning effort", description="How much it reasons: “low”, “high” …"
    )
    verbosity: str | None = Field(
        default=None, title="Verbosity", description="How long its answers are: “low”, “high” …"
    )
    logit_bias: dict[str, float] | None = Field(
        default=None, title="Logit bias", description="How likely tokens are, by their id."
    )
    top_k: int | None = Field(
        default=None, ge=-1, title="Top k", description="From how many tokens to sample."
    )
    min_p: float | None = Field(
        default=None,
        ge=0,
        le=1,
        title="Min p",
        description="The least probability of a token, as a share of the most likely one's.",
    )
    repetition_penalty: float | None = Field(
        default=None,
        gt=0,
        title="Repetition penalty",
        description="How much tokens are avoided that came at all, as a factor.",
    )

    @field_validator("tools")
    @classmethod
    def _functions(cls, tools: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
        # Providers run other kinds of tools themselves, at URLs in the tool definition.
        for tool in tools or ():
            function = tool.get("function")
            named = isinstance(function, dict) and isinstance(function.get("name"), str)
            if tool.get("type") != "function" or not named:
                raise ValueError("each tool must be {'type': 'function', 'function': {'name': …}}")
        return tools

    def given(self) -> dict[str, Any]:
        """Return the options that are set."""
        return self.model_dump(exclude_none=True)
