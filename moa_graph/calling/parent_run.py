"""Make the graph inside `ChatMoA` a child of its run in traces.

A graph that runs inside a node becomes that node's subgraph, which a chat model's own run must
not: it would write into the parent's checkpoints and show its tokens twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.runnables import RunnableConfig
from langchain_core.utils.uuid import uuid7
from langgraph.constants import TAG_NOSTREAM

from moa_graph._compat import surrounding_config
from moa_graph.calling.streams import ProposalTokens, is_message_stream


@dataclass(frozen=True)
class ParentRun:
    """A run of `ChatMoA`, and what the graph inside inherits from it."""

    run_id: UUID
    is_async: bool
    tags: Sequence[str]
    inheritable_handlers: Sequence[BaseCallbackHandler]
    inheritable_tags: Sequence[str]
    inheritable_metadata: Mapping[str, Any]

    @classmethod
    def settled(cls, manager: BaseCallbackManager, config: RunnableConfig) -> ParentRun:
        """Return the run that the configuration will start; its id and handlers are settled now."""
        config["callbacks"] = manager
        run_id = config["run_id"] = config.get("run_id") or uuid7()
        return cls._of(manager, run_id, is_async=manager.is_async)

    @classmethod
    def started(
        cls, manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None
    ) -> ParentRun | None:
        """Return the run that LangChain has started, if it says so."""
        if manager is None:
            return None
        is_async = isinstance(manager, AsyncCallbackManagerForLLMRun)
        return cls._of(manager, manager.run_id, is_async=is_async)

    @classmethod
    def _of(
        cls,
        manager: BaseCallbackManager | CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun,
        run_id: UUID,
        *,
        is_async: bool,
    ) -> ParentRun:
        return cls(
            run_id,
            is_async,
            manager.tags,
            manager.inheritable_handlers,
            manager.inheritable_tags,
            manager.inheritable_metadata,
        )

    def child_callbacks(self) -> BaseCallbackManager:
        """Callbacks for the graph inside.

        The tokens of `ChatMoA` are the answer's, so a stream of messages around it must not see
        the aggregator's as well; a graph built with `stream_proposals` shows it the proposers'.
        """
        manager_class = AsyncCallbackManager if self.is_async else CallbackManager
        manager: BaseCallbackManager = manager_class(handlers=[], parent_run_id=self.run_id)
        handlers: list[BaseCallbackHandler] = []
        for handler in self.inheritable_handlers:
            if not is_message_stream(handler):
                handlers.append(handler)
            elif TAG_NOSTREAM not in self.tags:
                handlers.append(ProposalTokens(handler, self.inheritable_metadata))
        manager.set_handlers(handlers)
        manager.add_tags([tag for tag in self.inheritable_tags if tag != TAG_NOSTREAM])
        own = {k: v for k, v in self.inheritable_metadata.items() if not k.startswith("ls_")}
        manager.add_metadata(own)
        return manager


_parent: ContextVar[ParentRun | None] = ContextVar("moa_parent_run", default=None)


def current_parent() -> ParentRun | None:
    """Return the run that `inside` has set."""
    return _parent.get()


@contextmanager
def inside(parent: ParentRun | None) -> Iterator[None]:
    """Tell `current_parent` where LangChain does not: it calls `_stream` without a run manager."""
    token = _parent.set(parent)
    try:
        yield
    finally:
        _parent.reset(token)


def users_configurable() -> dict[str, Any]:
    """Return what the user made configurable around this call, without what LangGraph put there."""
    configurable = surrounding_config().get("configurable", {})
    return {
        key: value
        for key, value in configurable.items()
        if not key.startswith("__") and not key.startswith("checkpoint") and key != "thread_id"
    }
