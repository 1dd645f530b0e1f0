"""The text of a first configuration file, with a comment for each part."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from moa_graph.models.text import utf8
from moa_graph.presets.available import Choice

_START = """\
# A Mixture-of-Agents: several models answer, and one writes the answer from theirs.
#
#     moa ask --config {path} "What are 3 fun things to do in SF?"
#
# Written by `moa init` from what was there: {because}.
# API keys are not in this file; they are read from the environment.

name = {name}
"""
_PROPOSERS = """
# The models that answer in parallel, as "provider:model". One can also be a table, with
# a name, a role and settings of its own:
#   {{ model = {example}, name = "critic", prompt = "Look for errors.", samples = 2 }}
proposers = {proposers}
"""
_AGGREGATOR = """
# The model that writes the answer from the proposals; or a strategy without a model, such as
# "most_central", which answers with the proposal that is most similar to the others.
aggregator = {aggregator}

# Layers, the aggregator's included. With 3, the proposers see each other's first answers.
layers = {layers}
"""
_SETTINGS = """
# For models without their own settings; by default those of the provider.
{temperature}
{max_tokens}
"""
_CALLS = """
# Calls at a time, by provider or by "provider:model", and retries after errors that can pass.
{calls}
"""
_LIMITS = """
# The most that a run may take. Dollars need: pip install 'moa-graph[prices]'
# [limits]
# timeout = 120
# tokens = 50000
# usd = 0.10
"""
_ALSO = """
# What else was there, in place of the lines above:
"""


def starter(choice: Choice, others: Sequence[Choice], path: str) -> str:
    """Return a commented TOML file.

    Args:
        choice: The mixture of the file.
        others: Other mixtures that could be used, which are written as comments.
        path: Name of the file, for the example in it.
    """
    made = choice.configuration
    entries = made.proposers if isinstance(made.proposers, list) else [made.proposers]
    temperature = (
        "# temperature = 0.7" if made.temperature is None else f"temperature = {made.temperature}"
    )
    max_tokens = (
        "# max_tokens = 2048" if made.max_tokens is None else f"max_tokens = {made.max_tokens}"
    )
    limited = bool(made.calls and made.calls.concurrent)
    calls = inline({"concurrent": dict(made.calls.concurrent)}) if made.calls and limited else ""
    parts = [
        _START.format(path=quoted(path), because=choice.because, name=inline(made.name)),
        _PROPOSERS.format(example=inline(next(made.models())), proposers=lines(entries)),
        _AGGREGATOR.format(aggregator=inline(made.aggregator), layers=made.depth),
        _SETTINGS.format(temperature=temperature, max_tokens=max_tokens),
        _CALLS.format(
            calls=f"calls = {calls}"
            if calls
            else "# calls = { retries = 3, concurrent = { openai = 4 } }"
        ),
        *_others(others),
        _LIMITS,
    ]
    return "".join(parts)


def quoted(path: str) -> str:
    """Return the name of a file as a shell takes it.

    Raises:
        ValueError: If it has a character that cannot be printed, such as a line feed.
    """
    if not path.isprintable():
        raise ValueError(f"The name of the file has characters that cannot be printed: {path!r}.")
    return shlex.quote(path)


def _others(others: Sequence[Choice]) -> list[str]:
    if not others:
        return []
    told = [_ALSO]
    for other in others:
        made = other.configuration
        told.append(f"# {other.because}:\n")
        text = f"proposers = {lines(made.proposers)}\naggregator = {inline(made.aggregator)}\n"
        told += [f"#   {line}\n" for line in text.splitlines()]
    return told


def lines(entries: Sequence[Any]) -> str:
    """Return a TOML array with an entry on each line."""
    return "[\n" + "".join(f"  {inline(entry)},\n" for entry in entries) + "]"


def inline(value: Any) -> str:
    """Return a value of JSON as TOML on one line.

    Raises:
        TypeError: If TOML has no such value, such as None.
    """
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{_key(k)} = {inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(inline, value)) + "]"
    if value is None or not isinstance(value, str | bool | int | float):
        raise TypeError(f"TOML has no {type(value).__name__}.")
    return _json(value)


def _key(name: str) -> str:
    return (
        name if name.isascii() and name.replace("_", "").replace("-", "").isalnum() else _json(name)
    )


def _json(value: Any) -> str:
    """Return a string, a number or a boolean as in JSON, of which TOML forbids one character."""
    value = utf8(value) if isinstance(value, str) else value
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
