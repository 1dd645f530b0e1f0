"""The live page: a Mixture-of-Agents while it answers, beside LangGraph Server's own API."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

_PAGE = Path(__file__).parent / "page"
_LONGEST = 1_000_000  # bytes of Markdown

# What models write is not trusted: its HTML is shown as text, it loads nothing, and should a hole
# be found in that, the browser still runs only the page's own files.
_POLICY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def _outside(
    self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType
) -> str:
    """Links open beside the page, and what they open learns nothing of it."""
    tokens[index].attrs |= {"target": "_blank", "rel": "noopener noreferrer nofollow"}
    return self.renderToken(tokens, index, options, env)


_markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
_markdown.disable("image")
_markdown.add_render_rule("link_open", _outside)


async def page(request: Request) -> Response:  # noqa: ARG001 - Starlette's signature
    """The page itself; its files are beside it."""
    return FileResponse(_PAGE / "index.html", headers=_POLICY)


async def markdown(request: Request) -> Response:
    """Markdown in the body, as HTML without scripts, pictures or the HTML of the text itself."""
    text = await request.body()
    if len(text) > _LONGEST:
        return Response("The text is too long.", status_code=413)
    html = await asyncio.to_thread(_markdown.render, text.decode(errors="replace"))
    return HTMLResponse(html, headers=_POLICY)


class _Files(StaticFiles):
    """Files with the page's policy."""

    def file_response(self, *args: object, **kwargs: object) -> Response:
        response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
        response.headers.update(_POLICY)
        return response


app = Starlette(
    routes=[
        Route("/moa", page),
        Route("/moa/markdown", markdown, methods=["POST"]),
        Mount("/moa", _Files(directory=_PAGE)),
    ]
)
"""What `langgraph.json` adds to the server."""
