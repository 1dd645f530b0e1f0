"""Which errors are worth another attempt, and whether there will be one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from langgraph.types import RetryPolicy

from moa_graph.errors import MoAError


def wants_retry(policy: RetryPolicy, error: Exception) -> bool:
    """Whether the policy asks for another attempt after this error; never after our own.

    The same reading of `retry_on` as LangGraph's: an exception class, several, or a function.
    """
    if isinstance(error, MoAError):
        return False
    wanted = policy.retry_on
    if isinstance(wanted, type):
        return isinstance(error, wanted)
    if isinstance(wanted, Sequence):
        return isinstance(error, tuple(wanted))
    return wanted(error)


def is_last_attempt(policies: Sequence[RetryPolicy], error: Exception, attempt: int) -> bool:
    """Whether LangGraph will not run the node again after this error.

    Args:
        policies: The node's policies; the first that wants the error counts.
        error: What the attempt raised.
        attempt: Its number, from 1.
    """
    policy = next((p for p in policies if wants_retry(p, error)), None)
    return policy is None or attempt >= policy.max_attempts


def for_nodes(policies: Sequence[RetryPolicy]) -> list[RetryPolicy] | None:
    """The policies in the form that LangGraph gets: they leave our own errors alone."""
    return [p._replace(retry_on=partial(wants_retry, p)) for p in policies] or None
