"""Checks of all runs of a batch before the first one starts, so that all or none start.

LangGraph's server starts the runs of a batch at once, and checks each one while others start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import httpx

from moa_graph.server.checks.json_values import is_uuid
from moa_graph.server.checks.refusals import Refused
from moa_graph.server.itself import Itself

ONE_PLACE = "The settings of a run must be in its context or in config.configurable, not in both."
_OF_EVENTS = {"lifecycle", "tools"}


def check_item(run: Mapping[str, Any]) -> None:
    """Check what LangGraph's server refuses for one run, while others of its batch start.

    Args:
        run: The request of a run without a thread.

    Raises:
        ValueError: If the server would refuse it. The message says why.
    """
    if run.get("webhook"):
        raise ValueError("webhook: this server calls no webhooks.")
    config, command = run.get("config"), run.get("command")
    if run.get("context") and isinstance(config, Mapping) and config.get("configurable"):
        raise ValueError(ONE_PLACE)
    if isinstance(command, Mapping) and command.get("resume"):
        raise ValueError("command.resume needs a run in a thread.")
    modes = run.get("stream_mode")
    for mode in modes if isinstance(modes, list) else [modes]:
        if isinstance(mode, str) and mode in _OF_EVENTS:
            raise ValueError(f"stream_mode must not be {mode!r} in a batch.")


async def check_assistants(itself: Itself, runs: Iterable[Any]) -> None:
    """Check that the assistants of all runs exist.

    Args:
        itself: This server's own API, as the user.
        runs: The requests of the runs.

    Raises:
        Refused: With status 404, if one does not exist, or is another user's.
    """
    asked = (run.get("assistant_id") for run in runs if isinstance(run, Mapping))
    for name in dict.fromkeys(name for name in asked if isinstance(name, str)):
        if not await _exists(itself, name):
            raise Refused(HTTPStatus.NOT_FOUND, f"There is no assistant {name!r:.60}.")


async def _exists(itself: Itself, name: str) -> bool:
    api, headers = itself.client.assistants, itself.headers
    try:
        if is_uuid(name):
            return bool(await api.get(name, headers=headers))
        return bool(await api.search(graph_id=name, limit=1, headers=headers))
    except httpx.HTTPStatusError as error:
        if error.response.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
            return False
        raise
