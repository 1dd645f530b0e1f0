"""Apply the settings of one run to a built model: temperature, token limits, tools …"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable
from pydantic import SecretStr

from moa_graph.calling import sync
from moa_graph.errors import status_of
from moa_graph.models.runnables import MAX_TOKENS_FIELDS, map_chat_models

_FIELDS = {  # setting -> names of it in providers' chat models and APIs
    "temperature": ("temperature",),
    "max_tokens": (
        *MAX_TOKENS_FIELDS,
        "max_completion_tokens",
        "max_tokens_to_sample",
        "maxTokens",
        "maxOutputTokens",
    ),
    "top_p": ("top_p", "topP"),
    "top_k": ("top_k", "topK"),
    "seed": ("seed", "random_seed"),
    "frequency_penalty": ("frequency_penalty", "frequencyPenalty"),
    "presence_penalty": ("presence_penalty", "presencePenalty"),
    "stop": ("stop", "stop_sequences", "stopSequences"),
    "reasoning_effort": ("reasoning_effort", "reasoningEffort", "effort"),
    "verbosity": ("verbosity",),
    "logit_bias": ("logit_bias", "logitBias"),
    "min_p": ("min_p", "minP"),
    "repetition_penalty": ("repetition_penalty", "repetitionPenalty"),
}
"""Settings that may be left out of a call. Tools and the response format may not."""

_WORDS = {"stop", "seed"}  # also ordinary words in error messages
_BY_BIND = {"stop"}  # LangChain's own argument, which each chat model class converts
_REFUSED = re.compile(
    r"unsupported|not support|unexpected|unknown|unrecogni[sz]ed|invalid|not (?:a )?"
    r"(?:valid|allowed|permitted)|extra (?:inputs|fields)|deprecated|must be|should be"
    r"|can(?:not| ?not| only)|only|not available|remove|out of range|at most"
    r"|too (?:large|high|low|small)|got multiple|incompat",
    re.IGNORECASE,
)
_IN_BODY = {"top_k", "min_p", "repetition_penalty"}
"""Settings of other servers with OpenAI's protocol, which OpenAI's client does not have."""
_MOST_KEPT = 256
_WEIGHTS = {"model_path", "pipeline"}  # a class with these loads weights when it is constructed


@dataclass(frozen=True)
class Settings:
    """Arguments of a model's calls in one run, besides the messages.

    Args:
        values: Sampling settings by name (`temperature`, `max_tokens`, `top_p`, `seed` …).
        options: Other arguments of the call: `tools`, `response_format`, `stop` …
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """Make settings from keyword arguments; None means not set."""
        given = {name: value for name, value in given.items() if value is not None}
        if not given:
            return NO_SETTINGS
        values = {k: v for k, v in given.items() if k in _FIELDS and k not in _BY_BIND}
        return cls(values, {k: v for k, v in given.items() if k not in values})

    def with_(self, **values: Any) -> Settings:
        """Return the settings with values added or replaced."""
        return replace(self, values={**self.values, **values})

    def without(self, names: Collection[str]) -> Settings:
        """Return the settings without those of these names."""
        if not names:
            return self
        return Settings(
            {k: v for k, v in self.values.items() if k not in names},
            {k: v for k, v in self.options.items() if k not in names},
        )

    def applied(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model with these settings applied to every chat model inside."""
        if not self.values and not self.options:
            return model
        model = with_settings(model, self.values)
        return with_call_options(model, self.options)

    def refused(self, error: BaseException) -> set[str]:
        """Return the settings that the provider or its client rejected, according to an error.

        Args:
            error: The error that a call with these settings raised.

        Returns:
            Names of settings that may be left out of the call; empty if the error is about
            something else.
        """
        if status_of(error) not in (400, 422) and not isinstance(error, TypeError | ValueError):
            return set()
        body = getattr(error, "body", None)
        named = body.get("param") if isinstance(body, Mapping) else None
        text = str(error)
        says_so = named is not None or _REFUSED.search(text) is not None
        given = [
            name
            for name in (*self.values, *self.options)
            # A 400 or 422 error that names a sampling setting is about that setting.
            if name in _FIELDS and (says_so or (name not in _WORDS and status_of(error)))
        ]
        return {
            name for name in given if named in _FIELDS[name] or any(
                re.search(rf"(?<![A-Za-z_]){re.escape(spelled)}(?![A-Za-z_])", text, re.IGNORECASE)
                for spelled in _FIELDS[name]
            )
        }  # fmt: skip


NO_SETTINGS = Settings()
"""The model's own settings."""


def with_settings(model: Runnable[Any, Any], values: Mapping[str, Any]) -> Runnable[Any, Any]:
    """Return the model with settings applied to every chat model inside.

    The class of the chat model validates the values and may drop or rename them. A setting
    without a field in the class is bound to the call.

    Args:
        model: The model.
        values: The settings, with the names of `Settings.values`.
    """
    if not values:
        return model
    bound = {spelled for name in values for spelled in _FIELDS.get(name, (name,))}
    return map_chat_models(
        model,
        lambda one: _validated(one, values),
        unbind=bound,
        bindable=lambda one: one.bind(**values),
    )


def _validated(chat_model: BaseChatModel, values: Mapping[str, Any]) -> Runnable[Any, Any]:
    key = (id(chat_model), repr(sorted(values.items())))  # a value may be unhashable
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key][1]
    changed = _changed(chat_model, values)
    with _lock:
        _kept[key] = (chat_model, changed)  # keep the model, so that its id is not reused
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return changed


_kept: OrderedDict[Any, tuple[BaseChatModel, Runnable[Any, Any]]] = OrderedDict()
_lock = sync.Lock()


def _changed(chat_model: BaseChatModel, values: Mapping[str, Any]) -> Runnable[Any, Any]:
    fields = type(chat_model).model_fields
    update: dict[str, Any] = {}
    kwargs: dict[str, Any] = {}
    if "extra_body" in fields and (extra := {k: values[k] for k in _IN_BODY & values.keys()}):
        kwargs["extra_body"] = {**(getattr(chat_model, "extra_body", None) or {}), **extra}
        values = {name: value for name, value in values.items() if name not in extra}
    for name, value in values.items():
        own = next((f for f in _FIELDS.get(name, (name,)) if f in fields), None)
        if own:
            update[own] = value
        else:
            kwargs[name] = value
    if update:
        validated = _by_constructor(chat_model, update)
        chat_model = chat_model.model_copy(update=update if validated is None else validated)
    return chat_model.bind(**kwargs) if kwargs else chat_model


def _by_constructor(chat_model: BaseChatModel, update: Mapping[str, Any]) -> dict[str, Any] | None:
    """Compute the field changes of an update by constructing the class before and after it.

    Only the differences are applied to the object, because it may hold more than its fields.

    Returns:
        The fields to change; None if the class cannot be constructed from its fields.
    """
    cls = type(chat_model)
    if not _WEIGHTS.isdisjoint(cls.model_fields):
        return None
    given = {
        name: getattr(chat_model, name)
        for name in chat_model.model_fields_set
        if name in cls.model_fields
    }
    try:
        before = cls(**_by_alias(cls, given))
        after = cls(**_by_alias(cls, {**given, **update}))
    except Exception:  # noqa: BLE001 - each class has its own errors
        return None
    changes: dict[str, Any] = {}
    for name in cls.model_fields:
        old, new = getattr(before, name, None), getattr(after, name, None)
        if name in update or (_is_plain(new) and _is_plain(old) and old != new):
            changes[name] = new
    return changes


def _by_alias(cls: type[BaseChatModel], values: Mapping[str, Any]) -> dict[str, Any]:
    if cls.model_config.get("populate_by_name") or cls.model_config.get("validate_by_name"):
        return dict(values)
    return {cls.model_fields[name].alias or name: value for name, value in values.items()}


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str | SecretStr)


def with_call_options(model: Runnable[Any, Any], options: Mapping[str, Any]) -> Runnable[Any, Any]:
    """Bind call options (`tools`, `stop`, `response_format` …) to every chat model inside."""
    if not options:
        return model

    def change(chat_model: Any) -> Runnable[Any, Any]:
        given = _unparsed(chat_model, options)
        bound: Runnable[Any, Any] = (
            chat_model.bind_tools(**given) if "tools" in given else chat_model.bind(**given)
        )
        return bound

    return map_chat_models(model, change, bindable=change)


def _unparsed(chat_model: BaseChatModel, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Move `response_format` to `extra_body` if the call has tools that are not strict.

    OpenAI's client parses structured answers and rejects such tools; the API accepts them.
    """
    tools, form = options.get("tools") or (), options.get("response_format")
    strict = all(isinstance(t, dict) and t.get("function", {}).get("strict") for t in tools)
    if not tools or strict or not isinstance(form, dict) or not hasattr(chat_model, "extra_body"):
        return options
    body = {**(chat_model.extra_body or {}), "response_format": form}
    return {**{k: v for k, v in options.items() if k != "response_format"}, "extra_body": body}
