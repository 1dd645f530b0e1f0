"""Checks of what is written into the state from outside.

LangGraph stores what is written before a reducer sees it: a thread with a value that a reducer
cannot merge could not be read any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple, get_type_hints

from langchain_core.messages import convert_to_messages
from langgraph.types import Command, Overwrite
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from moa_graph.state import Decision, Draft, Proposal, identifies_proposal

_OVERWRITE = "__overwrite__"  # key of an `Overwrite` in JSON
_PAIR = 2


def check_written(written: Any, *, example: str = "") -> None:
    """Check messages, proposals, decisions and drafts that are written into the state.

    Args:
        written: Input of a run, values of an update, or a `Command`, also in their forms in JSON:
            values by field, or pairs of field and value.
        example: How to write messages, for errors.

    Raises:
        ValueError: If a message or a record has a wrong type, or lacks a field that identifies it.
            The message names the field and the rule.
    """
    for field, value in _fields_in(written):
        if field == "messages" or field in _RECORDS:
            whole, new = overwritten(value)
            if field == "messages":
                _check_messages(new, example)
            else:
                _check(field, new, whole=whole)


def _check_messages(messages: Any, example: str) -> None:
    try:
        convert_to_messages(messages if isinstance(messages, list | tuple) else [messages])
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"`messages` must be a text, a message or a list of these{example}. ({reason})"
        ) from error


def _fields_in(written: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(written, Command):
        written = written.update
    if isinstance(written, Mapping):
        yield from ((name, value) for name, value in written.items() if isinstance(name, str))
    elif isinstance(written, list | tuple):
        for item in written:
            if isinstance(item, list | tuple) and len(item) == _PAIR and isinstance(item[0], str):
                yield item[0], item[1]
            else:
                yield from _fields_in(item)


def overwritten(value: Any) -> tuple[bool, Any]:
    """Return whether what is written into a field replaces what the state has, and its value.

    Args:
        value: What is written. An `Overwrite` may have one of its forms in JSON.
    """
    if isinstance(value, Overwrite):
        return True, value.value
    if isinstance(value, Mapping):
        if set(value) == {_OVERWRITE}:
            return True, value[_OVERWRITE]
        if value.get("type") == _OVERWRITE:
            return True, value.get("value")
    return False, value


def _check(field: str, value: Any, *, whole: bool) -> None:
    kind = _RECORDS[field]
    records: Iterable[Any]
    if kind.is_mapping:
        if not isinstance(value, Mapping):
            raise ValueError(f"{field} must be an object of records by node, not {value!r:.60}.")
        records = value.items()
    else:
        if not isinstance(value, list | tuple):
            raise ValueError(f"{field} must be a list of records, not {value!r:.60}.")
        records = enumerate(value)
    for place, record in records:
        if not isinstance(record, Mapping):
            raise ValueError(f"{field}.{place} must be an object, not {record!r:.60}.")
        try:
            _adapter(field, whole or kind.always_whole).validate_python({**record}, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            steps = ".".join(map(str, (field, place, *first["loc"])))
            raise ValueError(f"{steps}: {first['msg']}.") from None
        if not whole and kind.identifies is not None and not kind.identifies(record):
            raise ValueError(
                f"{field}.{place} must have `layer`, `proposer` and `content`, or the `id` of the "
                "proposal that it edits."
            )


class _Records(NamedTuple):
    """Records of one field of the state."""

    type: Any
    is_mapping: bool = False
    """Whether the field has records by name, and not a list of them."""
    always_whole: bool = True
    """Whether a record has all of its fields."""
    identifies: Callable[[Mapping[str, Any]], bool] | None = None


_RECORDS = {
    "proposals": _Records(Proposal, always_whole=False, identifies=identifies_proposal),
    "decisions": _Records(Decision),
    "drafts": _Records(Draft, is_mapping=True),
}


@cache
def _adapter(field: str, whole: bool) -> TypeAdapter[Any]:
    """Return what validates a record: of all required fields, or of those that it has."""
    kind = _RECORDS[field].type
    hints = get_type_hints(kind, include_extras=True)
    fields: Any = TypedDict
    return TypeAdapter(fields(kind.__name__, hints, total=whole))
