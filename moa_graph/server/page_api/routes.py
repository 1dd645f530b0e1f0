"""Routes of the live page: rendering, prices, the offer for mixtures, exports and votes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any

import httpx
from fastapi import APIRouter, HTTPException, Query, Request, Response
from fastapi.responses import HTMLResponse
from langsmith.utils import LangSmithError
from pydantic import BaseModel, ConfigDict, Field

from moa_graph.calling.budget import known_price
from moa_graph.limits import Price
from moa_graph.server.assistants import described_by
from moa_graph.server.itself import Itself
from moa_graph.server.page_api.explicit import concise
from moa_graph.server.page_api.markdown import rendered
from moa_graph.server.page_api.offer import offer
from moa_graph.server.page_api.python_code import python_code
from moa_graph.server.page_api.votes import (
    AlreadyVoted,
    Vote,
    keep_in_files,
    keep_in_langsmith,
    traces,
)
from moa_graph.server.settings import SETTINGS
from moa_graph.state import Proposal, proposals_of_layer, usable

POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Security headers of the page. Model output is not trusted: its HTML is shown as text and it loads
no resources. This policy is a second line of defence: the browser runs only the page's own files.
"""
_LONGEST = 1_000_000  # bytes of Markdown

router = APIRouter(prefix="/moa", include_in_schema=False)
"""Routes below `/moa`, beside the files of the page."""


@router.post("/markdown")
async def markdown(request: Request) -> Response:
    """Render the Markdown in the body as HTML, without scripts, images or embedded HTML."""
    text = await request.body()
    if len(text) > _LONGEST:
        return Response("The text is too long.", status_code=413)
    html = await asyncio.to_thread(rendered, text.decode(errors="replace"))
    return HTMLResponse(html, headers=POLICY)


@router.get("/prices")
async def prices(
    model: Annotated[list[str], Query(max_length=50)],
) -> dict[str, Price | None]:
    """Return the dollars per million input and output tokens of models; null where unknown."""
    names = [name for name in model if len(name) <= _LONGEST_NAME]
    return {name: await asyncio.to_thread(_price, name) for name in names}


_LONGEST_NAME = 200


@lru_cache(maxsize=1024)
def _price(model: str) -> Price | None:
    try:
        return known_price(model, None)
    except ImportError:
        return None


@router.get("/offer")
async def offered() -> dict[str, Any]:
    """Return what a mixture on this server can be made of."""
    return await asyncio.to_thread(offer)


class Described(BaseModel):
    """A mixture as the context of an assistant."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(default="mixture", max_length=_LONGEST_NAME)
    context: dict[str, Any]


@router.post("/export")
async def exported(asked: Described) -> dict[str, str]:
    """Return a mixture as a TOML file and as Python code."""
    try:
        configuration = concise(await asyncio.to_thread(described_by, asked.context, asked.name))
        return {"toml": configuration.to_toml(), "python": python_code(configuration)}
    except (TypeError, ValueError) as error:
        raise HTTPException(422, str(error)) from None


@router.post("/votes")
async def votes(vote: Vote, request: Request) -> dict[str, str]:
    """Keep the reader's vote for a proposal of a run of theirs."""
    state = await _state_of(vote, request)
    among = [*usable(proposals_of_layer(_proposals(state), vote.layer))]
    if vote.proposer not in {proposal["proposer"] for proposal in among}:
        raise HTTPException(422, f"Layer {vote.layer} has no proposal of {vote.proposer!r}.")
    if traces():
        try:
            await asyncio.to_thread(keep_in_langsmith, vote, among)
        except LangSmithError as error:
            raise HTTPException(502, f"LangSmith: {type(error).__name__}") from None
        return {"kept": "in LangSmith"}
    folder = Path(SETTINGS.votes)
    try:
        await asyncio.to_thread(keep_in_files, vote, _question(state), among, folder)
    except AlreadyVoted as error:
        raise HTTPException(409, str(error)) from None
    return {"kept": "on the server"}


async def _state_of(vote: Vote, request: Request) -> Mapping[str, Any]:
    """Return the latest state of the run, if the client may read it."""
    itself = Itself(request.scope)
    try:
        (state,) = await itself.client.threads.get_history(
            str(vote.thread_id),
            limit=1,
            metadata={"run_id": str(vote.run_id)},
            headers=itself.headers,
        )
    except (httpx.HTTPStatusError, ValueError):
        raise HTTPException(404, "There is no such run.") from None
    return state


def _proposals(state: Mapping[str, Any]) -> list[Proposal]:
    values = state.get("values")
    return list(values.get("proposals") or ()) if isinstance(values, Mapping) else []


def _question(state: Mapping[str, Any]) -> str:
    asked = [m for m in state["values"].get("messages") or () if m.get("type") == "human"]
    content = asked[-1]["content"] if asked else ""
    if isinstance(content, str):
        return content
    return "".join(block.get("text", "") for block in content if isinstance(block, dict))
