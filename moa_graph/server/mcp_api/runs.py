"""The runs that answer calls of the tool: their progress, and how they are cancelled."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from moa_graph.building.members import layers_of
from moa_graph.presets import PRESETS
from moa_graph.server.assistants import configuration_of
from moa_graph.server.mcp_api.protocol import Outcome, outcome
from moa_graph.server.protocols.errors import ApiError
from moa_graph.server.protocols.runs import Server
from moa_graph.server.written import records_in

CALL = "mcp_call"
"""Key in a run's metadata; its value is the id of the call."""
_PAGE = 100  # threads per search request
_TRIES, _PAUSE = 2, 0.5  # a call may be cancelled just before its run exists; seconds

Progress = Callable[[float, float | None, str], Awaitable[None]]
"""Function that tells a client the steps done, all steps (None if unknown), and the last step."""


def call_id(session: str, request: object) -> str:
    """Return the id of a call.

    Args:
        session: Id of the client's session, unique among all clients.
        request: Id of the client's request, unique within the session.
    """
    return uuid5(NAMESPACE_URL, json.dumps(["mcp", session, str(request)])).hex


class Runs(Server):
    """Client of this server's own API, with the credentials of a request."""

    async def steps(self, mixture: str) -> int | None:
        """Return the number of proposals of a mixture, and one for the answer; None if unknown."""
        configuration = PRESETS.get(mixture)
        if configuration is None:
            for name, assistant in await self.models():
                if mixture in (name, assistant["assistant_id"]):
                    configured = (assistant.get("config") or {}).get("configurable") or {}
                    context = {**configured, **(assistant.get("context") or {})}
                    configuration = configuration_of(context)
        if configuration is None:
            return None
        layers = layers_of(configuration.proposers, configuration.layers)
        return sum(layer.width for layer in layers) + 1

    async def cancel(self, call: str) -> bool:
        """Cancel the run of a call; return whether there is one.

        The run is found by its metadata among the user's runs, so that any of several servers can
        cancel it.
        """
        # In LangGraph Server, the thread of a run has its metadata; in Aegra, only the run has.
        for attempt, metadata in itertools.product(range(_TRIES), ({CALL: call}, None)):
            if attempt and metadata:
                await asyncio.sleep(_PAUSE)
            async for thread, run in self._running(metadata):
                if call in _calls_of(run):
                    await self._told(
                        self._client.runs.cancel(thread, run["run_id"], headers=self._headers)
                    )
                    return True
        return False

    async def _running(
        self, metadata: dict[str, str] | None
    ) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        offset, own = 0, self._headers
        while True:
            threads = await self._told(
                self._client.threads.search(
                    metadata=metadata, status="busy", limit=_PAGE, offset=offset, headers=own
                )
            )
            for thread in threads:
                for run in await self._runs_of(thread["thread_id"]):
                    yield thread["thread_id"], run
            if len(threads) < _PAGE:
                return
            offset += _PAGE

    async def _runs_of(self, thread: str) -> Sequence[Mapping[str, Any]]:
        with suppress(ApiError):  # the thread of a run that has ended since is not there
            return await self._told(self._client.runs.list(thread, headers=self._headers))
        return []


def _calls_of(run: Mapping[str, Any]) -> list[Any]:
    """Return the ids of the call of a run, where the servers show them."""
    config = run.get("config") or {}
    places = (run.get("metadata"), config.get("metadata"))
    return [place.get(CALL) for place in places if place]


class Followed:
    """Events of a run, of which the client is told the steps.

    Args:
        events: Events of the run.
        tell: Function that tells the client.
        steps: Number of all steps; None if unknown.
    """

    def __init__(
        self, events: AsyncGenerator[Any, None], tell: Progress, steps: int | None
    ) -> None:
        self._events = events
        self._tell = tell
        self._steps = steps
        self._outcomes: dict[tuple[int, str], Outcome] = {}

    @property
    def outcomes(self) -> list[Outcome]:
        """How the proposers ended, those of the first layer first."""
        return [self._outcomes[place] for place in sorted(self._outcomes)]

    async def events(self) -> AsyncGenerator[Any, None]:
        """Yield the events."""
        async with aclosing(self._events) as events:
            async for event in events:
                if event.event == "updates":
                    await self._note(event.data)
                yield event

    async def _note(self, update: Mapping[str, Any]) -> None:
        for written in update.values():
            if not isinstance(written, Mapping):
                continue
            for proposal in records_in(written, "proposals"):
                ended = outcome(proposal)
                place = (ended.layer, ended.proposer)
                is_new = place not in self._outcomes
                self._outcomes[place] = ended
                if is_new:
                    await self._told(len(self._outcomes), _described(ended))
            if written.get("messages"):
                last = max(self._steps or 0, len(self._outcomes) + 1)
                await self._told(last, "The answer is complete.")

    async def _told(self, done: int, message: str) -> None:
        # Reserve models may add proposals.
        steps = None if self._steps is None else max(self._steps, done)
        await self._tell(done, steps, message)


def _described(ended: Outcome) -> str:
    who = f"Layer {ended.layer}: {ended.proposer}"
    if ended.status == "ok":
        return f"{who} has answered."
    return f"{who} {ended.status.replace('_', ' ')}{f' ({ended.error})' if ended.error else ''}."
