"""Rate limit of runs, for each name that has API keys."""

from __future__ import annotations

import time
from http import HTTPStatus

from limits import RateLimitItemPerMinute
from limits.aio.strategies import MovingWindowRateLimiter
from limits.storage import storage_from_string

from moa_graph.server.checks.refusals import Refused
from moa_graph.server.settings import LOCAL_USER, SETTINGS

_RATE = RateLimitItemPerMinute(SETTINGS.runs_per_minute)
# Aegra and LangGraph Server install this Redis client.
_redis = {"implementation": "redispy"} if "redis" in SETTINGS.rate_storage else {}
_rates = MovingWindowRateLimiter(storage_from_string(SETTINGS.rate_storage, **_redis))


async def check_rate(user: str, runs: int = 1) -> None:
    """Count runs that a user is about to start.

    Args:
        user: Name of the user.
        runs: Number of runs (at least 1); all or none are counted.

    Raises:
        Refused: With status 429, if the user may not start so many now.
    """
    if user == LOCAL_USER or await _rates.hit(_RATE, user, cost=runs):
        return
    stats = await _rates.get_window_stats(_RATE, user)
    wait = max(1, round(stats.reset_time - time.time()))
    raise Refused(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"This key may start {_RATE.amount} runs a minute (MOA_RUNS_PER_MINUTE).",
        {"Retry-After": str(wait)},
    )
