"""Find and change the chat models inside a Runnable that is used as a model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, cast

from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import (
    RunnableConfigurableAlternatives,
    RunnableConfigurableFields,
)
from langchain_core.runnables.retry import RunnableRetry
from pydantic import BaseModel, SecretStr

from moa_graph._compat import (
    clients_of,
    http_client_of,
    takes_plain_completions,
    with_clients,
)
from moa_graph.models.completions import PlainCompletions
from moa_graph.models.connections import client_for
from moa_graph.models.decisions import decides
from moa_graph.models.inputs import first_step, nested_graph
from moa_graph.models.transport import fast_client

_UNNAMED_GRAPH = "LangGraph"  # default name of a compiled graph
_SHORTEST_SECRET = 4  # shorter ones could also match ordinary words
MAX_TOKENS_FIELDS = ("max_tokens", "max_output_tokens", "num_predict", "max_new_tokens")
"""Fields of providers' chat models for the maximum length of an answer."""


def name_of(model: Runnable[Any, Any]) -> str:
    """Return a display name of a model; for a chat model, its name as the provider spells it."""
    for chat_model in chat_models_in(model):
        return name_of_chat_model(chat_model)
    first = first_step(model)
    if decides(first):
        return str(first.model)  # type: ignore[attr-defined]
    name = getattr(first, "name", None) or type(first).__name__
    return "agent" if name == _UNNAMED_GRAPH else str(name)


def name_of_chat_model(chat_model: BaseChatModel) -> str:
    """Return a chat model's name as its provider spells it, or else the name of its class."""
    for field in ("model_name", "model", "model_id", "deployment_name"):
        value = getattr(chat_model, field, None)
        if isinstance(value, str) and value:
            return _plain(value)
    return type(chat_model).__name__


def _plain(name: str) -> str:
    return name.rpartition("models/")[2] if name.startswith("models/") else name


def map_chat_models(
    model: Runnable[Any, Any],
    change: Callable[[BaseChatModel], Runnable[Any, Any]],
    *,
    unbind: Collection[str] = (),
    bindable: Callable[[Any], Runnable[Any, Any]] | None = None,
) -> Runnable[Any, Any]:
    """Replace each chat model inside a Runnable.

    Looks inside `.bind()`, `.with_config()`, `.with_retry()`, `.with_fallbacks()`,
    `.configurable_fields()`, `.configurable_alternatives()`, branches and chains. A Runnable
    without a chat model inside is returned as the same object.

    Args:
        model: The Runnable.
        change: Function from a chat model to its replacement.
        unbind: Arguments to remove that `.bind()` or `.configurable_fields()` may have added.
        bindable: Function like `change`, for Runnables that create their chat model only when
            they are called, such as `init_chat_model(configurable_fields=…)`.
    """

    def inner(part: Any) -> Any:
        if not isinstance(part, Runnable):
            return part
        return map_chat_models(part, change, unbind=unbind, bindable=bindable)

    if isinstance(model, BaseChatModel):
        return change(model)
    if isinstance(model, RunnableBindingBase):
        kept = {name: value for name, value in model.kwargs.items() if name not in unbind}
        return _updated(model, bound=inner(model.bound), kwargs=kept)
    if isinstance(model, RunnableSequence):
        steps = list(map(inner, model.steps))
        return model if _same(model.steps, steps) else RunnableSequence(*steps, name=model.name)
    if isinstance(model, RunnableConfigurableFields):
        kept = {name: spec for name, spec in model.fields.items() if name not in unbind}
        return _configurable(_updated(model, fields=kept), inner(model.default))
    if bindable is not None and hasattr(type(model), "bind_tools"):
        return bindable(model)
    return _updated(model, **_alternatives(model, inner))


def _configurable(model: Any, default: Runnable[Any, Any]) -> Runnable[Any, Any]:
    # RunnableConfigurableFields creates the model from its class, so its default must have the
    # same class: arguments bound to the default are bound outside instead.
    kwargs: dict[str, Any] = {}
    while isinstance(default, RunnableBindingBase) and type(default) is not type(model.default):
        kwargs = {**default.kwargs, **kwargs}
        default = default.bound
    if type(default) is not type(model.default):
        return cast("Runnable[Any, Any]", model)
    changed: Runnable[Any, Any] = _updated(model, default=default)
    return changed.bind(**kwargs) if kwargs else changed


def _alternatives(model: Any, inner: Callable[[Any], Any]) -> dict[str, Any]:
    """Return the fields that hold alternative or parallel Runnables, with these replaced."""
    if isinstance(model, RunnableParallel):
        return {"steps__": {key: inner(step) for key, step in model.steps__.items()}}
    if isinstance(model, RunnableWithFallbacks):
        return {
            "runnable": inner(model.runnable),
            "fallbacks": list(map(inner, model.fallbacks)),
        }
    if isinstance(model, RunnableBranch):
        ways = [(condition, inner(way)) for condition, way in model.branches]
        return {"branches": ways, "default": inner(model.default)}
    if isinstance(model, RunnableConfigurableAlternatives):
        others = {key: inner(one) for key, one in model.alternatives.items()}
        return {"default": inner(model.default), "alternatives": others}
    return {}


def _updated(model: Any, **update: Any) -> Runnable[Any, Any]:
    same = all(_same(getattr(model, field), value) for field, value in update.items())
    copy: Runnable[Any, Any] = model if same else model.model_copy(update=update)
    return copy


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    if isinstance(old, list | tuple):
        return len(old) == len(new) and all(map(_same, old, new))
    return old is new


def chat_models_in(model: Runnable[Any, Any]) -> Iterator[BaseChatModel]:
    """Return the chat models that `map_chat_models` finds, starting with the first choice."""
    found: list[BaseChatModel] = []

    def note(chat_model: BaseChatModel) -> BaseChatModel:
        found.append(chat_model)
        return chat_model

    map_chat_models(model, note)
    return iter(found)


def is_same_model(asked: str, answered: str) -> bool:
    """Return whether two names mean the same model.

    Providers may add a date to the name, or omit the vendor.
    """
    if not asked or not answered:
        return False
    asked, answered = (name.casefold().rpartition("/")[2] for name in (asked, answered))
    return asked.startswith(answered) or answered.startswith(asked)


def answering_name(
    model: Runnable[Any, Any], name: str, answered: tuple[str | None, str | None]
) -> str:
    """Return the name of the model that answered, behind fallbacks and routers.

    Args:
        model: The model that was asked.
        name: Name of that model.
        answered: The name in the request to the chat model that answered, and the name that its
            provider returned.

    Returns:
        The configured name if the provider only adds to it; `name` for an agent or a mixture.
    """
    asked, said = answered
    if asked in (None, name) and said in (None, name):
        return name
    inside = list(chat_models_in(model))
    if nested_graph(model) is not None or any(m._llm_type == "moa" for m in inside):  # noqa: SLF001
        return name
    own = [name_of_chat_model(one) for one in inside]
    chosen = _plain(asked) if asked and (not own or _plain(asked) in own) else name
    if said is None or is_same_model(chosen, said):
        return chosen
    return next((one for one in own if is_same_model(one, said)), _plain(said))


def provider_of(model: Runnable[Any, Any]) -> str | None:
    """Return the first chat model's provider as LangChain spells it; None without a chat model."""
    chat_model = next(chat_models_in(model), None)
    return chat_model._get_ls_params().get("ls_provider") if chat_model else None  # noqa: SLF001


def host_of(chat_model: BaseChatModel) -> str | None:
    """Return the host name of an OpenAI-compatible chat model's server; None for other models."""
    client = clients_of(chat_model).get("root_client")
    host = getattr(getattr(client, "base_url", None), "host", None)
    return host if isinstance(host, str) else None


def window_of(model: Runnable[Any, Any]) -> int | None:
    """Return the smallest input limit of the models inside, in tokens, by LangChain's profiles."""
    profiles = [chat_model.profile or {} for chat_model in chat_models_in(model)]
    known = [size for profile in profiles if (size := profile.get("max_input_tokens"))]
    return min(known, default=None)


def max_tokens_of(model: Runnable[Any, Any]) -> int | None:
    """Return the maximum length of the model's answer, in tokens; None without a limit."""
    limits = []
    for chat_model in chat_models_in(model):
        values = [_value(chat_model, field) for field in MAX_TOKENS_FIELDS]
        limits.append(next((value for value in values if isinstance(value, int)), None))
    known = [limit for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def _value(chat_model: BaseChatModel, name: str) -> Any:
    """Return an attribute, or None; a failing `getattr` of a pydantic object is slow."""
    kind = type(chat_model)
    return getattr(chat_model, name) if name in kind.model_fields or hasattr(kind, name) else None


def own_retries(model: Runnable[Any, Any]) -> int | None:
    """Return the number of retries set on the provider's client; None if it is not set."""
    counts = [_value(chat_model, "max_retries") for chat_model in chat_models_in(model)]
    return max((count for count in counts if isinstance(count, int)), default=None)


def without_own_retries(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the model with retries of the provider's client switched off, if possible.

    The proposer's node makes the retries instead: it counts them, respects the timeout, and does
    not occupy a slot of the concurrency limit while it waits. This is possible for
    OpenAI-compatible clients, because their copies share connections. A model with
    `.with_retry()` or `.with_fallbacks()` is not changed.
    """
    if _arranges_retries(model):
        return model
    return map_chat_models(model, lambda m: with_clients(m, lambda _: {"max_retries": 0}))


def repeats_by_itself(model: Runnable[Any, Any]) -> bool:
    """Return whether a model makes its own retries, or must not be retried.

    A graph, such as an agent with tools, may have side effects.
    """
    if _arranges_retries(model) or nested_graph(model) is not None:
        return True
    return any(getattr(m, "max_retries", 0) and not clients_of(m) for m in chat_models_in(model))


def _arranges_retries(model: Runnable[Any, Any]) -> bool:
    if isinstance(model, RunnableWithFallbacks | RunnableRetry):
        return True
    if isinstance(model, RunnableBindingBase):
        return _arranges_retries(model.bound)
    return isinstance(model, RunnableSequence) and any(map(_arranges_retries, model.steps))


_OWN_TRANSPORT = {"http_client", "http_async_client", "http_socket_options", "openai_proxy"}


def chooses_transport(params: Mapping[str, Any]) -> bool:
    """Return whether arguments of an OpenAI-family chat model choose how it sends requests."""
    return not _OWN_TRANSPORT.isdisjoint(params)


def with_connections_of(
    model: Runnable[Any, Any], loop: Any, *, own: bool, fast: bool = False
) -> Runnable[Any, Any]:
    """Return the model with connections that no other event loop uses.

    This is possible for OpenAI-compatible clients only; other models are not changed.

    Args:
        model: The model.
        loop: The event loop in which the model is called.
        own: Whether the loop always has separate connections, because other loops may use those
            of the client.
        fast: Whether the connections may be those of `fast_client`, and the completions plain
            data, because the model was made from a string and nobody chose others.
    """
    shared = fast_client(loop) if fast else None

    def change(chat_model: BaseChatModel) -> BaseChatModel:
        chosen = None if getattr(chat_model, "openai_proxy", None) else shared

        def options(client: Any) -> dict[str, Any]:
            http = http_client_of(client)
            own_http = None if http is None else chosen or client_for(http, loop, own=own)
            return {} if own_http is http else {"http_client": own_http}

        plain = fast and takes_plain_completions(chat_model)
        return with_clients(chat_model, options, PlainCompletions if plain else None)

    return map_chat_models(model, change)


def without_llm_cache(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the model with LangChain's LLM cache switched off."""

    def change(chat_model: BaseChatModel) -> BaseChatModel:
        cached = chat_model.cache or (chat_model.cache is None and get_llm_cache() is not None)
        return chat_model.model_copy(update={"cache": False}) if cached else chat_model

    return map_chat_models(model, change)


def secrets_of(model: Runnable[Any, Any]) -> set[str]:
    """Return the API keys in the chat models inside, so that they can be removed from texts."""
    return {
        value.get_secret_value()
        for chat_model in chat_models_in(model)
        for value in _field_values(chat_model)
        if isinstance(value, SecretStr) and len(value.get_secret_value()) >= _SHORTEST_SECRET
    }


def _field_values(model: BaseModel) -> Iterator[Any]:
    return (getattr(model, field, None) for field in type(model).model_fields)


def has_tools(model: Runnable[Any, Any]) -> bool:
    """Return whether a chat model inside has tools, from `.bind_tools()` or the run."""
    if isinstance(model, RunnableBindingBase):
        given = model.kwargs.get("tools") or model.kwargs.get("functions")
        return bool(given) or has_tools(model.bound)
    if isinstance(model, RunnableWithFallbacks):
        return has_tools(model.runnable)
    return isinstance(model, RunnableSequence) and any(map(has_tools, model.steps))
