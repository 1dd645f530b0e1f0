"""Let the proposers of a mixture advise an agent whose model stays the user's own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Self, TypeAlias

from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
from langchain_core.messages import BaseMessage
from langgraph.config import get_config
from typing_extensions import override

from moa_graph._compat import inherited
from moa_graph.agents.advised_call import (
    Advice,
    AdvisedCall,
    Ask,
    Call,
    MoAAgentState,
    Step,
    Steps,
)
from moa_graph.agents.arguments import (
    arguments_checked,
    as_context,
    check_graph,
    checked_uses,
)
from moa_graph.agents.predicates import after_tool_error, when_repeating
from moa_graph.agents.tool import consult_tool
from moa_graph.building.compiled import MoAGraph
from moa_graph.building.for_agents import is_progressive, without_answer
from moa_graph.calling import sync
from moa_graph.calling.streams import without_message_stream
from moa_graph.calling.turn import as_consult
from moa_graph.context import MoAContext
from moa_graph.events import ProposalStream

__all__ = ["MoAAgentState", "MoAMiddleware", "after_tool_error", "consult_tool", "when_repeating"]

Handler: TypeAlias = Callable[[ModelRequest[Any]], ModelResponse[Any]]
AsyncHandler: TypeAlias = Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]


@arguments_checked("MoAMiddleware(create_moa([…], aggregator))")
class MoAMiddleware(AgentMiddleware[MoAAgentState, Any, Any]):
    """Middleware for `create_agent`: the proposers of a mixture advise the agent's own model.

    The proposers are asked for advice, and the agent's model is shown it at the end of the latest
    question. The advice is not added to the conversation. The mixture's aggregator is not called,
    because the agent's model takes its place. The proposers are not asked again when another
    middleware repeats a model call, or when a run is resumed.

    The proposers see the conversation with tool calls and results as text, and the names and
    descriptions of the agent's tools. Their newest answers are in the agent's state under `moa`.

    Args:
        moa: A graph of `create_moa` without `progressive`.
        consult: When to ask the proposers: `"turn"`, once for each human message, before the first
            model call; `"final"`, once for each human message, to review the draft of the answer.
            The tokens of a draft are not in streams of messages. Or a function that takes the
            messages of a model call and returns whether to ask them before this call, such as
            `after_tool_error`.
        max_uses: Maximum number of times that they are asked in one turn (at least 1); no maximum
            by default.
        context: Settings of each run of the proposers.

    Raises:
        TypeError: If `moa` is not a graph of `create_moa`, or `max_uses` is not an integer.
        ValueError: If an argument is out of range, or the graph is progressive.

    An agent's run raises `NotEnoughProposals` if a layer has too few usable proposals. With
    `"final"`, the draft is the answer if the review or the call after it fails, and
    `state["moa"]["error"]` has the reason.

    Example:
        ```python
        moa = create_moa(["openai:gpt-5.2", "anthropic:claude-opus-5"], "openai:gpt-5.2")
        agent = create_agent("openai:gpt-5.2", tools=[search], middleware=[MoAMiddleware(moa)])
        ```
    """

    state_schema = MoAAgentState
    transformers = (ProposalStream,)

    def __init__(
        self,
        moa: MoAGraph,
        consult: Literal["turn", "final"] | Callable[[Sequence[BaseMessage]], bool] = "turn",
        max_uses: int | None = None,
        *,
        context: MoAContext | Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        check_graph(moa, "MoAMiddleware")
        if is_progressive(moa):
            raise ValueError(
                "MoAMiddleware needs whole proposals, but the graph was built with progressive=…. "
                "Build it without."
            )
        self._advice = Advice(
            moa.plan,
            as_consult(consult, "MoAMiddleware", ("turn", "final")),
            checked_uses(max_uses, "MoAMiddleware"),
            as_context(context),
        )
        self._proposers = without_answer(moa)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # immutable

    @override
    def wrap_model_call(self, request: ModelRequest[Any], handler: Handler) -> Any:
        """Call the agent's model with what the proposers say.

        Raises:
            CalledFromInside: If it is called on the thread that would have to run it.
        """
        sync.refuse_from_inside()
        steps = self._steps(request)
        step, result = _next(steps)
        while step is not None:
            error: Exception | None = None
            answer: Any = None
            try:
                if isinstance(step, Call):
                    with _hidden(step):
                        answer = handler(step.request)
                elif isinstance(step, Ask):
                    answer = self._proposers.invoke(step.input, context=step.context)
                else:
                    answer = sync.run(step.coroutine)
            except Exception as raised:  # noqa: BLE001 - given to the steps
                error = raised
            step, result = _next(steps, answer, error)
        return result

    @override
    async def awrap_model_call(self, request: ModelRequest[Any], handler: AsyncHandler) -> Any:
        """Call the agent's model with what the proposers say."""
        steps = self._steps(request)
        step, result = _next(steps)
        while step is not None:
            error: Exception | None = None
            answer: Any = None
            try:
                if isinstance(step, Call):
                    with _hidden(step):
                        answer = await handler(step.request)
                elif isinstance(step, Ask):
                    answer = await self._proposers.ainvoke(step.input, context=step.context)
                else:
                    answer = await step.coroutine
            except Exception as raised:  # noqa: BLE001 - given to the steps
                error = raised
            step, result = _next(steps, answer, error)
        return result

    def _steps(self, request: ModelRequest[Any]) -> Steps:
        call = AdvisedCall(self._advice, request, get_config())
        return call.reviewed() if self._advice.consult == "final" else call.advised()


def _hidden(call: Call) -> AbstractContextManager[None]:
    """Return a context in which the call's tokens are not in streams of messages."""
    return inherited(without_message_stream(get_config())) if call.hidden else nullcontext()


def _next(
    steps: Steps, answer: Any = None, error: Exception | None = None
) -> tuple[Step | None, Any]:
    """Return the next step, or None and the result if there is none."""
    try:
        return (steps.send(answer) if error is None else steps.throw(error)), None
    except StopIteration as end:
        return None, end.value
