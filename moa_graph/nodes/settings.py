"""What a run gives its models' calls besides the messages."""

from __future__ import annotations

from typing import Any

from moa_graph.models import Settings
from moa_graph.nodes.step import Step

_ACTS = {"tools", "response_format"}


def proposer_settings(step: Step) -> Settings:
    """Return what the run sets for proposers."""
    return Settings.of(
        temperature=step.context.proposer_temperature,
        max_tokens=step.context.proposer_max_tokens,
    )


def aggregator_settings(step: Step, *, acts: bool = True) -> Settings:
    """Return what the run sets for the aggregator.

    Args:
        step: The node's view of the run.
        acts: Whether with what its answer is given besides: tools, a form, `stop` …
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
    """What this run gives the aggregator's call besides its messages: tools, a form, `stop` …"""
    given = step.context.aggregator_options
    return {**(given.given() if given else {}), **step.context.call_options}


def must_act(step: Step) -> bool:
    """Whether the answer may call tools or has a form, so that only the aggregator can give it."""
    return not _ACTS.isdisjoint(given_options(step))
