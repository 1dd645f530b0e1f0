"""All uses of undocumented parts of LangGraph, LangChain and providers' clients.

Each use has a test in `tests/test_compat.py` that fails with an explanation when upstream changes
it. Each docstring here names the public API that could replace the use ("Public way").
"""

from __future__ import annotations

import copy
import importlib.util
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID, uuid5

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel, ModelProfile
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
    stream, including those of an agent's nodes (`nostream` hides only a chat model's tokens).
    """
    return type(handler).__module__ == _MESSAGE_STREAM


def with_stream(
    handler: BaseCallbackHandler, change: Callable[[Any, Any], Iterable[Any]]
) -> BaseCallbackHandler:
    """Return a copy of LangGraph's handler that changes each message before it is streamed.

    The copy shares the handler's state. A handler without `stream` is returned unchanged.
    Public way: a stream transformer for `stream_mode="messages"`.

    Args:
        handler: The handler.
        change: Function that takes a message, a chunk or an event, and an id of its run. It
            returns the parts to stream instead.
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
    """Return the checkpointer of a node's run; None if there is none.

    Public way: a field of `runtime` with the writes of sibling nodes before a run is resumed.
    """
    saver = config.get("configurable", {}).get(_CHECKPOINTER)
    return saver if isinstance(saver, BaseCheckpointSaver) else None


def as_graph(cls: type[G], compiled: CompiledStateGraph[Any, Any, Any, Any]) -> G:
    """Convert a compiled graph to a subclass, in the same way as `CompiledStateGraph.copy`.

    Public way: `StateGraph.compile(graph_class=…)`.
    """
    return cls(**compiled.__dict__)


def tag_node(graph: CompiledStateGraph[Any, Any, Any, Any], node: str, tags: Sequence[str]) -> None:
    """Add tags to the runs of a node. Public way: `add_node(tags=…)`, like `metadata`."""
    graph.nodes[node].tags = list(tags)


# --- LangChain -----------------------------------------------------------------------------------

_FILLED_IN = {"tags", "metadata", "callbacks", "configurable"}  # LangChain fills these in


def surrounding_config() -> RunnableConfig:
    """Return the configuration of the Runnable that runs this code; empty outside a Runnable.

    Public way: `langgraph.config.get_config`, if it did not raise an error outside a graph, and
    in tasks of Python 3.10, which do not inherit the configuration.
    """
    return var_child_runnable_config.get() or {}


class inherited:  # noqa: N801 - a context manager
    """Make inner runs inherit this configuration instead of the node's own.

    LangGraph merges the inherited configuration (callbacks, and the checkpoint namespace of the
    parent) into the configuration that a graph receives. With None, an inner graph runs
    independently. Public way: an argument of `invoke` for this.
    """

    __slots__ = ("_config", "_token")

    def __init__(self, config: RunnableConfig | None) -> None:
        self._config = config

    def __enter__(self) -> None:
        self._token = var_child_runnable_config.set(self._config)

    def __exit__(self, *exc: object) -> None:
        var_child_runnable_config.reset(self._token)


def has_default_recursion_limit(config: RunnableConfig | None) -> bool:
    """Return whether the recursion limit is LangChain's default and was not set by the caller.

    LangChain adds its default to the configuration. Public way: LangChain does not add it.
    """
    around = surrounding_config()
    given = (config or {}).get("recursion_limit", around.get("recursion_limit"))
    chosen = config is not None and not around and not config.keys() >= _FILLED_IN
    return given == DEFAULT_RECURSION_LIMIT and not chosen


class ChatModelWithRuns(BaseChatModel):
    """A chat model that gets its run manager even if LangChain calls `_stream` without it.

    Public way: LangChain always passes a run manager to `_stream`, as it does to `_generate`.
    """

    def _within(
        self, run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None
    ) -> AbstractContextManager[None]:
        """Return a context manager for the call of `_generate` or `_stream` in a run."""
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
    """Return whether a model reads all configuration: `init_chat_model(configurable_fields="any")`.

    Public way: an attribute with the configuration fields that the model reads.
    """
    fields = getattr(model, "_configurable_fields", None)
    return fields == "any" and not getattr(model, "_config_prefix", "")


@lru_cache
def model_profiles(package: str) -> dict[str, ModelProfile]:
    """Return the profiles of a provider's models by name; empty if the package has none.

    The package is not imported, which would take seconds. Public way: a function that lists the
    profiles of a provider; `profile` of a chat model has that of one model only.

    Args:
        package: Name of the package, such as `"langchain-openai"`.
    """
    found = importlib.util.find_spec(package.replace("-", "_"))
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder, "data", "_profiles.py")
        if path.is_file() and (spec := importlib.util.spec_from_file_location("_", path)):
            module = importlib.util.module_from_spec(spec)
            assert spec.loader is not None
            spec.loader.exec_module(module)
            return dict(getattr(module, "_PROFILES", {}))
    return {}


# --- servers -------------------------------------------------------------------------------------

_NAMESPACE = UUID("6ba7b821-9dad-11d1-80b4-00c04fd430c8")


def assistant_of(graph: str) -> str:
    """Return the id of the assistant that a server makes of a graph.

    LangGraph Server and Aegra derive it from the name of the graph. Public way: the event of a
    new run names the graph, too.
    """
    return str(uuid5(_NAMESPACE, graph))


def on_aegra() -> bool:
    """Return whether Aegra, and not LangGraph Server, serves this process.

    Public way: an attribute of the application or of the runtime that names the server.
    """
    return "aegra_api" in sys.modules


def uvicorn_is_stopping() -> bool:
    """Return whether uvicorn, which serves this process, was told to stop.

    Public way: an event of the lifespan, or of the ASGI server, at the signal. The lifespan's end
    comes after all connections have ended.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))


# --- providers' clients --------------------------------------------------------------------------

CLIENT_FIELDS = {"root_client": "client", "root_async_client": "async_client"}
"""Client fields of OpenAI-family chat models, with the field of each client's completions."""


def clients_of(chat_model: BaseChatModel) -> dict[str, Any]:
    """Return the clients of an OpenAI-family chat model by field; empty for other models.

    Public way: a method that copies the chat model with other retries or another HTTP client.
    """
    clients = {field: getattr(chat_model, field, None) for field in CLIENT_FIELDS}
    return {field: client for field, client in clients.items() if hasattr(client, "with_options")}


def with_clients(
    chat_model: BaseChatModel,
    options: Callable[[Any], dict[str, Any]],
    completions: Callable[[Any], Any] | None = None,
) -> BaseChatModel:
    """Return the chat model with changed options of its clients.

    Args:
        chat_model: The chat model.
        options: Function from a client to its changed options.
        completions: Function from an asynchronous client to what is used instead of its
            `chat.completions`.
    """
    update: dict[str, Any] = {}
    for field, client in clients_of(chat_model).items():
        own = options(client)
        replaced = completions if http_client_of(client) is not None else None
        if own or replaced:
            changed = update[field] = client.with_options(**own) if own else client
            update[CLIENT_FIELDS[field]] = (replaced or attrgetter("chat.completions"))(changed)
    return chat_model.model_copy(update=update) if update else chat_model


_CONVERSIONS = (
    "_agenerate",
    "_astream",
    "_create_chat_result",
    "_convert_chunk_to_generation_chunk",
)


def takes_plain_completions(chat_model: BaseChatModel) -> bool:
    """Return whether a chat model reads completions that are dicts, as `langchain-openai` does.

    Classes of other packages may read attributes of the SDK's objects. Public way: a documented
    type of `async_client`.
    """
    conversions = (getattr(type(chat_model), name, None) for name in _CONVERSIONS)
    modules = (getattr(conversion, "__module__", "") for conversion in conversions)
    return all(module.startswith("langchain_openai.") for module in modules)


def response_type_of(client: Any) -> Any:
    """Return the class of the HTTP responses of an asynchronous client of OpenAI's SDK.

    The SDK returns an undecoded response if it is asked for one of this class; it may be of httpx
    or of httpx2. Public way: the SDK names its HTTP library.
    """
    base = next(one for one in type(client._client).__mro__ if one.__name__ == "AsyncClient")
    return sys.modules[base.__module__.partition(".")[0]].Response


def http_client_of(client: Any) -> Any | None:
    """Return the asynchronous HTTP client of a provider's client; None for a synchronous one."""
    return client._client if "Async" in type(client).__name__ else None


def client_through(session: Callable[[Any, int | None], Any], like: Any = None) -> Any:
    """Return an asynchronous HTTP client for OpenAI's SDK that sends through aiohttp.

    Public way: a parameter of `openai.DefaultAioHttpClient` for the session.

    Args:
        session: Function from an `ssl.SSLContext` and a maximum of connections to an
            `aiohttp.ClientSession`. It is called in the event loop of the first request.
        like: Client for which `sends_through_aiohttp` holds and whose settings are kept.

    Raises:
        AttributeError: If this version of the SDK has no such client.
        RuntimeError: If a package is missing for it.
    """
    client = copy.copy(like or _aiohttp_client())
    transport = copy.copy(client._transport)
    transport.client = lambda: session(transport.ssl_context, transport.limits.max_connections)
    client._transport = _ToldErrors(transport)
    return client


class _ToldErrors:
    """Transport that raises a timeout only if there was one.

    The SDK's own one raises `ConnectTimeout` for every connection that failed or ended.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self.aclose = transport.aclose

    async def handle_async_request(self, request: Any) -> Any:
        try:
            return await self._transport.handle_async_request(request)
        except Exception as error:
            kinds = {kind.__name__ for kind in type(error.__cause__).__mro__}
            if "ClientConnectionError" not in kinds or "TimeoutError" in kinds:
                raise
            httpx = sys.modules[type(error).__module__.partition(".")[0]]
            kind = httpx.ConnectError if "ClientConnectorError" in kinds else httpx.ReadError
            raise kind(str(error)) from error.__cause__


def sends_through_aiohttp(client: Any) -> bool:
    """Return whether an HTTP client sends everything through one plain session of aiohttp.

    Public way: none; `openai.DefaultAioHttpClient` is an alias that is hidden from types.
    """
    transport = getattr(client, "_transport", None)
    plain = not getattr(client, "_mounts", {}) and getattr(transport, "uds", None) is None
    return plain and "aiohttp" in type(transport).__module__ and hasattr(transport, "ssl_context")


@lru_cache(maxsize=1)
def _aiohttp_client() -> Any:
    """Return a client that sends nothing; reading the certificates takes 20 ms."""
    import openai  # noqa: PLC0415 - optional, and takes long

    return openai.DefaultAioHttpClient()


def without_connections(client: Any) -> Any:
    """Return a copy of an asynchronous HTTP client with the same settings and no connections.

    A client has no public way to read its proxies, certificates and limits. If it has a transport
    of another kind, the client itself is returned.
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
