"""The compiled graph, a subclass of LangGraph's."""

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
from langgraph.types import Checkpointer, StateUpdate

from moa_graph._compat import as_graph, has_default_recursion_limit, tag_node
from moa_graph.building.drawing import svg_of
from moa_graph.building.run_input import check_run
from moa_graph.building.starts import wait_for_turn
from moa_graph.building.wiring import Stage
from moa_graph.building.written import check_written
from moa_graph.calling import sync
from moa_graph.context import MoAContext
from moa_graph.nodes.plan import AGGREGATOR, Plan
from moa_graph.state import MoAState

_ENOUGH = 10_000  # steps, equal to LangGraph's own default
_SET_LATER = ("checkpointer", "store", "config", "name")  # set by `.copy()` and `.with_config()`


class MoABuilder(StateGraph[Any, Any, Any, Any]):
    """LangGraph's `StateGraph`, which compiles to a `MoAGraph`.

    Args:
        *args: As in LangGraph.
        plan: Settings that all nodes share.
        loops: Whether nodes are visited several times, so that a run may take more than 25 steps.
        **kwargs: As in LangGraph.
    """

    def __init__(self, *args: Any, plan: Plan, loops: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.plan = plan
        self.loops = loops
        self.stages: Sequence[Stage] = ()
        """Stages of the graph, from first to last."""
        self.variants: dict[str, MoAGraph] = {}
        """Graphs with the same nodes and other edges, by name."""
        self.tags: dict[str, Sequence[str]] = {}
        """Tags of the nodes' runs, by node name."""

    def empty(self) -> MoABuilder:
        """Return a builder without nodes for a graph of the same plan."""
        return MoABuilder(
            self.state_schema,
            self.context_schema,
            input_schema=self.input_schema,
            output_schema=self.output_schema,
            plan=self.plan,
            loops=self.loops,
        )

    def compile(self, checkpointer: Checkpointer = None, **kwargs: Any) -> MoAGraph:
        """Compile the graph as LangGraph does, with the cache of the plan."""
        kwargs.setdefault("cache", self.plan.cache)
        kwargs.setdefault("name", "moa")
        graph = as_graph(MoAGraph, super().compile(checkpointer, **kwargs))
        for node, tags in self.tags.items():
            tag_node(graph, node, tags)
        return graph


class MoAGraph(CompiledStateGraph[MoAState, MoAContext, Any, MoAState]):
    """A compiled Mixture-of-Agents: a Runnable like every LangGraph graph.

    It can be copied and pickled. Pickling stores the arguments of `create_moa`. Models given as
    `"provider:model"` are rebuilt on unpickling, with the API keys of that environment.
    """

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Stream a run as LangGraph does.

        Raises:
            CalledFromInside: If it is called on the thread that would have to run it.
            TypeError: If the input, or a keyword argument, is none of a run.
            ValueError: If the input has no messages.
        """
        sync.refuse_from_inside()
        check_run(input, config, kwargs)
        config = _unlimited(config) if self.builder.loops else config
        if "max_concurrency" not in (self.config or {}):
            # LangGraph's default, by the number of cores, may be less than the proposers.
            config = {"max_concurrency": self.plan.concurrency, **(config or {})}
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
        """Stream a run asynchronously as LangGraph does.

        Raises:
            TypeError: If the input, or a keyword argument, is none of a run.
            ValueError: If the input has no messages.
        """
        check_run(input, config, kwargs)
        config = _unlimited(config) if self.builder.loops else config
        events = super().astream(input, config, **kwargs)
        await wait_for_turn()
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

    def bulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Update the state as LangGraph does.

        Raises:
            ValueError: If a message or a record that is written has a wrong type.
        """
        _check_updates(supersteps)
        return super().bulk_update_state(config, supersteps)

    async def abulk_update_state(
        self, config: RunnableConfig, supersteps: Sequence[Sequence[StateUpdate]]
    ) -> RunnableConfig:
        """Update the state asynchronously as LangGraph does.

        Raises:
            ValueError: If a message or a record that is written has a wrong type.
        """
        _check_updates(supersteps)
        return await super().abulk_update_state(config, supersteps)

    builder: MoABuilder

    def __repr__(self) -> str:
        plan = self.plan
        last = cast(Any, self.builder.nodes[AGGREGATOR].runnable).model_name
        names = [" ".join(member.name for member in members) for members in plan.members]
        shown = (
            f"{plan.layers - 1} × [{names[0]}]"
            if len(set(names)) == 1
            else (" → ".join(f"[{own}]" for own in names))
        )
        return f"MoAGraph({self.name!r}: {shown} → {last})"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ARG002 - Jupyter's
        """Show the graph in a notebook. LangGraph's own picture is made by a web service."""
        return {"text/plain": repr(self), "image/svg+xml": svg_of(self.get_graph())}

    @property
    def plan(self) -> Plan:
        """Settings that all nodes share."""
        return self.builder.plan

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # A compiled graph is immutable, and models may hold connections.
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments = self.plan.recipe
        later = {name: getattr(self, name) for name in _SET_LATER}
        _check_pickles({**arguments, **later})
        return _made_again, (make, dict(arguments), later)


def _check_updates(supersteps: Sequence[Sequence[StateUpdate]]) -> None:
    for update in (update for step in supersteps for update in step):
        check_written(update.values)


def _unlimited(config: RunnableConfig | None) -> RunnableConfig | None:
    if has_default_recursion_limit(config):
        return {**(config or {}), "recursion_limit": _ENOUGH}
    return config


def _made_again(
    make: Callable[..., MoAGraph], arguments: Mapping[str, Any], later: dict[str, Any]
) -> MoAGraph:
    return make(**arguments).copy(later)


def _check_pickles(arguments: Mapping[str, Any]) -> None:
    """Check that the arguments can be pickled.

    Raises:
        TypeError: If an argument cannot be pickled. The error names it and an alternative.
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
