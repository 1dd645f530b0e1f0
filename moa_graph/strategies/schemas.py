"""Convert a JSON schema in a configuration file to a type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, create_model

_KINDS: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": None,
}


def model_of_schema(schema: Mapping[str, Any]) -> type[BaseModel]:
    """Return a pydantic model for a JSON schema of an object.

    Args:
        schema: JSON schema of type `"object"`, with `properties`. The keywords `enum`, `items` and
            `required` are supported; others are ignored.

    Raises:
        ValueError: If the schema does not describe an object.
    """
    properties = schema.get("properties")
    if schema.get("type", "object") != "object" or not isinstance(properties, Mapping):
        raise ValueError(
            "Vote(schema=…) must be a class, or a JSON schema of an object with `properties`."
        )
    required = schema.get("required", list(properties))
    fields: dict[str, Any] = {}
    for name, inner in properties.items():
        kind = _type_of(inner)
        fields[name] = (kind, ...) if name in required else (kind | None, None)
    title = str(schema.get("title", "Schema"))
    return create_model(title, __config__=ConfigDict(extra="forbid"), **fields)


def _type_of(schema: Any) -> Any:
    if not isinstance(schema, Mapping):
        return Any
    if "enum" in schema:
        return Literal[tuple(schema["enum"])]
    kind = schema.get("type")
    if isinstance(kind, list):
        several: Any = _KINDS.get(kind[0], Any)
        for other in kind[1:]:
            several = several | _KINDS.get(other, Any)
        return several
    if kind == "array":
        return list[_type_of(schema.get("items"))]  # type: ignore[misc]
    if kind == "object" and "properties" in schema:
        return model_of_schema(schema)
    return dict[str, Any] if kind == "object" else _KINDS.get(str(kind), Any)
