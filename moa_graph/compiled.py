"""The compiled graph: what it adds to LangGraph's own."""

from __future__ import annotations

import pickle
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping
from typing import Any, Self, cast

from langchain_core.runnables import RunnableConfig
from langgraph.graph.state import CompiledStateGraph

from moa_graph import sync
from moa_graph._compat import has_default_recursion_limit
from moa_graph.context import MoAContext
from moa_graph.state import MoAState
from moa_graph.steps import Plan
from moa_graph.wiring import AGGREGATOR

_ENOUGH = 10_000  # steps, as LangGraph's own default
_SET_LATER = ("checkpointer", "store", "config", "name")  # by `.copy()` and `.with_config()`


class MoAGraph(CompiledStateGraph[MoAState, MoAContext, Any, MoAState]):
    """A compiled Mixture-of-Agents: a Runnable like every LangGraph graph.

    It can be copied and pickled: what is pickled are the arguments of `create_moa`. Models given
    as `"provider:model"` are built anew where it is unpickled, with the keys that are there.
    """

    _loops = False

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """As LangGraph's.

        Raises:
            CalledFromInside: If the thread that it would block serves it.
        """
        sync.refuse_from_inside()
        config = _unlimited(config) if self._loops else config
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
        config = _unlimited(config) if self._loops else config
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

    @property
    def plan(self) -> Plan:
        """What all of its nodes share."""
        node: Any = self.builder.nodes[AGGREGATOR].runnable
        return cast(Plan, node.plan)

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


class LoopingGraph(MoAGraph):
    """A compiled graph whose loop may take more than 25 steps.

    LangGraph allows thousands. But LangChain gives every Runnable in a chain or a batch its own
    default of 25 as if somebody had chosen it, and some servers do. A limit that is given when
    the graph is called directly is kept.
    """

    _loops = True


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
