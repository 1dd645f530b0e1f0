"""Bounds of what a client writes into the state of a thread, and of where it continues a run."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from moa_graph._compat import on_aegra
from moa_graph.building import written
from moa_graph.server.checks.addresses import check_addresses
from moa_graph.server.checks.batches import check_item
from moa_graph.server.checks.bounds import check_question

_LONGEST_DELAY = 31_536_000  # seconds; a year
_MOST_FOUND = 2**31 - 1
_CHECKPOINT = ("checkpoint_id", "checkpoint_map", "checkpoint_ns", "thread_id")


def check_body(path: str, body: Any) -> None:
    """Check a request of which the servers do not tell `auth.py` the content.

    Args:
        path: Path of the request.
        body: Its JSON.

    Raises:
        TooLarge: If it writes too many messages.
        ValueError: If it writes a state that a run may not have, or continues a run in a way that
            clients may not. The message says which.
    """
    items = body if path == "/runs/batch" and isinstance(body, list) else [body]
    for pattern, check in _CHECKS.items():
        if re.fullmatch(pattern, path):
            for item in items:
                if isinstance(item, Mapping):
                    check(item)


def check_input(given: Any) -> None:
    """Check the input of a run.

    Raises:
        TooLarge: If it has too many messages.
        ValueError: If it is not an object, is too long, or has an address that is not allowed.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f'input must be an object such as {{"messages": […]}}, not {given!r:.60}.')
    check_written(given)


def check_command(given: Any) -> None:
    """Check the command of a run.

    Raises:
        TooLarge: If it has too many messages.
        ValueError: If it is not an object, is too long, has an address that is not allowed, or
            sends a node an input.
    """
    if given is None:
        return
    if not isinstance(given, Mapping):
        raise ValueError(f"command must be an object, not {given!r:.60}.")
    goto = given.get("goto")
    for node in goto if isinstance(goto, list) else [goto]:
        if node is not None and not isinstance(node, str):
            raise ValueError(
                f"command.goto must be the name of a node or a list of names, not {node!r:.60}: "
                "clients cannot send a node an input."
            )
    check_written(given)
    written.check_written(given.get("update"))


def check_checkpoint(given: Any) -> None:
    """Check the place where a run continues, which servers add to its configuration.

    Args:
        given: The checkpoint; None for the latest one.

    Raises:
        ValueError: If it is not an object, or has other fields than a checkpoint.
    """
    if given is not None and not isinstance(given, Mapping):
        raise ValueError(f"checkpoint must be an object, not {given!r:.60}.")
    for field in given or ():
        if field not in _CHECKPOINT:
            raise ValueError(
                f"checkpoint has an unknown field {field!r:.60}. Fields are: "
                f"{', '.join(_CHECKPOINT)}."
            )


def check_written(given: Any) -> None:
    """Check what is written into the state of a thread.

    Raises:
        TooLarge: If it has too many messages.
        ValueError: If it is too long, has an address that is not allowed, or a record that the
            state cannot have.
    """
    check_question(given)
    check_addresses(given)
    written.check_written(given)


def _check_thread(body: Mapping[str, Any]) -> None:
    for update in updates_in(body):
        check_command(update.get("command"))
        check_written(update.get("values"))
    # Together they are one state.
    check_question([update.get("values") for update in updates_in(body)])


def updates_in(body: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the updates of the state of a new thread."""
    steps = body.get("supersteps")
    for step in steps if isinstance(steps, list) else ():
        updates = step.get("updates") if isinstance(step, Mapping) else None
        for update in updates if isinstance(updates, list) else ():
            if isinstance(update, Mapping):
                yield update


def _check_update(body: Mapping[str, Any]) -> None:
    check_written(body.get("values"))
    _check_place(body)


def _check_place(body: Mapping[str, Any]) -> None:
    check_checkpoint(body.get("checkpoint"))
    given = body.get("checkpoint_id")
    if given is not None and not isinstance(given, str):
        raise ValueError(f"checkpoint_id must be a string, not {given!r:.60}.")


def _check_run(body: Mapping[str, Any]) -> None:
    _check_place(body)
    _check_delay(body.get("after_seconds"))
    tracer = body.get("langsmith_tracer")
    if tracer is not None and not isinstance(tracer, Mapping):
        raise ValueError(f"langsmith_tracer must be an object, not {tracer!r:.60}.")


def _check_delay(seconds: Any) -> None:
    if seconds is None or seconds == 0:
        return
    if on_aegra():
        raise ValueError("after_seconds: this server starts each run at once.")
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0 <= seconds <= _LONGEST_DELAY:
        raise ValueError(
            f"after_seconds must be a number from 0 to {_LONGEST_DELAY:,}, not {seconds!r:.60}."
        )


def _check_item(body: Mapping[str, Any]) -> None:
    _check_run(body)
    check_item(body)


def _check_page(body: Mapping[str, Any]) -> None:
    for name in ("limit", "offset"):
        given = body.get(name)
        if given is not None and (type(given) is not int or not 0 <= given <= _MOST_FOUND):
            raise ValueError(
                f"{name} must be an integer from 0 to {_MOST_FOUND:,}, not {given!r:.60}."
            )


def _check_items_page(body: Mapping[str, Any]) -> None:
    _check_page(body)
    prefix = body.get("namespace_prefix")
    if not isinstance(prefix, list) or not all(isinstance(name, str) for name in prefix):
        raise ValueError(f"namespace_prefix must be a list of strings, not {prefix!r:.60}.")


_CHECKS: dict[str, Callable[[Mapping[str, Any]], None]] = {
    r"/threads": _check_thread,
    r"/threads/[^/]+/state": _check_update,
    r"/threads/[^/]+/(state/checkpoint|history)": _check_place,
    r"(/threads/[^/]+)?/runs(/stream|/wait)?": _check_run,
    r"/runs/batch": _check_item,
    r"/(threads|assistants)/search|/store/namespaces": _check_page,
    r"/store/items/search": _check_items_page,
}
"""Checks by pattern of the path."""
