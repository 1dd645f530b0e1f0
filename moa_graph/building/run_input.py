"""Checks of what a run is given, before LangGraph reads it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_messages
from langgraph.types import Command, Overwrite

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
        ValueError: If the input has no `messages`, or they are not messages.
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
    if input is None or isinstance(input, Command):
        return
    if isinstance(input, Mapping):
        _check_messages(input)
    elif isinstance(input, BaseMessage) or not hasattr(input, "messages"):
        raise TypeError(
            f"The input must be a mapping with `messages`, not {type(input).__name__}: {_VALID}. "
            "For a chat model, which takes a text or messages, use ChatMoA(graph=moa)."
        )


def _check_messages(input: Mapping[str, Any]) -> None:
    if "messages" not in input:
        if input:  # an empty one is as good as a conversation without a question
            raise ValueError(
                f"The input has {', '.join(map(repr, input))}, but no `messages`: {_VALID}."
            )
        return
    messages = input["messages"]
    if isinstance(messages, Overwrite) or (
        isinstance(messages, Mapping) and "__overwrite__" in messages  # its form in JSON
    ):
        return
    try:
        convert_to_messages(messages if isinstance(messages, list | tuple) else [messages])
    except Exception as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"`messages` must be a text, a message or a list of these: {_VALID}. ({reason})"
        ) from error
