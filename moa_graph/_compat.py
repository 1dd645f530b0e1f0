"""Everything of LangGraph, LangChain and providers' clients that they do not document.

Each use has a test in `tests/test_compat.py`, which fails with a sentence when upstream has changed
it, and says here what public way it should become.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import DEFAULT_RECURSION_LIMIT, var_child_runnable_config
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph.state import CompiledStateGraph

G = TypeVar("G", bound=CompiledStateGraph[Any, Any, Any, Any])

# --- LangGraph ---------------------------------------------------------------------------------

_MESSAGE_STREAM = "langgraph.pregel._messages"
_CHECKPOINTER = "__pregel_checkpointer"


def is_message_stream(handler: BaseCallbackHandler) -> bool:
    """Return whether LangGraph has attached a handler for `stream_mode="messages"`.

    Its class has no public name. Public way: a tag that hides all messages of a run from the
    stream, those of an agent's nodes included (`nostream` hides only a chat model's tokens).
    """
    return type(handler).__module__ == _MESSAGE_STREAM


def with_stream(
    handler: BaseCallbackHandler, change: Callable[[Any, Any], Iterable[Any]]
) -> BaseCallbackHandler:
    """LangGraph's handler with another end: each message that it shows is changed.

    The copy shares all that the handler knows. Where its `stream` is missing, it stays as it is.
    Public way: a stream transformer for `stream_mode="messages"`.

    Args:
        handler: The handler.
        change: From a message, a chunk or an event, and what tells its run from others, to what is
            shown in its place.
    """
    write = getattr(handler, "stream", None)
    if not callable(write):
        return handler

    def stream(part: Any) -> None:
        namespace, mode, (message, metadata) = part
        for shown in change(message, metadata.get("run_id") or id(metadata)):
            write((namespace, mode, (shown, metadata)))

    twin = copy.copy(handler)
    twin.stream = stream  # type: ignore[attr-defined]
    return twin


def checkpointer_in(config: RunnableConfig) -> BaseCheckpointSaver[Any] | None:
    """Return the checkpointer of the run that a node belongs to; None if it has none.

    Public way: `runtime` telling a node what its siblings have stored before a resumption.
    """
    saver = config.get("configurable", {}).get(_CHECKPOINTER)
    return saver if isinstance(saver, BaseCheckpointSaver) else None


def as_graph(cls: type[G], compiled: CompiledStateGraph[Any, Any, Any, Any]) -> G:
    """Return a compiled graph as one of a subclass. `CompiledStateGraph.copy` does the same.

    Public way: `StateGraph.compile(graph_class=…)`.
    """
    return cls(**compiled.__dict__)


def tag_node(graph: CompiledStateGraph[Any, Any, Any, Any], node: str, tags: Sequence[str]) -> None:
    """Give the runs of a node tags. Public way: `add_node(tags=…)`, beside its `metadata`."""
    graph.nodes[node].tags = list(tags)


# --- LangChain -----------------------------------------------------------------------------------

_FILLED_IN = {"tags", "metadata", "callbacks", "configurable"}  # by LangChain, where not given


def surrounding_config() -> RunnableConfig:
    """Return the configuration of the Runnable in which this code runs; empty outside of one.

    Public way: `langgraph.config.get_config`, if it did not raise outside of a graph, and where
    Python 3.10's tasks do not hand it on.
    """
    return var_child_runnable_config.get() or {}


@contextmanager
def inherited(config: RunnableConfig | None) -> Iterator[None]:
    """Make this the configuration that runs inside inherit, instead of the node's own.

    LangGraph merges what it inherits into what a graph is given explicitly: callbacks, and the
    place in the parent's checkpoints. None makes a graph that runs inside a run of its own.
    Public way: an argument of `invoke` that says so.
    """
    token = var_child_runnable_config.set(config)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def has_default_recursion_limit(config: RunnableConfig | None) -> bool:
    """Whether the limit of steps is LangChain's default for chains, and was not chosen.

    LangChain fills it in as if somebody had. Public way: leaving it out.
    """
    around = surrounding_config()
    given = (config or {}).get("recursion_limit", around.get("recursion_limit"))
    chosen = config is not None and not around and not config.keys() >= _FILLED_IN
    return given == DEFAULT_RECURSION_LIMIT and not chosen


class ChatModelWithRuns(BaseChatModel):
    """A chat model that learns of its run also where LangChain calls `_stream` without one.

    Public way: a run manager for `_stream` in every case, as for `_generate`.
    """

    def _within(
        self, run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None
    ) -> AbstractContextManager[None]:
        """Return what surrounds the call of `_generate` or `_stream` that belongs to a run."""
        raise NotImplementedError

    def _generate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._within(run_manager):
            return super()._generate_with_cache(messages, stop, run_manager, **kwargs)

    async def _agenerate_with_cache(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with self._within(run_manager):
            return await super()._agenerate_with_cache(messages, stop, run_manager, **kwargs)


def takes_all_configuration(model: Any) -> bool:
    """Whether a model of `init_chat_model(configurable_fields="any")` reads all configuration.

    Public way: an attribute that says which fields of the configuration it reads.
    """
    fields = getattr(model, "_configurable_fields", None)
    return fields == "any" and not getattr(model, "_config_prefix", "")


# --- providers' clients --------------------------------------------------------------------------

CLIENT_FIELDS = {"root_client": "client", "root_async_client": "async_client"}
"""Of chat models of OpenAI's family, the clients, and where each one's completions are."""


def clients_of(chat_model: BaseChatModel) -> dict[str, Any]:
    """Return the clients of a chat model of OpenAI's family, by field; empty for every other.

    Public way: a copy of the chat model with other retries, or another HTTP client.
    """
    clients = {field: getattr(chat_model, field, None) for field in CLIENT_FIELDS}
    return {field: client for field, client in clients.items() if hasattr(client, "with_options")}


def with_clients(
    chat_model: BaseChatModel, options: Callable[[Any], dict[str, Any]]
) -> BaseChatModel:
    """Return the chat model, its clients with other options.

    Args:
        chat_model: The chat model.
        options: Of a client, what is changed.
    """
    update: dict[str, Any] = {}
    for field, client in clients_of(chat_model).items():
        if own := options(client):
            update[field] = client.with_options(**own)
            update[CLIENT_FIELDS[field]] = update[field].chat.completions
    return chat_model.model_copy(update=update) if update else chat_model


def http_client_of(client: Any) -> Any | None:
    """Return the asynchronous HTTP client of a provider's client; None for a synchronous one."""
    return client._client if "Async" in type(client).__name__ else None


def without_connections(client: Any) -> Any:
    """Return a copy of an asynchronous HTTP client, set up as it is, that has no connections yet.

    There is no public way to ask a client what it was made with: its proxies, certificates and
    limits. The client itself is returned where it has a transport of another kind.
    """
    transport = getattr(client, "_transport", None)
    mounts = getattr(client, "_mounts", {})
    if not all(_is_pooled(t) for t in (transport, *mounts.values()) if t is not None):
        return client
    twin = copy.copy(client)
    twin._transport = _with_empty_pool(transport)
    twin._mounts = {url: t and _with_empty_pool(t) for url, t in mounts.items()}
    return twin


def _is_pooled(transport: Any) -> bool:
    pool = vars(transport).get("_pool")
    return pool is not None and {"_connections", "_requests"} <= vars(pool).keys()


def _with_empty_pool(transport: Any) -> Any:
    twin = copy.copy(transport)
    twin._pool = copy.copy(transport._pool)
    twin._pool._connections = []
    twin._pool._requests = []
    return twin
