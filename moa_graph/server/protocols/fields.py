"""Field types that the requests of all protocols share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from moa_graph.server.checks.json_values import check_value


def given(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields that are not None."""
    return {name: value for name, value in fields.items() if value is not None}


def _storable(value: Any) -> Any:
    """Reject a value that JSON or a database cannot store: it would break the run or the log."""
    try:
        check_value(value)
    except ValueError as error:  # pydantic's errors are parts of a sentence
        raise ValueError(str(error).removesuffix(".")) from None
    return value


def _arguments(text: str) -> str:
    """Return the arguments of a tool call, as JSON; an empty string becomes `{}`."""
    try:
        arguments = json.loads(text or "{}")
    except (ValueError, RecursionError):
        raise ValueError("it is not valid JSON") from None
    if not isinstance(arguments, dict):
        raise ValueError("it is not a JSON object")
    _storable(arguments)
    return text or "{}"


def _reject(value: Any) -> None:
    if value is not None:
        raise ValueError("this server does not support this field")


Text = Annotated[str, AfterValidator(_storable)]
"""A string that can be stored."""
Json = Annotated[dict[str, JsonValue], AfterValidator(_storable)]
"""A JSON object that can be stored."""
Arguments = Annotated[Text, AfterValidator(_arguments)]
"""The arguments of a tool call, as JSON."""
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
"""The name of a function."""
Unsupported = Annotated[None, BeforeValidator(_reject)]
"""A field whose absence would change the answer, so that it is rejected instead of ignored."""


class Part(BaseModel):
    """Type that ignores unknown fields, because clients send back all fields they received."""

    model_config = ConfigDict(extra="ignore")


class Known(BaseModel):
    """Type whose unknown fields are ignored, and named to the client."""

    model_config = ConfigDict(extra="allow")


class Request(Known):
    """Request to a mixture. The settings of a mixture are those of its assistant."""

    @model_validator(mode="before")
    @classmethod
    def _not_of_an_assistant(cls, given: Any) -> Any:
        for name in _OF_AN_ASSISTANT if isinstance(given, Mapping) else ():
            if given.get(name) is not None:
                raise ValueError(
                    f"{name}: it cannot be set in a request; create an assistant with it, and "
                    "give its name as the model"
                )
        return given


_OF_AN_ASSISTANT = ("aggregator", "config", "configurable", "context", "layers", "proposers")


def drop_unknown(value: Any, place: str = "") -> Iterator[str]:
    """Remove the unknown fields of a request, at any depth.

    Args:
        value: The request, or a part of it.
        place: Where the part is, such as `"tools.0."`.

    Yields:
        The place of each removed field.
    """
    if isinstance(value, BaseModel):
        unknown = value.model_extra or {}
        for name in list(unknown):
            del unknown[name]
            yield f"{place}{name}"
        for name, field in type(value).model_fields.items():
            yield from drop_unknown(getattr(value, name), f"{place}{field.alias or name}.")
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from drop_unknown(inner, f"{place}{number}.")
