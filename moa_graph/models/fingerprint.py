"""Compute a hash of everything that affects a model's answers, as a key for persistent caches."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import hashlib
import json
import operator
import os
import re
import types
import typing
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import PurePath
from typing import Any, get_args, get_origin, is_typeddict

from langchain_core.language_models import BaseChatModel
from langchain_core.load.serializable import Serializable
from langchain_core.messages import BaseMessage
from langchain_core.runnables import (
    Runnable,
    RunnableConfig,
    RunnableGenerator,
    RunnableLambda,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.retry import RunnableRetry
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.pregel import Pregel
from pydantic import BaseModel, SecretBytes, SecretStr, TypeAdapter

from moa_graph._compat import CLIENT_FIELDS
from moa_graph.models.bytecode import (
    assigned_of,
    constants_of,
    functions_in,
    is_data,
    is_library,
    is_scalar,
    names_in,
)

_NOT_SHAPING = set(
    CLIENT_FIELDS
) | {  # fields of LangChain's classes that affect the connection to a model, not its answers
    "api_key",
    "async_client",
    "cache",
    "callback_manager",
    "callbacks",
    "client",
    "custom_get_token_ids",
    "http_async_client",
    "http_client",
    "http_socket_options",
    "input_types",
    "max_retries",
    "metadata",
    "profile",
    "rate_limiter",
    "request_timeout",
    "stream_chunk_timeout",
    "stream_usage",
    "streaming",
    "tags",
    "timeout",
    "verbose",
}
_RUN_TIME = {"callbacks", "tags", "metadata", "run_name", "run_id", "max_concurrency"}
_OF_THE_RUN = {"thread_id", "checkpoint_id", "checkpoint_ns", "checkpoint_map"}
_ENVIRONMENT = re.compile(r"(?:BASE_URL|API_BASE|ENDPOINT)$")  # read by providers' clients
_NOT_PROVIDERS = ("LANGCHAIN", "LANGSMITH", "OTEL", "MOA_")
_PURE = ("langchain", "moa_graph")  # functions depend only on their arguments
_OF_MESSAGES = {"id", "response_metadata", "usage_metadata", "artifact"}
_DEEPEST = 8  # maximum depth of functions that call functions


class NotFingerprintable(ValueError):
    """The behavior of an object cannot be determined by inspecting it."""


def fingerprint(model: Runnable[Any, Any], config: RunnableConfig | None = None) -> str:
    """Compute a hash of everything that affects a model's answer to the same messages.

    It includes classes and fields of chat models, templates, tools, schemas, bound arguments, the
    order of fallbacks, and configurable values of this run. Functions of installed packages are
    identified by name. User code (a function, a graph, a custom Runnable class) has no
    fingerprint.

    Args:
        model: The model.
        config: Configuration of the run; its `configurable` may choose among alternatives.

    Returns:
        64 hexadecimal digits. Models that may answer differently have different fingerprints; a
        model that is built again in the same way, also in another process, has the same one.

    Raises:
        NotFingerprintable: If a part of the model has no fingerprint; the message names it.
    """
    try:
        parts = [_runnable(model), chosen(model, config or {}), _addresses()]
    except RecursionError:
        raise NotFingerprintable("an object that contains itself") from None
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def message_parts(message: BaseMessage) -> Any:
    """Return the parts of a message that affect an answer to it, as JSON."""
    return _value(message.model_dump(exclude=_OF_MESSAGES))


def chosen(model: Runnable[Any, Any], config: RunnableConfig) -> Any:
    """Return the values in a run's `configurable` that the model uses."""
    configurable = config.get("configurable", {})
    ids = {spec.id for spec in model.config_specs} - _OF_THE_RUN
    return {
        name: _value(configurable[name])
        for name in sorted(ids & configurable.keys())
        if not name.startswith("__")
    }


def _addresses() -> Any:
    """Return the provider addresses that are set in environment variables."""
    return sorted(
        (name, value)
        for name, value in os.environ.items()
        if _ENVIRONMENT.search(name) and not name.startswith(_NOT_PROVIDERS)
    )


# --- Runnables ---------------------------------------------------------------------------


def _runnable(model: Any) -> Any:
    for kind, parts in _KINDS:
        if isinstance(model, kind):
            return parts(model)
    if is_library(type(model)):
        return _fields(model)
    raise NotFingerprintable(f"{_name(model)} (a {type(model).__name__})")


def _graph(model: Pregel[Any, Any, Any, Any]) -> Any:
    raise NotFingerprintable(f"the graph {model.name!r}")


def _functions(model: Any, *fields: str) -> Any:
    functions = [getattr(model, field, None) for field in fields]
    return ["functions", [_function(f) for f in functions if f is not None]]


def _fallbacks(model: RunnableWithFallbacks[Any, Any]) -> Any:
    handled = [_class(error) for error in model.exceptions_to_handle]
    return ["fallbacks", [_runnable(m) for m in model.runnables], handled, model.exception_key]


def _binding(model: RunnableBindingBase[Any, Any]) -> Any:
    if model.config_factories:
        raise NotFingerprintable("a function that changes the configuration (with_listeners)")
    kwargs = {
        name: [_tool(tool) for tool in value]
        if name == "tools" and isinstance(value, Sequence) and not isinstance(value, str)
        else _value(value)
        for name, value in model.kwargs.items()
    }
    config = {k: _value(v) for k, v in model.config.items() if k not in _RUN_TIME}
    return ["bound", _runnable(model.bound), kwargs, config]


def _fields(model: Any) -> Any:
    """Return an object's class and field values.

    A container that was not set counts with its default, because some classes store state in it.
    """
    if not isinstance(model, BaseModel):
        raise NotFingerprintable(f"{_name(model)} (a {type(model).__name__})")
    cls = type(model)
    fields: dict[str, Any] = {}
    for name, info in cls.model_fields.items():
        value = getattr(model, name)
        if isinstance(value, SecretStr | SecretBytes):
            continue
        if isinstance(model, Runnable) and _is_plumbing(name):
            if (url := _address(value)) is not None:
                fields[name] = url
            continue
        if name not in model.model_fields_set and not is_scalar(value):
            if isinstance(value, Runnable | types.FunctionType):
                raise NotFingerprintable(f"{cls.__name__}.{name}")
            value = info.get_default(call_default_factory=True)
        try:
            fields[name] = _value(value)
        except NotFingerprintable:
            # Fields that a provider's class does not serialize are its connections.
            if not (isinstance(model, BaseChatModel) and info.exclude and _is_provider(cls)):
                raise
    hidden = {} if is_library(cls) else (model.__pydantic_private__ or {})
    more = {**(model.model_extra or {}), **hidden}
    return [_class(cls), fields, {name: _value(value) for name, value in more.items()}]


def _is_provider(cls: type) -> bool:
    return is_library(cls) and not cls.__module__.startswith("moa_graph")


def _address(client: Any) -> str | None:
    """Return the address to which a provider's client sends requests; None if it is unknown."""
    for part in (client, getattr(client, "_client", None)):
        if (url := getattr(part, "base_url", None)) is not None:
            return str(url)
    return None


def _is_plumbing(name: str) -> bool:
    return name in _NOT_SHAPING or name.endswith(("api_key", "token_provider"))


_KINDS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Pregel, _graph),
    (BaseChatModel, _fields),
    (RunnableRetry, lambda model: _binding(model) if model.kwargs else _runnable(model.bound)),
    (RunnableBindingBase, _binding),
    (RunnableWithFallbacks, _fallbacks),
    (RunnableSequence, lambda model: ["sequence", [_runnable(step) for step in model.steps]]),
    (RunnableLambda, lambda model: _functions(model, "func", "afunc")),
    (RunnableGenerator, lambda model: _functions(model, "_transform", "_atransform")),
)


# --- values ------------------------------------------------------------------------------


def _value(value: Any) -> Any:
    """Convert a value to JSON; different values give different JSON."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, type) or get_origin(value) is not None or value is Any:
        return ["type", _type(value)]
    for kind, written in _VALUES:
        if isinstance(value, kind):
            return written(value)
    raise NotFingerprintable(f"an object of class {type(value).__name__}")


def _mapping(value: Mapping[Any, Any]) -> Any:
    # Keep the order: the order of a schema's properties affects an answer, too.
    return ["mapping", [[_value(k), _value(v)] for k, v in value.items()]]


def _set(value: Collection[Any]) -> Any:
    return ["set", sorted(json.dumps(_value(item), sort_keys=True) for item in value)]


_VALUES: tuple[tuple[Any, Callable[[Any], Any]], ...] = (  # the first match is used
    (enum.Enum, lambda value: ["enum", _class(type(value)), value.name]),
    (int | float, lambda value: [type(value).__name__, repr(value)]),
    (BaseTool, lambda value: ["tool", _tool(value)]),
    (BaseMessage, lambda value: ["message", _class(type(value)), message_parts(value)]),
    (Mapping, _mapping),
    (list | tuple, lambda value: ["list", [_value(item) for item in value]]),
    (set | frozenset, _set),
    (SecretStr | SecretBytes, lambda _: ["secret"]),
    (bytes | bytearray, lambda value: ["bytes", hashlib.sha256(value).hexdigest()]),
    (
        dt.date | dt.time | dt.timedelta | uuid.UUID | PurePath,
        lambda value: [type(value).__name__, str(value)],
    ),
    (
        (types.FunctionType, types.MethodType, types.BuiltinFunctionType, functools.partial),
        lambda value: ["function", _function(value)],
    ),
    (Runnable, lambda value: ["runnable", _runnable(value)]),
    (Serializable | BaseModel, lambda value: ["object", _fields(value)]),
)


def _tool(tool: Any) -> Any:
    """Return the description of a tool that a model receives; the model never runs the tool."""
    if isinstance(tool, Mapping):
        return _value(tool)
    shown = _value(convert_to_openai_tool(tool))
    extras = getattr(tool, "extras", None)
    return [shown, _value(extras)] if extras else shown


def _type(value: Any) -> Any:
    """Return the content of a schema, or the name of any other type."""
    if origin := get_origin(value):
        return [_type(origin), [_type(arg) for arg in get_args(value)]]
    if isinstance(value, type) and (issubclass(value, BaseModel) or is_typeddict(value)):
        return [value.__qualname__, _value(TypeAdapter(value).json_schema()), _code_of(value)]
    if isinstance(value, type):
        return _class(value)
    return (
        repr(value) if value in (Any, None) or isinstance(value, typing.TypeVar) else _value(value)
    )


def _class(cls: type) -> Any:
    """Return the name of a class, and for a user's class its code as well."""
    return [f"{cls.__module__}.{cls.__qualname__}", _code_of(cls)]


def _code_of(cls: type) -> Any:
    """Return a hash of a user's class; None for a class of an installed package.

    It includes the methods, the class's values, and the module globals that the methods use.
    Names that a method assigns are state, not settings, and are left out.

    Raises:
        NotFingerprintable: If the methods depend on a value that has no fingerprint.
    """
    if is_library(cls):
        return None
    own = [base for base in cls.__mro__ if not is_library(base)]
    members = [(base, name, m) for base in own for name, m in sorted(vars(base).items())]
    functions = [
        (base, name, function)
        for base, name, member in members
        if not name.startswith("__annotate")
        for function in functions_in(member)
    ]
    assigned = {name for _, _, f in functions for name in assigned_of(f.__code__)}
    parts: list[Any] = [
        [base.__qualname__, name, _code(function, assigned)] for base, name, function in functions
    ]
    parts += [
        [base.__qualname__, name, _value(member)]
        for base, name, member in members
        if not name.startswith(("_", "model_")) and name not in assigned and is_data(member)
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _code(
    function: types.FunctionType, assigned: Collection[str] = (), depth: int = _DEEPEST
) -> Any:
    """Return a function's code, with the outer values and functions that it uses."""
    around = dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))
    values: dict[str, Any] = {}
    for name, cell in around.items():
        if name == "__class__":
            continue
        try:
            values[name] = _value(cell.cell_contents)
        except ValueError as error:  # an empty cell, or NotFingerprintable
            raise NotFingerprintable(
                f"the method {function.__qualname__}, which depends on {name!r} around it"
            ) from error
    for name in names_in(function.__code__) - set(assigned):
        used = function.__globals__.get(name)
        if isinstance(used, types.FunctionType) and not is_library(used) and depth:
            values[name] = _code(used, assigned, depth - 1)
        elif used is not None and is_data(used) and not isinstance(used, list | dict | set):
            values[name] = _value(used)
    return [constants_of(function.__code__), values, _value(function.__defaults__)]


def _function(function: Any) -> Any:
    """Return the name of a package's function; for a partial, its function and arguments.

    Raises:
        NotFingerprintable: If it is a user's function.
    """
    if isinstance(function, functools.partial):
        keywords = {name: _value(value) for name, value in function.keywords.items()}
        return ["partial", _function(function.func), [_value(a) for a in function.args], keywords]
    if isinstance(function, operator.itemgetter | operator.attrgetter | operator.methodcaller):
        return repr(function)
    inner = getattr(function, "__func__", function)
    name = f"{getattr(inner, '__module__', '')}.{getattr(inner, '__qualname__', '')}"
    bound_to = getattr(function, "__self__", None)
    if not isinstance(inner, types.FunctionType) or not name.startswith(_PURE):
        raise NotFingerprintable(f"the function {getattr(inner, '__name__', inner)!s}")
    if "<" in name:  # a lambda or local function: the name is not unique
        return [name, _code(inner)]
    return name if bound_to is None else [name, _value(bound_to)]


def _name(model: Any) -> str:
    name = getattr(model, "name", None)
    return repr(name) if isinstance(name, str) else "an object"
