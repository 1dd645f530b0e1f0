"""The MCP server with the tool `consult`, which asks a mixture.

Each call is a run of the server, started through the server's own API with the client's
credentials. It is traced, rate-limited and bounded like any other run.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import anyio
from mcp.server import Server, ServerRequestContext
from mcp.server.context import CallNext, HandlerResult
from mcp.shared.exceptions import MCPError
from mcp.types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
)
from pydantic import ValidationError
from starlette.requests import Request

from moa_graph.agents.tool import no_answer, text_of
from moa_graph.errors import what_is_wrong
from moa_graph.server.drain import MESSAGE, cut
from moa_graph.server.mcp_api.protocol import (
    DEFAULT,
    NAME,
    Arguments,
    Consultation,
    Tokens,
    listed,
    tool,
)
from moa_graph.server.mcp_api.runs import CALL, Followed, Runs, call_id
from moa_graph.server.protocols.chat_completions.request import ChatCompletionRequest
from moa_graph.server.protocols.errors import ApiError
from moa_graph.server.protocols.reply import Reply

SESSION = "mcp-session-id"
"""Header with the id of a client's session."""
_LAST_WORDS = 5.0  # seconds to cancel a run
_FAILED = 502  # status of a failed run
_INPUT_SCHEMA = tool([]).input_schema
_log = logging.getLogger(__name__)

T = TypeVar("T")
Context = ServerRequestContext[Any, Any]


def mcp_server() -> Server[Any]:
    """Return the MCP server, which keeps no state between requests."""
    try:
        own = version("moa-graph")
    except PackageNotFoundError:
        own = ""
    server: Server[Any] = Server(
        "moa-graph",
        title="Mixture-of-Agents",
        version=own,
        on_list_tools=_list_tools,
        on_call_tool=_call_tool,
        get_tool_input_schema={NAME: _INPUT_SCHEMA}.get,
    )
    server.middleware.append(_without_internals)
    return server


async def _without_internals(ctx: Context, call_next: CallNext) -> HandlerResult:
    """Keep the text of an unexpected error in the log: the SDK would send it to the client."""
    try:
        return await call_next(ctx)
    except (MCPError, ValidationError):
        raise
    except ApiError as error:
        raise MCPError(INTERNAL_ERROR, str(error)) from error
    except Exception as error:
        _log.exception("An MCP request failed.")
        raise MCPError(INTERNAL_ERROR, "The server failed; its log says why.") from error


async def _list_tools(context: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
    del params
    names = [name for name, _ in await Runs(_request(context)).models()]
    return ListToolsResult(tools=[tool(names)])


async def _call_tool(context: Context, params: CallToolRequestParams) -> CallToolResult:
    if params.name != NAME:
        raise MCPError(INVALID_PARAMS, f"Unknown tool {params.name!r}: there is {NAME!r}.")
    try:
        arguments = Arguments.model_validate(params.arguments or {})
    except ValidationError as error:
        return _refused(what_is_wrong(error, Arguments, {}))
    server = Runs(_request(context))
    try:
        return await _consulted(server, arguments, context)
    except ApiError as error:
        return _refused(await _sentence(error, arguments, server))


async def _consulted(server: Runs, arguments: Arguments, context: Context) -> CallToolResult:
    mixture = arguments.mixture or DEFAULT
    question = {"role": "user", "content": text_of(arguments.question, arguments.context)}
    asked = ChatCompletionRequest.model_validate(
        {"model": mixture, "messages": [question], "metadata": _metadata(context)}
    )
    watched = bool(context.meta and "progress_token" in context.meta)
    followed = Followed(
        await server.start(asked),
        context.session.report_progress,
        await server.steps(mixture) if watched else None,
    )
    reply = Reply(followed.events())
    try:
        await _unless_cut(reply.whole())
    finally:
        with anyio.move_on_after(_LAST_WORDS, shield=True):  # a cancelled call cancels its run
            await reply.end()
    return _result(reply, mixture, followed)


def _request(context: Context) -> Request:
    assert isinstance(context.request, Request)
    return context.request


def _metadata(context: Context) -> dict[str, str]:
    session = _request(context).headers.get(SESSION)
    return {CALL: call_id(session, context.request_id)} if session else {}


async def _unless_cut(work: Awaitable[T]) -> T:
    """Return the result of the work; end it when a shutdown cuts the run."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(cut.wait())
    try:
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ApiError(_FAILED, MESSAGE)
    finally:
        for waiting in (task, stop):
            waiting.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({task, stop})


def _result(reply: Reply, mixture: str, followed: Followed) -> CallToolResult:
    text = reply.text or reply.refusal
    if not text:
        raise ApiError(_FAILED, f"it is empty (finish_reason: {reply.finish}).")
    usage = reply.usage
    outcomes = followed.outcomes
    usable = sum(outcome.status == "ok" for outcome in outcomes)
    result = Consultation(
        answer=text,
        model=mixture,
        finish_reason=reply.finish,
        usage=Tokens.model_validate(usage) if usage else None,
        ok=usable,
        failed=len(outcomes) - usable,
        proposals=outcomes,
    )
    return CallToolResult(
        content=[TextContent(text=text)], structured_content=result.model_dump(mode="json")
    )


async def _sentence(error: ApiError, arguments: Arguments, server: Runs) -> str:
    """Return what a model that calls the tool can do about an error."""
    if error.code == "model_not_found":
        names = [name for name, _ in await server.models()]
        return f"Unknown mixture {arguments.mixture!r}. Available: {listed(names)}."
    if wait := (error.headers or {}).get("Retry-After"):
        return f"{error} Try again in {wait} seconds."
    return no_answer(error) if error.status >= _FAILED else str(error)


def _refused(message: str) -> CallToolResult:
    return CallToolResult(content=[TextContent(text=message)], is_error=True)
