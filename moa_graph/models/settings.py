"""Settings of one run, given to a model that is built already: temperature, limits, tools …"""

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

_FIELDS = {  # of a setting, what providers' chat models and their APIs call it
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
}
"""Settings that a call can do without; tools and the answer's form are none of them."""

_WORDS = {"stop", "seed"}  # words of other sentences, too
_BY_BIND = {"stop"}  # LangChain's own argument, which each class translates
_REFUSED = re.compile(
    r"unsupported|not support|unexpected|unknown|unrecogni[sz]ed|invalid|not (?:a )?"
    r"(?:valid|allowed|permitted)|extra (?:inputs|fields)|deprecated|must be|should be"
    r"|can(?:not| ?not| only)|only|not available|remove|out of range|at most"
    r"|too (?:large|high|low|small)|got multiple|incompat",
    re.IGNORECASE,
)
_MOST_KEPT = 256
_WEIGHTS = {"model_path", "pipeline"}  # a class with these loads weights when it is constructed


@dataclass(frozen=True)
class Settings:
    """What one run gives a model's calls besides the messages.

    Args:
        values: By name, what sampling is set to (`temperature`, `max_tokens`, `top_p`, `seed` …).
        options: What else the call is given: `tools`, `response_format`, `stop` …
    """

    values: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """Settings by name; those that are None are not set."""
        given = {name: value for name, value in given.items() if value is not None}
        values = {k: v for k, v in given.items() if k in _FIELDS and k not in _BY_BIND}
        return cls(values, {k: v for k, v in given.items() if k not in values})

    def with_(self, **values: Any) -> Settings:
        """Return the settings with others beside, or instead."""
        return replace(self, values={**self.values, **values})

    def without(self, names: Collection[str]) -> Settings:
        """Return the settings without some."""
        if not names:
            return self
        return Settings(
            {k: v for k, v in self.values.items() if k not in names},
            {k: v for k, v in self.options.items() if k not in names},
        )

    def applied(self, model: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """Return the model with these settings, in every chat model inside."""
        if not self.values and not self.options:
            return model
        model = with_settings(model, self.values)
        return with_call_options(model, self.options)

    def refused(self, error: BaseException) -> set[str]:
        """Which of the settings an error says that the provider, or its client, does not take.

        Args:
            error: What a call with these settings raised.

        Returns:
            Names of settings that the call can do without; empty where the error is about
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
            # A refused request that names a sampling setting is about that.
            if name in _FIELDS and (says_so or (name not in _WORDS and status_of(error)))
        ]
        return {
            name for name in given if named in _FIELDS[name] or any(
                re.search(rf"(?<![A-Za-z_]){re.escape(spelled)}(?![A-Za-z_])", text, re.IGNORECASE)
                for spelled in _FIELDS[name]
            )
        }  # fmt: skip


def with_settings(model: Runnable[Any, Any], values: Mapping[str, Any]) -> Runnable[Any, Any]:
    """Give every chat model inside other values of its settings.

    They go through the validation of the model's class, which may drop or rename them. What the
    class has no field for is bound to the call.

    Args:
        model: The model.
        values: By the names of `Settings.values`.
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
    key = (id(chat_model), tuple(sorted(values.items())))
    with _lock:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key][1]
    changed = _changed(chat_model, values)
    with _lock:
        _kept[key] = (chat_model, changed)  # held, so that no other model can have its id
        while len(_kept) > _MOST_KEPT:
            _kept.popitem(last=False)
    return changed


_kept: OrderedDict[Any, tuple[BaseChatModel, Runnable[Any, Any]]] = OrderedDict()
_lock = sync.Lock()


def _changed(chat_model: BaseChatModel, values: Mapping[str, Any]) -> Runnable[Any, Any]:
    fields = type(chat_model).model_fields
    update: dict[str, Any] = {}
    kwargs: dict[str, Any] = {}
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
    """Return what the class makes of its fields when they are given with these changes.

    The object itself is kept and only told the difference: it may hold more than its fields.

    Returns:
        The fields to change; None where the class cannot be constructed anew from its fields.
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
    except Exception:  # noqa: BLE001 - classes refuse in their own ways
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
    """Give every chat model inside the options of one call: `tools`, `stop`, `response_format` …"""
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
    """OpenAI's client parses answers in a form, and so refuses tools that are not strict beside
    one. The API does not: it gets the form without the client's help.
    """
    tools, form = options.get("tools") or (), options.get("response_format")
    strict = all(isinstance(t, dict) and t.get("function", {}).get("strict") for t in tools)
    if not tools or strict or not isinstance(form, dict) or not hasattr(chat_model, "extra_body"):
        return options
    body = {**(chat_model.extra_body or {}), "response_format": form}
    return {**{k: v for k, v in options.items() if k != "response_format"}, "extra_body": body}
