"""Settings of a run for its models' calls."""

from __future__ import annotations

from typing import Any

from moa_graph.models import Settings
from moa_graph.nodes.step import Step

_ACTS = {"tools", "response_format"}


def proposer_settings(step: Step) -> Settings:
    """Return the run's settings for proposers."""
    return Settings.of(
        temperature=step.context.proposer_temperature,
        max_tokens=step.context.proposer_max_tokens,
    )


def aggregator_settings(step: Step, *, acts: bool = True) -> Settings:
    """Return the run's settings for the aggregator.

    Args:
        step: The node's view of the run.
        acts: Whether to include the call options: tools, a response format, `stop` …
    """
    options = given_options(step) if acts else {}
    return Settings.of(
        **{
            "temperature": step.context.aggregator_temperature,
            "max_tokens": step.context.aggregator_max_tokens,
            **options,
        }
    )


def given_options(step: Step) -> dict[str, Any]:
    """Return the options of the aggregator's call: tools, a response format, `stop` …"""
    return step.context.options


def must_act(step: Step) -> bool:
    """Return whether the run has tools or a response format, which need the aggregator."""
    return not _ACTS.isdisjoint(given_options(step))
