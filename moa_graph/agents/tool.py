"""A tool with which an agent asks a mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from langchain.tools import ToolRuntime
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.tools import BaseTool, StructuredTool, ToolException
from langgraph.constants import TAG_NOSTREAM
from pydantic import BaseModel, Field

from moa_graph.agents.arguments import check_graph, checked_uses
from moa_graph.building.compiled import MoAGraph
from moa_graph.calling.turn import RECORD
from moa_graph.chat_model import ChatMoA
from moa_graph.errors import MoAError, call_checked
from moa_graph.prompts import question_place

_NAME = "consult"
# LangGraph fills in `runtime` only if its type is exactly this, and not optional.
_NO_RUNTIME = cast("ToolRuntime[Any, Any]", None)
_AT_THE_LIMIT = (
    "The panel has been asked {uses} times for this question, which is the limit. Answer with what "
    "you know."
)


@call_checked(example="consult_tool(create_moa([…], aggregator))")
def consult_tool(moa: MoAGraph, max_uses: int = 3) -> BaseTool:
    """Return a tool named `consult` with which an agent asks a mixture.

    Its arguments are `question` and, optionally, `context`: what the agent knows. The mixture sees
    these and not the conversation. The result is the mixture's answer; the artifact of the tool
    message is its record, with the `proposals`.

    Args:
        moa: A graph of `create_moa`.
        max_uses: Maximum number of calls for each human message (at least 1). Further calls
            return a text that names the limit; no model is asked.

    Raises:
        TypeError: If `moa` is not a graph of `create_moa`, or `max_uses` is not an integer.
        ValueError: If `max_uses` is below 1.

    Example: `create_agent(model, tools=[search, consult_tool(moa)])`
    """
    check_graph(moa, "consult_tool")
    most = checked_uses(max_uses, "consult_tool")
    model = ChatMoA(graph=moa, consult="always").with_config(tags=[TAG_NOSTREAM])

    def consult(
        question: str, context: str = "", *, runtime: ToolRuntime[Any, Any] = _NO_RUNTIME
    ) -> tuple[str, dict[str, Any] | None]:
        if _used(runtime) >= most:
            return _AT_THE_LIMIT.format(uses=most), None
        try:
            return _answer(model.invoke(_asked(question, context)))
        except MoAError as error:
            raise _failed(error) from error

    async def aconsult(
        question: str, context: str = "", *, runtime: ToolRuntime[Any, Any] = _NO_RUNTIME
    ) -> tuple[str, dict[str, Any] | None]:
        if _used(runtime) >= most:
            return _AT_THE_LIMIT.format(uses=most), None
        try:
            return _answer(await model.ainvoke(_asked(question, context)))
        except MoAError as error:
            raise _failed(error) from error

    return StructuredTool.from_function(
        consult,
        aconsult,
        name=_NAME,
        description=DESCRIPTION,
        args_schema=_Question,
        response_format="content_and_artifact",
        handle_tool_error=True,
    )


DESCRIPTION = (
    "Ask a panel of several models, and get one answer that combines theirs. It is slower and "
    "costs more than answering yourself: use it for hard questions, for decisions that matter, and "
    "when you do not know how to continue. The panel does not see this conversation."
)
"""Description of the tool, for the model that calls it."""
QUESTION = "The whole question, understandable on its own."
CONTEXT = "What the panel needs to know to answer it."
"""Descriptions of its arguments."""


class _Question(BaseModel):
    question: str = Field(description=QUESTION)
    context: str = Field(default="", description=CONTEXT)


def text_of(question: str, context: str | None) -> str:
    """Return the message to the mixture: the question, with the context if there is one."""
    return f"{question}\n\nContext:\n{context}" if context and context.strip() else question


def no_answer(error: object) -> str:
    """Return the result of a call that failed, so that the agent can go on."""
    return f"The panel gave no answer: {error}"


def _asked(question: str, context: str) -> list[BaseMessage]:
    return [HumanMessage(text_of(question, context))]


def _failed(error: MoAError) -> ToolException:
    return ToolException(no_answer(error))


def _answer(message: AIMessage) -> tuple[str, dict[str, Any]]:
    return str(message.text), message.response_metadata[RECORD]


def _used(runtime: ToolRuntime[Any, Any] | None) -> int:
    """Return how often the tool was called in this turn before this call; 0 without an agent."""
    if runtime is None:
        return 0
    state: Any = runtime.state
    if isinstance(state, Mapping):
        state = state.get("messages")
    messages = state if isinstance(state, list) else getattr(state, "messages", None) or []
    place = question_place(messages)
    answers = [m for m in messages[place or 0 :] if isinstance(m, AIMessage)]
    calls = [[c["id"] for c in m.tool_calls if c["name"] == _NAME] for m in answers]
    # Some models give the calls of all their answers the same ids.
    for place in range(len(calls) - 1, -1, -1):
        if runtime.tool_call_id in calls[place]:
            before = sum(map(len, calls[:place]))
            return before + calls[place].index(runtime.tool_call_id)
    return sum(map(len, calls))
