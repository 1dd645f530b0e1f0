"""Limits on the size and the models of a mixture on this server."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from moa_graph.building.parts import as_answer
from moa_graph.models.local import LOCAL_MODELS
from moa_graph.presets.configuration import Configuration
from moa_graph.server.settings import SETTINGS
from moa_graph.state import MoAState
from moa_graph.strategies.aggregate import AnswerStrategy

_CHARACTERS_OF_A_TOKEN = 4  # approximately
_LONGEST_TOKEN = 8  # characters; the providers have counted the tokens of real proposals
_PAIR = 2  # a state update may be a list of pairs: the name of a channel, and its value
_ALL = ("proposers", "aggregator", "route")


def check_bounds(configuration: Configuration, given: Collection[str] = _ALL) -> None:
    """Check that a mixture is within the bounds of this server.

    Args:
        configuration: Mixture to check.
        given: Fields whose models and sizes are checked.

    Raises:
        ValueError: If it has too many layers, proposers or samples, or a model that is not
            allowed. The message names the bound and its setting.
    """
    _check("layers", configuration.depth, SETTINGS.max_layers, "MOA_MAX_LAYERS")
    for field in given:
        value = getattr(configuration, field)
        for model, own in configuration.entries([field]):
            _check_model(model, own)
        for embeddings in _embeddings_in(value):
            _check_model(embeddings, {})
    widths = []
    for layer in configuration.described_layers():
        reserve = layer.get("reserve") or []
        samples = [_samples(entry) for entry in [*layer["proposers"], *reserve]]
        most = max(samples, default=0)
        if "proposers" in given:
            _check("samples of a proposer", most, SETTINGS.max_samples, "MOA_MAX_SAMPLES")
            width = sum(samples)
            _check("proposers of a layer", width, SETTINGS.max_proposers, "MOA_MAX_PROPOSERS")
        widths.append(sum(map(_samples, layer["proposers"])))
    if "aggregator" in given and configuration.writer is None:
        answer = as_answer(configuration.aggregator)
        own_members = answer.members(widths[-1]) if isinstance(answer, AnswerStrategy) else []
        most = len(own_members)
        _check("aggregations of subsets", most, SETTINGS.max_proposers, "MOA_MAX_PROPOSERS")
    if isinstance(configuration.route, Mapping):
        drawn = _samples(configuration.route)
        _check("samples of the route", drawn, SETTINGS.max_samples, "MOA_MAX_SAMPLES")


def _samples(entry: Any) -> int:
    return int(entry.get("samples") or 1) if isinstance(entry, Mapping) else 1


def _embeddings_in(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            if name == "embeddings" and isinstance(inner, str):
                yield inner
            elif name != "schema":
                yield from _embeddings_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _embeddings_in(inner)


def _check_model(model: str, given: Mapping[str, Any]) -> None:
    """Check that a model is allowed and that its `max_tokens` is within bounds.

    Raises:
        ValueError: If the model is not allowed, or its `max_tokens` is too large.
    """
    if not SETTINGS.allows(model):
        raise ValueError(f"This server does not allow the model {model!r} (MOA_ALLOWED_MODELS).")
    tokens = given.get("max_tokens") or 0
    _check("tokens of an answer", tokens, SETTINGS.max_tokens, "MOA_MAX_TOKENS")


def check_names_no_file(configuration: Configuration) -> None:
    """Check that local models are built-in ones, so that a client cannot name a server file.

    Raises:
        ValueError: If a local model is unknown. The message lists the known ones.
    """
    for model, _ in configuration.entries():
        provider, _, name = model.partition(":")
        if provider.strip().lower() == "local" and name not in LOCAL_MODELS:
            there = ", ".join(LOCAL_MODELS)
            raise ValueError(
                f"The assistant's context: there is no local model {name!r}; there are {there}."
            )


def check_question(given: Any) -> None:
    """Check that an input has at most as many messages and tokens as a run may use.

    Args:
        given: Input of a run, or a part of it, or None.

    Raises:
        TooLarge: If it has too many messages.
        ValueError: If the input is too long.
    """
    if (messages := _most_messages(given)) > SETTINGS.max_messages:
        raise TooLarge(too_many(messages))
    tokens = len(json.dumps(given, default=str)) // _CHARACTERS_OF_A_TOKEN if given else 0
    _check("tokens of input", tokens, SETTINGS.max_tokens, "MOA_MAX_TOKENS")


def _most_messages(value: Any) -> int:
    """Return the number of messages in the longest list of them, at any depth."""
    named: Iterable[Any]
    if isinstance(value, Mapping):
        named, inner = value.items(), list(value.values())
    elif isinstance(value, list | tuple):
        named, inner = ([value] if len(value) == _PAIR else ()), list(value)
    else:
        return 0
    lists = (items for name, items in named if name == "messages" and isinstance(items, list))
    return max([*map(_number_of, lists), *map(_most_messages, inner)], default=0)


def _number_of(messages: Iterable[Any]) -> int:
    """Return the number of messages; each part of a message's content counts as one."""
    contents = (
        message.get("content") if isinstance(message, Mapping) else getattr(message, "content", "")
        for message in messages
    )
    return sum(max(1, len(content)) if isinstance(content, list) else 1 for content in contents)


def check_state(state: MoAState) -> None:
    """Check that a conversation and its proposals are not larger than those of a run may be.

    Args:
        state: State of a graph.

    Raises:
        TooLarge: If the conversation has too many messages.
        ValueError: If its texts are too long.
    """
    messages = state["messages"]
    if (number := _number_of(messages)) > SETTINGS.max_messages:
        raise TooLarge(
            f"The conversation has {number:,} messages and parts of messages; this server takes at "
            f"most {SETTINGS.max_messages:,} (MOA_MAX_MESSAGES). Start a new thread."
        )
    texts = sum(_characters(message.content) for message in messages)
    tokens = texts // _CHARACTERS_OF_A_TOKEN
    _check("tokens of the conversation", tokens, SETTINGS.max_tokens, "MOA_MAX_TOKENS")
    texts = sum(_characters(record) for record in state.get("proposals") or ())
    tokens = texts // _LONGEST_TOKEN
    _check("tokens of the proposals", tokens, SETTINGS.max_tokens, "MOA_MAX_TOKENS")


def _characters(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_characters, value.values()))
    return sum(map(_characters, value)) if isinstance(value, list) else 0


class TooLarge(ValueError):
    """Error for an input with too many messages."""


def too_many(messages: int) -> str:
    """Return the sentence for an input with too many messages."""
    return (
        f"The request has {messages:,} messages; this server takes at most "
        f"{SETTINGS.max_messages:,} (MOA_MAX_MESSAGES)."
    )


def _check(what: str, value: int, most: int, setting: str) -> None:
    if value > most:
        raise ValueError(f"{value} {what} exceed the maximum of {most} on this server ({setting}).")
