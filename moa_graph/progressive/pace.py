"""The speed of a model, measured while it writes."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

from moa_graph.state import Draft


class Pace:
    """Measure how fast a call begins and how fast its text arrives."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._first: float | None = None
        self._last = 0.0
        self._more = 0

    def add(self, tokens: int) -> None:
        """Count received tokens."""
        self._last = time.monotonic()
        if self._first is None:
            self._first = self._last
        else:
            self._more += tokens

    @property
    def tokens(self) -> float | None:
        """Tokens that arrive in the time that the first one took; None if not known yet."""
        if self._first is None or self._last <= self._first:
            return None
        return self._more * (self._first - self._begun) / (self._last - self._first)

    def seconds_until(self, share: float) -> float:
        """Return the seconds until this share of the first token's time has passed after it.

        Before the first token, and when that time has passed, the result is 0.
        """
        if self._first is None:
            return 0.0
        until = self._first + share * (self._first - self._begun)
        return max(0.0, until - time.monotonic())


def pace_of(drafts: Mapping[str, Draft]) -> float | None:
    """Return the median pace of the measured drafts; None if none was measured."""
    paces = [draft["pace"] for draft in drafts.values() if "pace" in draft]
    return median(paces) if paces else None
