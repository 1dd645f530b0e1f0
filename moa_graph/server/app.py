"""FastAPI application with the live page and the OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from starlette.routing import Route
from starlette.staticfiles import StaticFiles

from moa_graph._compat import on_aegra
from moa_graph.server import auth as _auth  # noqa: F401 - fails early; Aegra ignores load errors
from moa_graph.server import operations
from moa_graph.server.aegra.assistants import DistinctAssistants
from moa_graph.server.aegra.failures import PlainFailures
from moa_graph.server.aegra.streams import AegraStreams
from moa_graph.server.checks.json_bodies import JsonBodies
from moa_graph.server.checks.requests import BodyBound
from moa_graph.server.checks.writes import Writes
from moa_graph.server.drain import ToldEnds, draining
from moa_graph.server.guard import Guard
from moa_graph.server.leftovers import Leftovers
from moa_graph.server.memory import collected
from moa_graph.server.metrics import FirstTokens
from moa_graph.server.page_api.routes import POLICY
from moa_graph.server.page_api.routes import router as page_router
from moa_graph.server.protocols import routes
from moa_graph.server.request_ids import RequestIds
from moa_graph.server.settings import SETTINGS

if SETTINGS.mcp and find_spec("mcp") is None:
    raise ImportError("MOA_MCP=1 needs the package mcp: pip install 'moa-graph[mcp]'")

_PAGE = Path(__file__).parent / "page"


class _Files(StaticFiles):
    """Static files with the security headers of the page."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(POLICY)
        return response


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:  # noqa: ARG001
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(collected())
        await stack.enter_async_context(draining())
        if SETTINGS.mcp:
            await stack.enter_async_context(_mcp.running())
        yield


app = FastAPI(
    lifespan=_lifespan,
    title="Mixture-of-Agents",
    description="Mixtures as if each were one model, beside the server's own API.",
)
"""Application that `langgraph.json` adds to the server."""


@app.get("/moa", include_in_schema=False)
async def page() -> Response:
    """Return the live page."""
    return FileResponse(_PAGE / "index.html", headers=POLICY)


if on_aegra():
    app.add_middleware(DistinctAssistants)
    app.add_middleware(AegraStreams)
    app.add_middleware(PlainFailures)
app.add_middleware(Writes)
app.add_middleware(JsonBodies)
app.add_middleware(BodyBound)
app.add_middleware(FirstTokens)
app.add_middleware(Leftovers)
app.add_middleware(Guard)
app.add_middleware(ToldEnds)
app.add_middleware(RequestIds)
app.include_router(page_router)
app.mount("/moa", _Files(directory=_PAGE))
app.include_router(operations.router)
app.include_router(routes.router)
if SETTINGS.mcp:
    from moa_graph.server.mcp_api.endpoint import Endpoint

    _mcp = Endpoint()
    app.router.routes += [Route(path, _mcp) for path in ("/mcp", "/mcp/")]
