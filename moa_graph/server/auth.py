"""Authentication, ownership and rate limits of the server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from langgraph_sdk import Auth
from starlette.concurrency import run_in_threadpool

from moa_graph._compat import assistant_of
from moa_graph.presets import PRESETS
from moa_graph.server.assistants import check_given, check_preset, mixture
from moa_graph.server.checks.batches import ONE_PLACE
from moa_graph.server.checks.bounds import check_question
from moa_graph.server.checks.quotas import TEMPORARY, check_metadata
from moa_graph.server.checks.rates import check_rate
from moa_graph.server.checks.refusals import Refused
from moa_graph.server.checks.requests import current_batch
from moa_graph.server.checks.run_configuration import check_run_configuration
from moa_graph.server.checks.updates import check_checkpoint, check_command, check_input
from moa_graph.server.metrics import ACCEPTED_AT, RUNS_ACCEPTED
from moa_graph.server.settings import LOCAL_USER
from moa_graph.server.users import label_of, user_of

auth = Auth()
"""Handlers that LangGraph Server and Aegra call for every request; see `langgraph.json`."""

_SYSTEM = {"created_by": "system"}  # metadata of the server's own assistants, one per graph


@auth.authenticate
async def authenticate(headers: dict[Any, Any]) -> Auth.types.MinimalUserDict:
    """Return the user who sends a request.

    Raises:
        Auth.exceptions.HTTPException: With status 401, if the request is not authenticated. The
            message says what to do.
    """
    try:
        # LangGraph Server passes bytes, Aegra strings.
        texts = {_text(name).lower(): _text(value) for name, value in headers.items()}
        user = await run_in_threadpool(user_of, texts)  # it may read system files
    except PermissionError as error:
        raise Auth.exceptions.HTTPException(status_code=401, detail=str(error)) from None
    return {"identity": user, "display_name": user, "is_authenticated": True}


def _text(value: bytes | str) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else value


# --- ownership --------------------------------------------------------------------------


@auth.on
async def nothing_else(ctx: Auth.types.AuthContext, value: Any) -> bool:  # noqa: ARG001
    """Deny by default: an action without a handler is refused."""
    return False


@auth.on.threads
async def own_threads(ctx: Auth.types.AuthContext, value: Any) -> Auth.types.FilterType:
    """Restrict threads and their runs to the user who created them."""
    return _own(ctx, value)


@auth.on.threads.create_run
async def own_runs(ctx: Auth.types.AuthContext, value: Any) -> Auth.types.FilterType:
    """Check the bounds and the rate limit of a new run."""
    run = _check_run(value)
    config = _object(run, "config")
    told = [(value if "kwargs" in value else run).get("metadata"), config.get("metadata")]
    _check_told(ctx.user.identity, told, _object(config, "configurable"))
    await _check_start(ctx.user.identity)
    for metadata in filter(None, told):
        metadata.pop(TEMPORARY, None)
    owner = _own(ctx, value)
    value["metadata"][ACCEPTED_AT] = time.time()
    RUNS_ACCEPTED.inc()
    if run.get("temporary"):
        value["metadata"][TEMPORARY] = True
    return owner


@auth.on.assistants
async def own_assistants(ctx: Auth.types.AuthContext, value: Any) -> Auth.types.FilterType:
    """Check the bounds of an assistant; refuse changes to the server's own assistants."""
    _check_assistant(value)
    return _own(ctx, value)


@auth.on.assistants.create
async def create_assistants(ctx: Auth.types.AuthContext, value: Any) -> Auth.types.FilterType:
    """Build a new mixture once, so that the client gets any error now."""
    given = _check_assistant(value)
    if value.get("graph_id") == mixture.__name__:
        with _told():
            await mixture({"configurable": given})
    return _own(ctx, value)


@auth.on.assistants.read
async def read_assistants(ctx: Auth.types.AuthContext, value: Any) -> Any:  # noqa: ARG001
    """Let every user read the server's own assistants."""
    return {"$or": [{"owner": ctx.user.identity}, _SYSTEM]}


@auth.on.assistants.search
async def search_assistants(ctx: Auth.types.AuthContext, value: Any) -> Any:
    """Let every user find the server's own assistants."""
    return await read_assistants(ctx=ctx, value=value)


@auth.on.crons
async def own_crons(ctx: Auth.types.AuthContext, value: Any) -> Auth.types.FilterType:
    """Refuse schedules to API keys: the rate limit does not count scheduled runs."""
    if ctx.user.identity != LOCAL_USER:
        raise Auth.exceptions.HTTPException(
            status_code=403,
            detail="Users with API keys cannot create schedules: scheduled runs do not count "
            "towards MOA_RUNS_PER_MINUTE.",
        )
    _check_configuration(value.get("payload") or value)
    return _own(ctx, value)


@auth.on.store
async def own_store(ctx: Auth.types.AuthContext, value: Any) -> None:
    """Prefix every namespace with the user's name, so that users cannot share items."""
    for place in ("namespace", "prefix", "namespace_prefix"):
        if place in value:
            given = value[place]
            names = given.split(".") if isinstance(given, str) else given or ()
            value[place] = (label_of(ctx.user.identity), *names)


def _own(ctx: Auth.types.AuthContext, value: Any) -> dict[str, Any]:
    """Make the user the owner of a new resource, and return the filter for owned ones."""
    owner = {"owner": ctx.user.identity}
    if value.get("metadata") is None:
        value["metadata"] = {}
    metadata = value["metadata"]  # the server reads this object, so change it in place
    if metadata.get("created_by") == "system":
        del metadata["created_by"]
    if ctx.action != "search":  # there it is what is searched for
        metadata.pop(TEMPORARY, None)
    metadata.update(owner)
    return owner


# --- bounds and rate limit ---------------------------------------------------------------

_SERVERS_OWN = {
    "assistant_id", "checkpoint_id", "checkpoint_map", "checkpoint_ns", "cron_id", "graph_id",
    "run_id", "thread_id", "user_id",
}  # fmt: skip
_SERVERS_OWN_PREFIXES = ("__", "langgraph_", "langsmith", "x-")
_TRACED_ELSEWHERE = {  # settings, and the fields of `langsmith_tracer` that set them
    "__langsmith_project__": "project_name",
    "__langsmith_example_id__": "example_id",
}
_ANSWERS = ("goto", "response", "responses", "update")  # to an interrupt, in a command of Aegra
_PRESETS = {key: name for name in PRESETS for key in (name, assistant_of(name))}


def _check_assistant(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validated context of an assistant; refuse an invalid one with status 422."""
    given = _check_configuration(value)
    _check_preset(value.get("graph_id"), given)
    return given


def _check_run(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request of a run; refuse an invalid context or configuration with status 422.

    LangGraph Server gives the request as `kwargs`, with the context in `configurable`, too. Aegra
    gives the body of the request, which may be a command of its event protocol.
    """
    with _told():
        if "kwargs" in value:
            request = _object(value, "kwargs")
        else:
            request = _object(value, "params") if "method" in value else value
            check_command({name: request[name] for name in _ANSWERS if name in request})
            configurable = _object(_object(request, "config"), "configurable")
            if _settings(configurable) and request.get("context"):
                raise ValueError(ONE_PLACE)
    given = _check_configuration(request)
    _check_preset(value.get("assistant_id") or request.get("assistant_id"), given)
    return request


def _check_preset(graph: Any, given: Mapping[str, Any]) -> None:
    """Refuse the context of another mixture for a preset, given as its name or its assistant."""
    if preset := _PRESETS.get(str(graph)):
        with _told():
            check_preset(preset, given)


def _check_configuration(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validated context of a request; refuse an invalid one with status 422."""
    with _told():
        config = _object(value, "config")
        settings = {**_object(config, "configurable"), **_object(value, "context")}
        given = _settings(settings)
        check_run_configuration(config)
        check_given(given)
        check_input(value.get("input"))
        check_command(value.get("command"))
        check_checkpoint(value.get("checkpoint"))
        check_question(config)
        check_question(settings)
    return given


def _settings(configurable: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that a client sets, without those that the servers set."""
    return {
        name: setting
        for name, setting in configurable.items()
        if name not in _SERVERS_OWN and not name.startswith(_SERVERS_OWN_PREFIXES)
    }


def _object(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{name} must be an object, not {found!r:.60}.")
    return found


def _check_item(user: str, run: Mapping[str, Any]) -> None:
    """Check one run of a batch, given as its request, as `own_runs` checks it."""
    given = _check_configuration(run)
    _check_preset(run.get("assistant_id"), given)
    config = _object(run, "config")
    tracer = _object(run, "langsmith_tracer")
    settings = {**_object(config, "configurable")}
    if tracer:  # as the server adds it
        settings |= {name: tracer.get(field) for name, field in _TRACED_ELSEWHERE.items()}
    _check_told(user, [run.get("metadata"), config.get("metadata")], settings)


def _check_told(user: str, metadata: Sequence[Any], settings: Mapping[str, Any]) -> None:
    """Check the metadata of a run, and that it is traced here, if its user has an API key."""
    if user != LOCAL_USER:
        with _told():
            check_metadata(metadata)
            _check_traced_here(settings)


def _check_traced_here(settings: Mapping[str, Any]) -> None:
    if any(settings.get(name) for name in _TRACED_ELSEWHERE):
        raise Refused(
            HTTPStatus.FORBIDDEN,
            "Users with API keys cannot set langsmith_tracer: the traces are the server's.",
        )


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (Refused, ValueError, RecursionError) as error:
        refused = error if isinstance(error, Refused) else Refused.of(error)
        raise Auth.exceptions.HTTPException(
            status_code=refused.status, detail=refused.message, headers=refused.headers
        ) from None


async def _check_start(user: str) -> None:
    """Check the rate limit of a run; of a batch, check all its runs, so that all or none start."""
    if (batch := current_batch.get()) is None:
        with _told():
            await check_rate(user)
        return
    async with batch.lock:
        if batch.allowed is None:
            batch.allowed = False
            for run in batch.runs:
                _check_item(user, run if isinstance(run, Mapping) else {})
            with _told():
                await check_rate(user, max(1, len(batch.runs)))
            batch.allowed = True
    if not batch.allowed:
        raise Auth.exceptions.HTTPException(
            status_code=422, detail="Another run of this batch is refused."
        )
