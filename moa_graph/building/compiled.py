"""The compiled graph: what it adds to LangGraph's own."""

from __future__ import annotations

import pickle
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from typing import Any, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph import StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Checkpointer

from moa_graph._compat import as_graph, has_default_recursion_limit, tag_node
from moa_graph.calling import sync
from moa_graph.context import MoAContext
from moa_graph.nodes.plan import AGGREGATOR, Plan
from moa_graph.state import MoAState

_ENOUGH = 10_000  # steps, as LangGraph's own default
_SET_LATER = ("checkpointer", "store", "config", "name")  # by `.copy()` and `.with_config()`


class MoABuilder(StateGraph[Any, Any, Any, Any]):
    """LangGraph's `StateGraph`, which compiles to a `MoAGraph`.

    Args:
        *args: As LangGraph's.
        plan: What all nodes share.
        loops: Whether nodes are visited several times, so that a run may take more than 25 steps.
        **kwargs: As LangGraph's.
    """

    def __init__(self, *args: Any, plan: Plan, loops: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = plan
        self.loops = loops
        self.tags: dict[str, Sequence[str]] = {}
        """Those of the nodes' runs."""

    def compile(self, checkpointer: Checkpointer = None, **kwargs: Any) -> MoAGraph:
        """As LangGraph's; the cache is the graph's own."""
        kwargs.setdefault("cache", self.plan.cache)
        kwargs.setdefault("name", "moa")
        graph = as_graph(MoAGraph, super().compile(checkpointer, **kwargs))
        for node, tags in self.tags.items():
            tag_node(graph, node, tags)
        return graph.with_config(max_concurrency=self.plan.concurrency)


class MoAGraph(CompiledStateGraph[MoAState, MoAContext, Any, MoAState]):
    """A compiled Mixture-of-Agents: a Runnable like every LangGraph graph.

    It can be copied and pickled: what is pickled are the arguments of `create_moa`. Models given
    as `"provider:model"` are built anew where it is unpickled, with the keys that are there.
    """

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """As LangGraph's.

        Raises:
            CalledFromInside: If the thread that it would block serves it.
        """
        sync.refuse_from_inside()
        config = _unlimited(config) if self.builder.loops else config
        events = super().stream(input, config, **kwargs)
        with self.plan.runs.ending() as begin:
            try:
                while True:
                    begin()
                    try:
                        event = next(events)
                    except StopIteration:
                        return
                    yield event
            finally:
                cast(Generator[Any, None, None], events).close()

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """As LangGraph's."""
        config = _unlimited(config) if self.builder.loops else config
        events = super().astream(input, config, **kwargs)
        with self.plan.runs.ending() as begin:
            try:
                while True:
                    begin()
                    try:
                        event = await anext(events)
                    except StopAsyncIteration:
                        return
                    yield event
            finally:
                await cast(AsyncGenerator[Any, None], events).aclose()

    builder: MoABuilder

    def __repr__(self) -> str:
        plan = self.plan
        last = cast(Any, self.builder.nodes[AGGREGATOR].runnable).model_name
        names = [" ".join(p) for p in plan.proposers]
        shown = (
            f"{plan.layers - 1} × [{names[0]}]"
            if len(set(names)) == 1
            else (" → ".join(f"[{own}]" for own in names))
        )
        return f"MoAGraph({self.name!r}: {shown} → {last})"

    @property
    def plan(self) -> Plan:
        """What all of its nodes share."""
        return self.builder.plan

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A compiled graph does not change, and models may hold connections.
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments = self.plan.recipe
        later = {name: getattr(self, name) for name in _SET_LATER}
        _check_pickles({**arguments, **later})
        return _made_again, (make, dict(arguments), later)


def _unlimited(config: RunnableConfig | None) -> RunnableConfig | None:
    if has_default_recursion_limit(config):
        return {**(config or {}), "recursion_limit": _ENOUGH}
    return config


def _made_again(
    make: Callable[..., MoAGraph], arguments: Mapping[str, Any], later: dict[str, Any]
) -> MoAGraph:
    return make(**arguments).copy(later)


def _check_pickles(arguments: Mapping[str, Any]) -> None:
    """Say which argument cannot be pickled, and what to give instead.

    Raises:
        TypeError: If one cannot be.
    """
    for name, value in arguments.items():
        items = list(value) if isinstance(value, list | tuple) else [value]
        for i, item in enumerate(items):
            try:
                pickle.dumps(item)
            except Exception as error:
                place = f"{name}[{i}]" if isinstance(value, list | tuple) else name
                raise TypeError(
                    f"This graph cannot be pickled: {place} is a {type(item).__name__}, which "
                    f"pickle refuses ({error}). Give models as 'provider:model' and functions "
                    "that have a name, or call create_moa in the process that uses the graph."
                ) from error
