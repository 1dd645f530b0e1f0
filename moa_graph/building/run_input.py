"""Checks of what a run is given, before LangGraph reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import BaseMessage
from langgraph.types import Command

from moa_graph.building.written import check_written
from moa_graph.context import MoAContext

_VALID = 'moa.invoke({"messages": "What are 3 fun things to do in SF?"})'
_SETTINGS = {*MoAContext.model_fields, "temperature", "max_tokens"}


def check_run(input: Any, config: Any, options: Iterable[str]) -> None:
    """Check what a run is given.

    Args:
        input: `{"messages": …}`, any object with `messages` such as a prompt's value, None to
            resume a thread, or a `Command`.
        config: LangChain's configuration of the run.
        options: Names of the keyword arguments.

    Raises:
        TypeError: If the input or the configuration has the wrong type, or a setting of the run is
            given in another place than `context`. The error has the fix.
        ValueError: If the input has no `messages`, or they are not messages, or a record that is
            written into the state has a wrong type.
    """
    if config is not None and not isinstance(config, Mapping):
        raise TypeError(
            f"The second argument, config, must be a mapping, not {type(config).__name__}. "
            "Settings of a run are its context: moa.invoke(input, context=MoAContext(layers=2))."
        )
    if misplaced := sorted(_SETTINGS & {*options, *(config or ())}):
        raise TypeError(
            f"{', '.join(map(repr, misplaced))}: settings of a run are fields of its context, such "
            "as moa.invoke(input, context=MoAContext(proposer_temperature=1)). Fields are: "
            f"{', '.join(MoAContext.model_fields)}."
        )
    if input is None:
        return
    if isinstance(input, Command):
        check_written(input)
    elif isinstance(input, Mapping):
        _check_has_messages(input)
        check_written(input, example=f": {_VALID}")
    elif isinstance(input, BaseMessage) or not hasattr(input, "messages"):
        raise TypeError(
            f"The input must be a mapping with `messages`, not {type(input).__name__}: {_VALID}. "
            "For a chat model, which takes a text or messages, use ChatMoA(graph=moa)."
        )


def _check_has_messages(input: Mapping[str, Any]) -> None:
    if input and "messages" not in input:  # an empty one is one without a question
        raise ValueError(
            f"The input has {', '.join(map(repr, input))}, but no `messages`: {_VALID}."
        )
