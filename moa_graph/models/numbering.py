"""Tell objects with the same name apart, if nothing else identifies them."""

from __future__ import annotations

import inspect
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

_seen: dict[int, tuple[Callable[[], Any], int]] = {}
_counts: Counter[str] = Counter()


def number_of(value: Any, name: str) -> int:
    """Return how many other objects with this name were seen before this one in the process.

    The number is the same in another process that makes the objects in the same order.

    Args:
        value: The object; of a bound method, its object counts.
        name: Its name.
    """
    value = value.__self__ if inspect.ismethod(value) else value
    known = _seen.get(id(value))
    if known is None or known[0]() is not value:
        key = id(value)
        try:
            alive: Callable[[], Any] = weakref.ref(value, lambda _: _seen.pop(key, None))
        except TypeError:  # some classes do not support this
            alive = lambda: value  # noqa: E731
        _seen[key] = known = (alive, _counts[name])
        _counts[name] += 1
    return known[1]
