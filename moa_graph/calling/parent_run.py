"""Make the graph inside `ChatMoA` a child of its run in traces.

LangGraph treats a graph that runs inside a node as a subgraph of the node. The graph inside
`ChatMoA` must not be one: it would write to the parent's checkpoints and stream its tokens twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config
from langchain_core.utils.uuid import uuid7
from langgraph.config import get_stream_writer
from langgraph.constants import TAG_NOSTREAM

from moa_graph._compat import surrounding_config
from moa_graph.calling.streams import ProposalTokens, is_message_stream


@dataclass(frozen=True)
class ParentRun:
    """A run of `ChatMoA`, with the data that the inner graph inherits from it."""

    run_id: UUID
    is_async: bool
    tags: Sequence[str]
    inheritable_handlers: Sequence[BaseCallbackHandler]
    inheritable_tags: Sequence[str]
    inheritable_metadata: Mapping[str, Any]

    @classmethod
    def settled(cls, manager: BaseCallbackManager, config: RunnableConfig) -> ParentRun:
        """Return the run that the configuration will start; set its id and handlers now."""
        config["callbacks"] = manager
        run_id = config["run_id"] = config.get("run_id") or uuid7()
        return cls._of(manager, run_id, is_async=manager.is_async)

    @classmethod
    def started(
        cls, manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None
    ) -> ParentRun | None:
        """Return the run that LangChain has started; None without a run manager."""
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
        """Return callbacks for the inner graph.

        `ChatMoA` itself streams the tokens of the answer, so an outer message stream must not get
        the aggregator's tokens again. It gets the proposers' tokens of a graph that was built with
        `stream_proposals`.
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
    """Return the parent run that `inside` has set; None outside of it."""
    return _parent.get()


@contextmanager
def inside(parent: ParentRun | None) -> Iterator[None]:
    """Set `current_parent`; needed because LangChain calls `_stream` without a run manager."""
    token = _parent.set(parent)
    try:
        yield
    finally:
        _parent.reset(token)


_called_with: ContextVar[RunnableConfig | None] = ContextVar("moa_called_with", default=None)


def call_config() -> RunnableConfig:
    """Return the configuration with which `ChatMoA` was called, else that of the run around it.

    LangChain does not pass it to `_generate`. In a plain thread there is no run around the call.
    """
    return _called_with.get() or surrounding_config()


class CalledWithConfig:
    """Base class that lets a chat model know the configuration of its call, see `call_config`."""

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Call the model."""
        with called_with(config):
            answer: AIMessage = super().invoke(input, config, **kwargs)  # type: ignore[misc]
            return answer

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Call the model."""
        with called_with(config):
            answer: AIMessage = await super().ainvoke(  # type: ignore[misc]
                input, config, **kwargs
            )
            return answer


@contextmanager
def called_with(config: RunnableConfig | None) -> Iterator[None]:
    """Set `call_config` to the configuration, with what it inherits from the run around it."""
    token = _called_with.set(ensure_config(config))
    try:
        yield
    finally:
        _called_with.reset(token)


def users_configurable() -> dict[str, Any]:
    """Return the user's `configurable` values of this call, without those of LangGraph."""
    configurable = call_config().get("configurable", {})
    return {
        key: value
        for key, value in configurable.items()
        if not key.startswith("__") and not key.startswith("checkpoint") and key != "thread_id"
    }


def surrounding_writer() -> Callable[[Any], None] | None:
    """Return the writer of custom events of the graph around this call; None outside of one."""
    try:
        return get_stream_writer()
    except (RuntimeError, KeyError):
        return None
