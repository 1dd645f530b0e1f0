"""From what a user gives as a model to what a node can call."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from langchain.chat_models import init_chat_model
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AnyMessage,
    BaseMessage,
    BaseMessageChunk,
    get_buffer_string,
)
from langchain_core.messages.utils import message_chunk_to_message
from langchain_core.runnables import (
    Runnable,
    RunnableLambda,
    RunnableParallel,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable
from langchain_core.runnables.retry import RunnableRetry
from langgraph.pregel import Pregel
from pydantic import BaseModel, SecretStr

from moa_graph.connections import without_connections
from moa_graph.errors import MoAError, explain
from moa_graph.local import check_local_name, local_chat_model

_UNNAMED_GRAPH = "LangGraph"  # what a graph compiled without a name is called
_SHORTEST_SECRET = 4  # a shorter one would blank out ordinary words
_ASKED_FOR_USAGE = ("together", "openai")
_MAX_TOKENS_FIELDS = ("max_tokens", "max_output_tokens", "num_predict", "max_new_tokens")


class Model:
    """One model of a graph, as it was given; a string becomes a chat model on first use.

    A graph can so be built, drawn and served without a key, and a key that is set later is
    found. What can be wrong without one (the provider's name, a package that is not
    installed) is refused at once.

    Args:
        given: The model.
        role: What it is used for, such as `"proposers[2]"`; errors begin with it.
        params: What `init_chat_model` is given besides the name; only with a string.

    Raises:
        TypeError: If `given` is no model.
        ValueError: If a string names no provider, an unknown one, or one whose package is
            not installed.
    """

    def __init__(self, given: str | Runnable[Any, Any], role: str, **params: Any) -> None:
        self.role = role
        self._given = given
        self._params = params
        self._lock = threading.Lock()
        self._runnable: Runnable[Any, Any] | None = None
        self._cancellable: Runnable[Any, Any] | None = None
        self._provider: str | None = None
        if isinstance(given, str):
            self._provider, self.name = _split(given, role)
            if given.startswith("local:"):
                check_local_name(self.name, role)
            else:
                self._try_to_build(given)
        elif isinstance(given, Runnable):
            _check_kind(given, role)
            _check_prompt(given, role)
            self.name = name_of(given)
            self._runnable = without_own_retries(_same_input(given))
        else:
            raise TypeError(f"{role} is {_what(given)}, which is not a model. {_MODEL_HINT}")

    def __repr__(self) -> str:
        return f"Model({self.name!r})"

    @property
    def provider(self) -> str | None:
        """The provider's name, as LangChain spells it; None for what is no chat model."""
        if self._provider is None and self._runnable is not None:
            self._provider = provider_of(self._runnable)
        return self._provider

    @property
    def names(self) -> tuple[str, ...]:
        """What limits of calls know it by: its provider, and `"provider:model"`."""
        return (self.provider, f"{self.provider}:{self.name}") if self.provider else (self.name,)

    @property
    def built(self) -> Runnable[Any, Any] | None:
        """The model to call, if it is built already."""
        return self._runnable

    def get(self) -> Runnable[Any, Any]:
        """The model to call.

        Raises:
            MoAError: If it cannot be built, typically for want of an API key; says what to do.
        """
        with self._lock:
            if self._runnable is not None:
                return self._runnable
            assert isinstance(self._given, str)
            try:
                self._runnable = without_own_retries(build_chat_model(self._given, self._params))
            except MoAError as error:
                raise MoAError(f"{self._where}{error}") from None
            except Exception as error:  # noqa: BLE001 - every provider has its own
                # The original may quote what it was given, a key among it.
                raise MoAError(
                    f"{self._where}{self._given!r} cannot be used: {explain(error)}"
                ) from None
            return self._runnable

    def cancellable(self) -> Runnable[Any, Any]:
        """The model for the event loop in the background, with connections of its own there."""
        if self._cancellable is None:
            self._cancellable = with_own_connections(self.get())
        return self._cancellable

    async def aget(self) -> Runnable[Any, Any]:
        """Like `get`; what takes long, such as loading weights, happens in a thread."""
        return self.get() if self._runnable is not None else await asyncio.to_thread(self.get)

    @property
    def _where(self) -> str:
        return "" if self.role == self._given else f"{self.role}: "

    def _try_to_build(self, spec: str) -> None:
        provider = spec.partition(":")[0]
        try:
            self._runnable = without_own_retries(build_chat_model(spec, self._params))
        except ImportError as error:
            raise ValueError(
                f"{self.role}: the package for {provider!r} is not installed. {error}"
            ) from error
        except ValueError as error:
            if "Unsupported" in str(error) and "provider" in str(error):
                known = str(error).rpartition("are: ")[2]
                raise ValueError(
                    f"{self.role}: unknown provider {provider!r} in {spec!r}. Write "
                    f"'provider:model' with one of: local, {known}; or install the provider's "
                    "LangChain package and give its chat model object instead."
                ) from error
        except Exception:  # noqa: BLE001, S110 - a missing key: `get` says so
            pass


ModelLike: TypeAlias = str | Runnable[Any, Any] | Model
"""A model: `"provider:model"`, a chat model, or any Runnable from messages to a message."""


def as_model(given: ModelLike, role: str) -> Model:
    """The model in the form that nodes take, `role` saying what it is used for."""
    return given if isinstance(given, Model) else Model(given, role)


_MODEL_HINT = (
    "Give 'provider:model' (such as 'together:Qwen/Qwen2.5-72B-Instruct-Turbo'), a chat model "
    "object, or any Runnable from messages to a message."
)


def _what(given: object) -> str:
    if given is None:
        return "None"
    if isinstance(given, type):
        return f"the class {given.__name__} (an object is needed: {given.__name__}(...))"
    if callable(given):
        return "a function (wrap it in RunnableLambda)"
    return f"of type {type(given).__name__}"


def _split(spec: str, role: str) -> tuple[str, str]:
    provider, colon, model = spec.partition(":")
    if not (colon and provider.strip() and model.strip()):
        raise ValueError(
            f"{role}: {spec!r} names no provider. Write 'provider:model', for example "
            "'together:Qwen/Qwen2.5-72B-Instruct-Turbo' or 'openai:gpt-5.2'."
        )
    return provider, model


def build_chat_model(spec: str, params: Mapping[str, Any] | None = None) -> BaseChatModel:
    """The chat model of a `"provider:model"`, as its provider's package makes it.

    Args:
        spec: The provider and the model.
        params: What the chat model is given besides.

    Raises:
        MoAError: If a key is missing.
        ValueError: If there is no such provider.
        ImportError: If the provider's package is not installed.
    """
    params = params or {}
    provider, name = spec.split(":", 1)
    provider = provider.strip().lower()
    if provider == "local":
        return local_chat_model(name, **params)
    # These count the tokens of a streamed answer only when asked to.
    defaults: dict[str, Any] = {"stream_usage": True} if provider in _ASKED_FOR_USAGE else {}
    if provider != "together":
        other: BaseChatModel = init_chat_model(
            name, model_provider=provider, **{**defaults, **params}
        )
        return other
    if "TOGETHER_API_BASE" not in os.environ and (url := os.environ.get("TOGETHER_BASE_URL")):
        defaults["base_url"] = url  # as Together's own client names it
    if not (os.environ.get("TOGETHER_API_KEY") or {"api_key", "together_api_key"} & params.keys()):
        # Without its own key the client would look for OpenAI's, and send that to Together.
        raise MoAError(
            f"{spec!r} needs an API key: set TOGETHER_API_KEY (from "
            "https://api.together.ai/settings/api-keys)."
        )
    model: BaseChatModel = init_chat_model(name, model_provider=provider, **{**defaults, **params})
    return model


def name_of(model: Runnable[Any, Any]) -> str:
    """The model's own name, for people: as its provider spells it where it is a chat model."""
    for chat_model in chat_models_in(model):
        for field in ("model_name", "model", "model_id", "deployment_name"):
            value = getattr(chat_model, field, None)
            if isinstance(value, str) and value:
                return value.rpartition("models/")[2] if value.startswith("models/") else value
        return type(chat_model).__name__
    first = _first_step(model)
    name = getattr(first, "name", None) or type(first).__name__
    return "agent" if name == _UNNAMED_GRAPH else str(name)


def map_chat_models(
    model: Runnable[Any, Any], change: Callable[[BaseChatModel], Runnable[Any, Any]]
) -> Runnable[Any, Any]:
    """Replace each chat model inside `.bind()`, `.with_config()`, `.with_retry()`,
    `.with_fallbacks()` and chains; what has none inside stays the same object.
    """
    if isinstance(model, BaseChatModel):
        return change(model)
    if isinstance(model, RunnableBindingBase):
        bound = map_chat_models(model.bound, change)
        return model if bound is model.bound else model.model_copy(update={"bound": bound})
    if isinstance(model, RunnableWithFallbacks):
        first = map_chat_models(model.runnable, change)
        others = [map_chat_models(fallback, change) for fallback in model.fallbacks]
        return model.model_copy(update={"runnable": first, "fallbacks": others})
    if isinstance(model, RunnableSequence):
        steps = [map_chat_models(step, change) for step in model.steps]
        return RunnableSequence(*steps, name=model.name)
    if isinstance(model, RunnableParallel):
        branches = {key: map_chat_models(step, change) for key, step in model.steps__.items()}
        return RunnableParallel(branches)
    return model


def chat_models_in(model: Runnable[Any, Any]) -> Iterator[BaseChatModel]:
    """The chat models that `map_chat_models` reaches, the first choice first."""
    found: list[BaseChatModel] = []

    def note(chat_model: BaseChatModel) -> BaseChatModel:
        found.append(chat_model)
        return chat_model

    map_chat_models(model, note)
    return iter(found)


def provider_of(model: Runnable[Any, Any]) -> str | None:
    """The first choice's provider, as LangChain spells it; None for what is no chat model."""
    chat_model = next(chat_models_in(model), None)
    return chat_model._get_ls_params().get("ls_provider") if chat_model else None  # noqa: SLF001


def host_of(chat_model: BaseChatModel) -> str | None:
    """Where a chat model of OpenAI's family is served; None for every other."""
    client = _clients_of(chat_model).get("root_client")
    host = getattr(getattr(client, "base_url", None), "host", None)
    return host if isinstance(host, str) else None


def window_of(model: Runnable[Any, Any]) -> int | None:
    """How many input tokens every model inside takes, by LangChain's profiles of them."""
    profiles = [chat_model.profile or {} for chat_model in chat_models_in(model)]
    known = [size for profile in profiles if (size := profile.get("max_input_tokens"))]
    return min(known, default=None)


def max_tokens_of(model: Runnable[Any, Any]) -> int | None:
    """The longest answer that the model may give, in tokens; None if nothing limits it."""
    limits = []
    for chat_model in chat_models_in(model):
        values = [getattr(chat_model, field, None) for field in _MAX_TOKENS_FIELDS]
        limits.append(next((value for value in values if isinstance(value, int)), None))
    known = [limit for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def own_retries(model: Runnable[Any, Any]) -> int | None:
    """How often the provider's client is set to repeat a call; None if nothing says so."""
    counts = [getattr(chat_model, "max_retries", None) for chat_model in chat_models_in(model)]
    return max((count for count in counts if isinstance(count, int)), default=None)


def without_own_retries(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The model, its client not repeating calls where it can be told so.

    A proposer's node repeats them instead: there they are counted, know the deadline, and wait
    outside of what limits concurrent calls. It can be told to the clients of OpenAI's family,
    whose copies share their connections. What the user has arranged with `.with_retry()` or
    `.with_fallbacks()` stays as it is.
    """
    if _arranges_retries(model):
        return model
    return map_chat_models(model, lambda m: _with_clients(m, lambda _: {"max_retries": 0}))


def repeats_by_itself(model: Runnable[Any, Any]) -> bool:
    """Whether it repeats calls in a way of its own, or must not be repeated.

    What a graph does, such as an agent with tools, may have effects.
    """
    if _arranges_retries(model) or nested_graph(model) is not None:
        return True
    return any(getattr(m, "max_retries", 0) and not _clients_of(m) for m in chat_models_in(model))


def _arranges_retries(model: Runnable[Any, Any]) -> bool:
    if isinstance(model, RunnableWithFallbacks | RunnableRetry):
        return True
    if isinstance(model, RunnableBindingBase):
        return _arranges_retries(model.bound)
    return isinstance(model, RunnableSequence) and any(map(_arranges_retries, model.steps))


def with_own_connections(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The model with connections that no other event loop uses, as far as it can be told so.

    Where it can be told so: to the clients of OpenAI's family.
    """
    return map_chat_models(model, lambda m: _with_clients(m, _own_pool))


def without_llm_cache(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The model, not answering from LangChain's LLM cache where there is one."""

    def change(chat_model: BaseChatModel) -> BaseChatModel:
        cached = chat_model.cache or (chat_model.cache is None and get_llm_cache() is not None)
        return chat_model.model_copy(update={"cache": False}) if cached else chat_model

    return map_chat_models(model, change)


_CLIENTS = {"root_client": "client", "root_async_client": "async_client"}


def _clients_of(chat_model: BaseChatModel) -> dict[str, Any]:
    """The clients of a chat model of OpenAI's family, by field; empty for every other."""
    clients = {field: getattr(chat_model, field, None) for field in _CLIENTS}
    return {field: client for field, client in clients.items() if hasattr(client, "with_options")}


def _with_clients(
    chat_model: BaseChatModel, options: Callable[[Any], dict[str, Any]]
) -> BaseChatModel:
    update: dict[str, Any] = {}
    for field, client in _clients_of(chat_model).items():
        if own := options(client):
            update[field] = client.with_options(**own)
            update[_CLIENTS[field]] = update[field].chat.completions
    return chat_model.model_copy(update=update) if update else chat_model


def _own_pool(client: Any) -> dict[str, Any]:
    if "Async" not in type(client).__name__:
        return {}
    return {"http_client": without_connections(client._client)}  # noqa: SLF001 - no public name


def with_settings(
    model: Runnable[Any, Any], *, temperature: float | None, max_tokens: int | None
) -> Runnable[Any, Any]:
    """Give every chat model inside another temperature or limit of tokens."""
    if temperature is None and max_tokens is None:
        return model

    def change(chat_model: BaseChatModel) -> Runnable[Any, Any]:
        fields = type(chat_model).model_fields
        update: dict[str, Any] = {}
        kwargs: dict[str, Any] = {}
        if temperature is not None:
            (update if "temperature" in fields else kwargs)["temperature"] = temperature
        if max_tokens is not None:
            # Each provider has its own name for it.
            field = next((name for name in _MAX_TOKENS_FIELDS if name in fields), None)
            if field:
                update[field] = max_tokens
            else:
                kwargs["max_tokens"] = max_tokens
        changed = chat_model.model_copy(update=update) if update else chat_model
        return changed.bind(**kwargs) if kwargs else changed

    return map_chat_models(model, change)


def with_call_options(model: Runnable[Any, Any], options: Mapping[str, Any]) -> Runnable[Any, Any]:
    """Give every chat model inside the options of one call: `tools`, `stop`, `temperature` …"""
    if not options:
        return model

    def change(chat_model: BaseChatModel) -> Runnable[Any, Any]:
        given = _unparsed(chat_model, options)
        return chat_model.bind_tools(**given) if "tools" in given else chat_model.bind(**given)

    return map_chat_models(model, change)


def _unparsed(chat_model: BaseChatModel, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """OpenAI's client parses answers in a form, and so refuses tools that are not strict beside
    one. The API does not: it gets the form without the client's help.
    """
    tools, form = options.get("tools") or (), options.get("response_format")
    strict = all(isinstance(t, dict) and t.get("function", {}).get("strict") for t in tools)
    if not tools or strict or not isinstance(form, dict) or not hasattr(chat_model, "extra_body"):
        return options
    body = {**(chat_model.extra_body or {}), "response_format": form}
    return {**{k: v for k, v in options.items() if k != "response_format"}, "extra_body": body}


def secrets_of(model: Runnable[Any, Any]) -> set[str]:
    """The keys that the chat models inside hold, to be kept out of texts."""
    return {
        value.get_secret_value()
        for chat_model in chat_models_in(model)
        for value in _field_values(chat_model)
        if isinstance(value, SecretStr) and len(value.get_secret_value()) >= _SHORTEST_SECRET
    }


def _field_values(model: BaseModel) -> Iterator[Any]:
    return (getattr(model, field, None) for field in type(model).model_fields)


def input_for(model: Runnable[Any, Any], messages: Sequence[AnyMessage]) -> Any:
    """The messages in the form that the model takes.

    A graph takes a state. A prompt takes its variables: a placeholder gets the messages, any
    other variable their text. Everything else takes the messages.
    """
    first = _first_step(model)
    if isinstance(first, Pregel):
        return {"messages": list(messages)}
    if (needs := _prompt_variables(first)) is not None:
        placeholders, variables = needs
        text = messages[0].text if len(messages) == 1 else get_buffer_string(messages)
        return {name: list(messages) for name in placeholders} | dict.fromkeys(variables, text)
    return list(messages)


def nested_graph(model: Runnable[Any, Any]) -> Pregel[Any, Any, Any, Any] | None:
    """The compiled graph that the model is, such as an agent; None if it is none."""
    first = _first_step(model)
    return first if isinstance(first, Pregel) else None


def _first_step(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    if isinstance(model, RunnableBindingBase):
        return _first_step(model.bound)
    if isinstance(model, RunnableWithFallbacks):
        return _first_step(model.runnable)
    if isinstance(model, RunnableSequence):
        return _first_step(model.first)
    if isinstance(model, DynamicRunnable):
        return _first_step(model.default)
    return model


def _same_input(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """The model, its fallbacks all taking messages where they would not take the same input."""
    if not isinstance(model, RunnableWithFallbacks):
        return model
    alternatives = list(model.runnables)
    if not any(_takes_messages(a) for a in alternatives) or all(map(_takes_messages, alternatives)):
        return model
    first, *others = (a if _takes_messages(a) else _from_messages(a) for a in alternatives)
    return model.model_copy(update={"runnable": first, "fallbacks": others})


def _takes_messages(model: Runnable[Any, Any]) -> bool:
    first = _first_step(model)
    return not isinstance(first, Pregel) and _prompt_variables(first) is None


def _from_messages(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    return RunnableLambda(lambda messages: input_for(model, messages)) | model


def _prompt_variables(prompt: Runnable[Any, Any]) -> tuple[list[str], list[str]] | None:
    """The placeholders and the other variables of a prompt; None if it is no prompt.

    Told by its attributes: importing LangChain's prompts takes longer than the rest of us.
    """
    variables = getattr(prompt, "input_variables", None)
    if variables is None or not hasattr(prompt, "format_prompt"):
        return None
    messages = getattr(prompt, "messages", ())
    placeholders = [m.variable_name for m in messages if hasattr(m, "variable_name")]
    return placeholders, [name for name in variables if name not in placeholders]


def _check_kind(model: Runnable[Any, Any], role: str) -> None:
    """Refuse Runnables that cannot answer; told by their attributes, as prompts are."""
    first = _first_step(model)
    if isinstance(first, Pregel) and "messages" not in first.channels:
        raise TypeError(f"{role}: the graph {first.name!r} has no `messages` in its state.")
    if hasattr(model, "format_prompt"):
        raise TypeError(f"{role} is a prompt, which is not a model: give `prompt | model`.")
    if hasattr(model, "args_schema"):
        raise TypeError(f"{role} is a tool, which is not a model: give an agent that uses it.")


def _check_prompt(model: Runnable[Any, Any], role: str) -> None:
    needs = _prompt_variables(_first_step(model))
    if needs is not None and len(needs[1]) > 1:
        names = ", ".join(needs[1])
        raise ValueError(
            f"{role}: its prompt needs {names}, but a model is given the conversation only. "
            "Keep one variable or a MessagesPlaceholder, and fill the others with `.partial()`."
        )


def as_message(output: Any) -> AIMessage:
    """The answer in what a model returned: a message, a text, a state with `messages`, or an
    object of a schema, which is written as JSON.

    Raises:
        TypeError: If there is no message in it.
    """
    if isinstance(output, Mapping) and output.get("messages"):
        output = output["messages"][-1]
    if isinstance(output, BaseMessageChunk):
        output = message_chunk_to_message(output)
    if isinstance(output, AIMessage):
        return output
    if isinstance(output, BaseMessage):
        return AIMessage(output.content, id=output.id, name=output.name)
    if isinstance(output, str):
        return AIMessage(output)
    if isinstance(output, BaseModel):  # of a model `.with_structured_output(...)`
        return AIMessage(output.model_dump_json())
    if isinstance(output, Mapping) and not output.keys() & {"messages", "raw"}:
        return AIMessage(json.dumps(output, ensure_ascii=False, default=str))
    raise TypeError(
        f"the model returned {type(output).__name__}, which is neither a message, a text, nor "
        "a state with `messages`"
    )
