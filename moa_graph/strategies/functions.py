"""Adapters that turn a user's functions into strategies."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from langchain_core.messages import AIMessage, BaseMessage
from langgraph.errors import GraphBubbleUp
from langgraph.types import Overwrite

from moa_graph.calling import sync
from moa_graph.calling.answer import Answer, NoAnswer, read_answer
from moa_graph.errors import MoAError
from moa_graph.nodes.aggregator import AnswerNode
from moa_graph.nodes.decision import DecidingNode, decided
from moa_graph.nodes.plan import AGGREGATOR, Plan
from moa_graph.nodes.settings import must_act
from moa_graph.nodes.step import Step
from moa_graph.state import Decision, Proposal
from moa_graph.strategies.aggregate import AnswerStrategy, ChoosingNode, word_for_word
from moa_graph.strategies.route import NODE as FIRST_PASS
from moa_graph.strategies.run import Run
from moa_graph.strategies.select import Chosen, Selection
from moa_graph.strategies.until import Consensus, Until

Function = Callable[..., Any]


def name_of_function(function: Function) -> str:
    """Return the name of a function for records and errors."""
    inner = function.func if isinstance(function, partial) else function
    return str(getattr(inner, "__name__", type(inner).__name__))


async def call(function: Function, *arguments: Any) -> Any:
    """Call a user's function; run it in a thread if it is synchronous."""
    inner = function.func if isinstance(function, partial) else function
    method = getattr(inner, "__call__", None)  # noqa: B004 - the method of a callable object
    if inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(method):
        return await function(*arguments)
    result = await sync.in_thread(function, *arguments)
    return await result if inspect.isawaitable(result) else result


class FunctionSelection(Selection):
    """Adapter for `async def select(references, run) -> list[Proposal]`."""

    def __init__(self, function: Function) -> None:
        self.function = function

    async def choose(self, references: list[Proposal], step: Step) -> Chosen:
        """See `Selection`. If the function fails, keep all proposals and record the error."""
        name, run = name_of_function(self.function), Run(step)
        try:
            kept = _references_in(await call(self.function, list(references), run), references)
        except GraphBubbleUp:
            raise
        except Exception as error:
            chosen = Chosen(references, by=name, error=f"{name} failed: {_said(error)}")
        else:
            names = {p["proposer"] for p in kept}
            left_out = {
                p["proposer"]: f"not kept by {name}"
                for p in references
                if p["proposer"] not in names
            }
            chosen = Chosen(kept, left_out, by=name)
        chosen.usage, chosen.attempts = run.usage, run.attempts
        return chosen


class FunctionUntil(Until):
    """Adapter for `async def until(references, run) -> bool`."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    async def reached(self, proposals: list[Proposal], step: Step) -> Consensus:
        """See `Until`. If the function fails, continue the run and record the error."""
        name, run = name_of_function(self.function), Run(step)
        error = None
        reached = False
        try:
            reached = _truth_in(await call(self.function, list(proposals), run))
        except GraphBubbleUp:
            raise
        except Exception as failure:
            reached, error = False, f"{name} failed: {_said(failure)}"
        return Consensus(reached, by=name, error=error, usage=run.usage, attempts=run.attempts)


class FunctionAnswer(AnswerStrategy):
    """Adapter for `async def aggregate(references, run) -> str | AIMessage | Answer | Proposal`."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def node(self, plan: Plan) -> AnswerNode:
        """See `AnswerStrategy`."""
        return _FunctionNode(plan, self.function)


class _FunctionNode(ChoosingNode):
    def __init__(self, plan: Plan, function: Function) -> None:
        super().__init__(plan, name_of_function(function))
        self._function = function

    async def choose(self, references: list[Proposal], step: Step) -> tuple[AIMessage, Decision]:
        """See `ChoosingNode`."""
        run = Run(step)
        message, chosen = _answer_in(await call(self._function, list(references), run))
        decision = decided(
            step,
            AGGREGATOR,
            references[0]["layer"],
            "chosen" if chosen else "written",
            kept=[chosen] if chosen else references,
            by=self.model_name,
            usage=run.usage,
            attempts=run.attempts,
        )
        return message, decision


class FunctionRoute:
    """Adapter for `async def route(run) -> str | AIMessage | Answer | None`.

    None runs the mixture.
    """

    models = ()

    def __init__(self, function: Function) -> None:
        self.function = function


class FunctionRouteNode(DecidingNode):
    """First pass by a function.

    Args:
        plan: Plan shared by all nodes of the graph.
        route: The function.
    """

    def __init__(self, plan: Plan, route: FunctionRoute) -> None:
        super().__init__(plan, FIRST_PASS, 0)
        self._function = route.function

    async def decide(self, step: Step) -> dict[str, Any]:
        """See `DecidingNode`. If the function fails, the mixture runs."""
        for needed in self.plan.models:
            await needed.ready()
        name, run = name_of_function(self._function), Run(step)
        message, error = None, None
        if must_act(step):
            name = "the answer may call tools, or has a form"
        else:
            try:
                if (said := await call(self._function, run)) is not None:
                    message, _ = _answer_in(said)
            except GraphBubbleUp:
                raise
            except Exception as failure:
                error = f"{name} failed: {_said(failure)}"
        decision = decided(
            step,
            FIRST_PASS,
            0,
            "alone" if message else "mixture",
            by=name,
            error=error,
            usage=run.usage,
            attempts=run.attempts,
        )
        if message is None:
            return {"decisions": [decision]}
        step.end_run()
        message = message.model_copy(update={"usage_metadata": None})
        # Remove the proposals of an earlier turn: they do not belong to this answer.
        return {"messages": [message], "decisions": [decision], "proposals": Overwrite([])}


def _truth_in(returned: Any) -> bool:
    if not isinstance(returned, bool):
        raise TypeError(f"it must return True or False, not {returned!r}")
    return returned


def _references_in(returned: Any, references: Sequence[Proposal]) -> list[Proposal]:
    known = {p["proposer"]: p for p in references}
    if not isinstance(returned, Sequence) or isinstance(returned, str):
        raise TypeError(f"it must return a list of proposals, not {type(returned).__name__}")
    kept: dict[str, Proposal] = {}
    for proposal in returned:
        if not isinstance(proposal, Mapping) or proposal.get("proposer") not in known:
            raise TypeError("it must return only proposals of its argument references")
        name = str(proposal["proposer"])
        kept[name] = {**known[name], "content": str(proposal["content"])}
    if not kept:
        raise ValueError("it kept no proposal")
    return list(kept.values())


def _answer_in(returned: Any) -> tuple[AIMessage, Proposal | None]:
    """Return the answer as a message, and the proposal if a proposal was returned."""
    if isinstance(returned, Mapping) and {"proposer", "content"} <= returned.keys():
        return word_for_word(returned), returned  # type: ignore[arg-type, return-value]
    if not isinstance(returned, str | BaseMessage | Answer):
        raise TypeError(
            "it must return a string, a message, an Answer or a proposal, not "
            f"{type(returned).__name__}"
        )
    answer = returned if isinstance(returned, Answer) else read_answer(returned)
    if not answer.says_something:
        raise NoAnswer(answer.why_empty)
    update = {"id": f"run--{uuid4()}", "usage_metadata": None}
    return answer.message.model_copy(update=update), None


def _said(error: Exception) -> str:
    return str(error) if isinstance(error, MoAError) else f"{type(error).__name__}: {error}"
