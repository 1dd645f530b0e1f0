"""What can go wrong in a run, said for people."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moa_graph.state import Proposal

_MAX_ERROR_LENGTH = 300
_SHORTEST_SECRET = 8
_SECRET_NAME = re.compile(r"KEY|TOKEN|SECRET|PASSWORD", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"\b(?:sk|pk|rk|tgp|gsk|hf|xai|key|lsv2|AIza)[-_][\w*.-]{6,}|Bearer\s+\S+|\bAIza\w{10,}"
)


class MoAError(RuntimeError):
    """A Mixture-of-Agents run could not go on.

    A `RuntimeError`, whose text LangGraph's server passes on to its clients.
    """


class _RunFailed(MoAError):
    """A failure that carries what the run had produced so far."""

    def __init__(self, message: str, proposals: Sequence[Proposal] = ()) -> None:
        super().__init__(message)
        self.proposals: list[Proposal] = list(proposals)
        """Every proposal of the turn, failed ones included: nothing paid for is lost."""

    def __reduce__(self) -> tuple[type[_RunFailed], tuple[str, list[Proposal]]]:
        return type(self), (str(self), self.proposals)


class NotEnoughProposals(_RunFailed):
    """A layer ended with fewer usable proposals than `min_proposals`.

    Raised before the next layer is called. `proposals` has all proposals of the turn.
    """


class AggregationFailed(_RunFailed):
    """The aggregator gave no answer.

    `proposals` has all proposals of the turn. With a checkpointer, invoking the same thread
    with `None` calls the aggregator again, and only the aggregator.
    """


class AggregationRefused(AggregationFailed):
    """The aggregator's provider, or its client, finds the run's `aggregator_options` wrong."""


def explain(error: BaseException, secrets: Iterable[str] = ()) -> str:
    """Say in one short line what went wrong, without a trace of a key.

    Args:
        error: What a model, or the library that calls it, raised.
        secrets: Texts that must not appear, such as the keys that the model holds. The values
            of environment variables that are named like secrets are always left out.

    Returns:
        At most about 300 characters, in one line.
    """
    if refused_credentials(error):
        # Providers quote (parts of) the key they refuse: say it in our own words.
        return f"{type(error).__name__}: the provider refused the API key (check that it is valid)"
    text = " ".join(str(error).split())
    for secret in sorted({*secrets, *_environment_secrets()}, key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _SECRET_TEXT.sub("***", text)
    if len(text) > _MAX_ERROR_LENGTH:
        text = text[:_MAX_ERROR_LENGTH].rstrip() + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def refused_credentials(error: BaseException) -> bool:
    """Whether the provider answered 401 or 403."""
    return status_of(error) in (401, 403)


def refused_request(error: BaseException) -> bool:
    """Whether what was asked for was wrong: to the provider (400, 422), or to its client."""
    return status_of(error) in (400, 422) or isinstance(error, ValueError | TypeError)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that the provider answered with; None if it did not come to that.

    Also of errors that LangChain's packages raise from those of a provider's client.
    """
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        if (status := _own_status(cause)) is not None:
            return status
        seen.add(id(cause))
        cause = cause.__cause__
    return None


def _own_status(error: BaseException) -> int | None:
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):  # botocore
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    else:
        status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
        status = status or getattr(error, "http_status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) and 100 <= status < 600 else None  # noqa: PLR2004


def _environment_secrets() -> Iterable[str]:
    return (
        value
        for name, value in os.environ.items()
        if len(value) >= _SHORTEST_SECRET
        and _SECRET_NAME.search(name)
        and not value.startswith(("/", "http"))
    )
