"""Decide which errors are retried, and how long to wait before a retry."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

from langchain_core.exceptions import ContextOverflowError, ModelError
from tenacity import RetryCallState, wait_exponential, wait_random

from moa_graph.errors import MoAError, status_of

FIRST_WAIT = 0.5
"""Seconds before the first retry; the wait doubles with each retry."""
LONGEST_WAIT = 8.0
"""Maximum seconds before a retry, unless the provider asks for more."""
LONGEST_RETRY_AFTER = 60.0
"""Maximum seconds in `Retry-After`; if the provider asks for more, there is no retry."""

_STATUSES = {408, 429, 500, 502, 503, 504, 507, 508, 520, 521, 522, 523, 524, 529}
_TRANSPORT = {
    ("httpx", "TransportError"),
    ("httpx2", "TransportError"),
    ("aiohttp", "ClientConnectionError"),
    ("aiohttp", "ClientPayloadError"),
    ("requests", "ConnectionError"),
    ("requests", "Timeout"),
    ("requests", "ChunkedEncodingError"),
    ("urllib3", "ProtocolError"),
}
_ANOTHER_LOOP = re.compile(
    r"event loop is closed|(?:bound|attached) to a different (?:event )?loop", re.IGNORECASE
)
_OUT_OF_CREDIT = "insufficient_quota"
_TOO_LONG = re.compile(
    r"context_length_exceeded|string_above_max_length|request_too_large|tokens_limit_reached"
    r"|context (?:window|length|limit|size)|maximum (?:context|prompt|model|input|sequence)"
    r"|max_model_len|(?:prompt|input|request|message|payload|content|body|conversation)\S* "
    r"(?:\S+ )?(?:is |was |are )?too (?:long|large|big|many)|too many (?:input )?tokens"
    r"|reduce (?:the|your) (?:length|size|prompt|message|input)|longer than"
    r"|tokens? (?:count |number )?(?:\S+ )?exceed"
    r"|exceed\w* (?:\S+ ){0,4}(?:token|length|context|input)|request entity too large"
    r"|payload too large|content too large|exceeds? (?:the |its )?(?:limit|maximum)"
    r"|maximum is \d+|(?:输入|提示|上下文|请求).{0,12}(?:过长|超过|超出)|长度超过",
    re.IGNORECASE,
)
_MAY_BE_TOO_LONG = re.compile(r"token|length|context|too (?:long|large)|characters", re.IGNORECASE)
_ABOUT_SOMETHING_ELSE = re.compile(
    r"schema|unsupported|not supported|unrecogni[sz]ed|unknown (?:parameter|field)|credit|balance"
    r"|billing|quota|image|audio|video|picture|tool_choice|function call|in context=",
    re.IGNORECASE,
)
_OTHER_TOKENS = re.compile(
    r"(?:access|auth\w*|api|bearer|security|csrf|id|refresh|session)[ _-]?tokens?"
    r"|tokens? (?:is |has )?(?:invalid|expired|missing)|invalid tokens?\b(?! count)",
    re.IGNORECASE,
)
_IMAGES = re.compile(r"image|audio|video|picture", re.IGNORECASE)
_TOO_LARGE = 413
_SERVER_ERROR = 500
_MAY_SAY_SO = (400, _TOO_LARGE, 422)
_RATE_LIMIT = 429
_LONGER_THAN_A_LIMIT = re.compile(
    r"request too large|reduce your message|must be reduced|tokens must be", re.IGNORECASE
)


def can_pass(error: BaseException) -> bool:
    """Return whether an error is transient, so that the same request may succeed later.

    Transient are rate limits, 408, server errors, connection errors and connections that are
    closed in the middle of an answer. Not transient are an invalid request, key, permission or
    name, a content filter, an exhausted quota, and errors of this package.
    """
    if isinstance(error, MoAError) or _OUT_OF_CREDIT in str(getattr(error, "code", "")):
        return False
    if is_of_another_loop(error):
        return True
    if (status := status_of(error)) is not None:
        return status in _STATUSES
    if isinstance(error, ModelError) and error.is_retryable:
        return True
    # Providers' clients wrap the error of their HTTP client.
    return any(isinstance(e, ConnectionError) or _is_transport(e) for e in _causes(error))


def is_of_another_loop(error: BaseException) -> bool:
    """Return whether the error comes from a connection that was opened in another event loop."""
    return any(
        isinstance(cause, RuntimeError) and _ANOTHER_LOOP.search(str(cause)) is not None
        for cause in _causes(error)
    )


def is_too_long(error: BaseException) -> bool:
    """Return whether the provider reported that the prompt is too long.

    This depends on the status and the message: 413; 400 or 422 with a message about the length; a
    rate limit per minute that this one prompt exceeds; a server error that reports an exceeded
    limit; and an error without a status, from a model in this process.
    """
    if isinstance(error, ContextOverflowError):
        return True
    status, text = status_of(error), str(error)
    if status == _TOO_LARGE:
        return True
    if status == _RATE_LIMIT:
        return bool(_LONGER_THAN_A_LIMIT.search(text))
    told = status in (*_MAY_SAY_SO, None) or (status >= _SERVER_ERROR and "exceed" in text)
    return told and bool(_TOO_LONG.search(text)) and not _IMAGES.search(text)


def may_be_too_long(error: BaseException) -> bool:
    """Return whether a rejected request may be too long: its error mentions tokens or length."""
    text = _OTHER_TOKENS.sub("", str(error))
    if status_of(error) not in _MAY_SAY_SO or _ABOUT_SOMETHING_ELSE.search(text):
        return False
    return bool(_MAY_BE_TOO_LONG.search(text))


def retried_by_client(error: BaseException) -> int:
    """Return the number of retries that the provider's own client made before it gave up.

    Clients generated by Stainless (OpenAI, Anthropic, Together, Groq …) send it in a header.
    """
    try:
        headers = getattr(getattr(error, "request", None), "headers", None) or {}
    except RuntimeError:  # httpx: the error has no request
        return 0
    count = headers.get("x-stainless-retry-count", "0")
    return int(count) if str(count).isdecimal() else 0


def seconds_before_retry(error: BaseException, retry: int) -> float | None:
    """Return the seconds to wait before a retry: the provider's `Retry-After`, or else a backoff.

    Args:
        error: Error of the last attempt.
        retry: Number of the retry, from 1.

    Returns:
        Seconds, with jitter; None if the provider asks for more than `LONGEST_RETRY_AFTER`.

    Source: RFC 9110, section 10.2.3 (Retry-After: seconds or a date).
    """
    asked = _retry_after(error)
    if asked is not None:
        if asked > LONGEST_RETRY_AFTER:
            return None
        return asked + random.uniform(0, min(1.0, 0.1 * asked))  # noqa: S311 - no secret
    grown = wait_exponential(multiplier=0.75 * FIRST_WAIT, max=0.75 * LONGEST_WAIT)
    state = RetryCallState(None, None, (), {})  # type: ignore[arg-type]
    state.attempt_number = retry
    wait: float = (grown + wait_random(0, 0.25 * FIRST_WAIT))(state)
    return wait


def _retry_after(error: BaseException) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", None) or {}
    if (milliseconds := _number(headers.get("retry-after-ms"))) is not None:
        return milliseconds / 1000
    value = headers.get("retry-after")
    if (seconds := _number(value)) is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value or "").timestamp() - time.time())
    except ValueError:
        return None


def _number(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if 0 <= number < float("inf") else None


def _is_transport(error: BaseException) -> bool:
    """Return whether an HTTP client lost its connection; clients are identified by class name."""
    names = {(c.__module__.partition(".")[0], c.__name__) for c in type(error).__mro__}
    return not names.isdisjoint(_TRANSPORT)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
