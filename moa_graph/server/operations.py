"""Routes for operators: `/metrics`, `/live` and `/ready`."""

from __future__ import annotations

import httpx
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.concurrency import run_in_threadpool

from moa_graph.server.drain import is_draining
from moa_graph.server.itself import Itself

_CHECKS = ("/ok?check_db=1", "/health")  # of LangGraph Server, and of Aegra
_PATIENCE = 5.0  # seconds

router = APIRouter(tags=["Operations"])
"""Routes `/metrics`, `/live` and `/ready`."""


@router.get("/metrics")
async def metrics() -> Response:
    """Return the metrics of this process in Prometheus' format."""
    text = await run_in_threadpool(generate_latest)
    return PlainTextResponse(text, media_type=CONTENT_TYPE_LATEST)


@router.api_route("/live", methods=["GET", "HEAD"])
async def live() -> Response:
    """Return that this process answers."""
    return JSONResponse({"status": "ok"})


@router.api_route("/ready", methods=["GET", "HEAD"], responses={503: {}})
async def ready(request: Request) -> Response:
    """Return whether this process can take runs: its database answers, and it is not stopping."""
    if is_draining():
        return JSONResponse({"status": "stopping"}, 503)
    problem = await _problem(request)
    if problem:
        return JSONResponse({"status": "unavailable", "detail": problem}, 503)
    return JSONResponse({"status": "ok"})


async def _problem(request: Request) -> str | None:
    """Return what the server's own check finds; None if all is well."""
    for path in _CHECKS:
        try:
            told = await Itself(request.scope).http.get(path, timeout=_PATIENCE)
        except httpx.HTTPError as error:
            return f"{path}: {type(error).__name__}"
        if told.status_code != httpx.codes.NOT_FOUND:
            return None if told.is_success else f"{path}: status {told.status_code}"
    return None
