"""Mixtures for tables of options: each option by its name, put where it belongs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moa_graph import CallPolicy, Layer, MoAGraph, References, RunLimits, create_moa

_OF_LAYERS = {
    "min_proposals", "quorum", "grace", "timeout", "hedge", "select", "until", "reserve"
}  # fmt: skip
_OF_REFERENCES = {"prompt", "place", "fenced", "window", "reasoning"}
_OF_LIMITS = {"run_timeout": "timeout", "tokens": "tokens", "usd": "usd", "prices": "prices"}
_OF_CALLS = {"retries", "concurrent"}


def mixture_of(proposers: Any, aggregator: Any, **options: Any) -> MoAGraph:
    """A graph whose layers all have the same policy.

    Args:
        proposers: Models for every layer, or lists of models.
        aggregator: As for `create_moa`.
        **options: Arguments of `create_moa`, `Layer`, `References`, `RunLimits` (its timeout as
            `run_timeout`) and `CallPolicy`.
    """
    policy = {name: options.pop(name) for name in _OF_LAYERS & options.keys()}
    shown = {name: options.pop(name) for name in _OF_REFERENCES & options.keys()}
    limits = {own: options.pop(name) for name, own in _OF_LIMITS.items() if name in options}
    calls = {name: options.pop(name) for name in _OF_CALLS & options.keys()}
    if shown:
        options["references"] = References(**shown)
    if limits:
        options["limits"] = RunLimits(**limits)
    if calls:
        options["calls"] = CallPolicy(**calls)
    if policy and isinstance(proposers, Sequence):
        nested = all(isinstance(entry, list) for entry in proposers)
        proposers = (
            [Layer(entry, **policy) for entry in proposers]
            if nested
            else Layer(proposers, **policy)
        )
    return create_moa(proposers, aggregator, **options)
