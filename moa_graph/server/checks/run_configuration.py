"""Checks of the `config` of a run, before the run starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from moa_graph.server.assistants import AssistantContext
from moa_graph.server.checks.json_values import is_uuid


def check_run_configuration(config: Mapping[str, Any]) -> None:
    """Check the fields of a run's configuration, except for `configurable`.

    Args:
        config: Configuration, with fields of LangChain's `RunnableConfig`.

    Raises:
        ValueError: If a field has a wrong type or value, or belongs in the context. The message
            names the field and the rule.
    """
    for name, value in config.items():
        if name in AssistantContext.model_fields:
            raise ValueError(f"config has no field {name!r}: it is a field of the run's context.")
        if value is None or name not in _RULES:
            continue
        holds, rule = _RULES[name]
        if not holds(value):
            raise ValueError(f"config.{name} must be {rule}, not {value!r:.60}.")


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "callbacks": (lambda value: not value, "empty"),
    "max_concurrency": (_is_count, "an integer of at least 1"),
    "metadata": (lambda value: isinstance(value, Mapping), "an object"),
    "recursion_limit": (_is_count, "an integer of at least 1"),
    "run_id": (is_uuid, "a UUID"),
    "run_name": (lambda value: isinstance(value, str), "a string"),
    "tags": (_are_strings, "a list of strings"),
}
