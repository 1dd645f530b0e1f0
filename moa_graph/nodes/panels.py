"""Keep the proposals of each turn of an agent, for the turn's later calls."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy

from moa_graph.calling import sync
from moa_graph.calling.cache import StoredProposals
from moa_graph.calling.turn import Panel, Source, Turn, as_panel, digest

_MOST = 256  # panels in memory


class Panels:
    """The panels of one graph: the newest in memory, all of them in its cache if it has one.

    Args:
        cache: The graph's cache.
    """

    def __init__(self, cache: StoredProposals | None = None) -> None:
        self._cache = cache
        self._kept: OrderedDict[str, Panel] = OrderedDict()
        self._lock = sync.Lock()

    async def find(self, turn: Turn, owner: str | None) -> tuple[Panel | None, Source]:
        """Return a panel of the turn that this call can show, and its origin.

        Args:
            turn: The turn.
            owner: The user whose turn it is; None without a server or without users.
        """
        if turn.known is not None and turn.serves(turn.known):
            return turn.known, "record"
        keys = [digest([key, owner, turn.thread]) for key in turn.keys]
        for key in keys:
            kept = self._in_memory(key)
            if kept is not None and turn.continues(kept) and turn.serves(kept):
                return kept, "memory"
        for key in keys if self._cache else []:
            assert self._cache is not None
            stored = as_panel(await self._cache.panel(key))
            if stored is not None and turn.continues(stored) and turn.serves(stored):
                self._remember(key, stored)
                return stored, "cache"
        return None, "asked"

    def _in_memory(self, key: str) -> Panel | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    async def keep(self, turn: Turn, owner: str | None, panel: Panel) -> None:
        """Keep the panel as the newest of its turn; do nothing if it is that already."""
        key = digest([turn.key, owner, turn.thread])
        kept = self._in_memory(key)
        if kept is not None and _ids_in(kept) == _ids_in(panel):
            return
        panel = deepcopy(panel)  # the message with the record can be edited later
        self._remember(key, panel)
        if self._cache is not None:
            await self._cache.keep_panel(key, dict(panel))

    def _remember(self, key: str, panel: Panel) -> None:
        with self._lock:
            self._kept[key] = panel
            self._kept.move_to_end(key)
            while len(self._kept) > _MOST:
                self._kept.popitem(last=False)


def _ids_in(panel: Panel) -> list[str | None]:
    """Return the ids of the panel's proposals, which are unique to the calls that made them."""
    return [proposal.get("id") for proposal in panel["proposals"]]
