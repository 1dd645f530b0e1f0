"""Convert messages to a model's input, and detect models with their own prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AnyMessage, HumanMessage, get_buffer_string
from langchain_core.runnables import (
    Runnable,
    RunnableBranch,
    RunnableLambda,
    RunnableSequence,
    RunnableWithFallbacks,
)
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import (
    DynamicRunnable,
    RunnableConfigurableAlternatives,
)
from langgraph.pregel import Pregel

from moa_graph._compat import takes_all_configuration
from moa_graph.models.decisions import decides

_JUDGES = ("judge=", "tie=")  # roles of models that give a verdict


def input_for(model: Runnable[Any, Any], messages: Sequence[AnyMessage]) -> Any:
    """Convert messages to the input that the model takes.

    A graph takes a state. A prompt takes its variables: a placeholder gets the messages, any
    other variable gets their text. All other models take the messages.
    """
    first = first_step(model)
    if isinstance(first, Pregel):
        return {"messages": list(messages)}
    if (needs := _prompt_variables(first)) is not None:
        placeholders, variables = needs
        if placeholders and variables and isinstance(messages[-1], HumanMessage):
            # Give the question only once: the placeholder gets the messages before it.
            *messages, question = messages
            text = str(question.text)
        else:
            text = str(messages[0].text) if len(messages) == 1 else get_buffer_string(messages)
        return {name: list(messages) for name in placeholders} | dict.fromkeys(variables, text)
    return list(messages)


def brings_prompt(model: Runnable[Any, Any]) -> bool:
    """Return whether a model may add its own system message before its input.

    This applies to agents and other graphs, and to `prompt | model`, also among fallbacks or
    inside a mixture.
    """
    if isinstance(model, Pregel) or _prompt_variables(model) is not None:
        return True
    if isinstance(model, BaseChatModel):
        inside = getattr(model, "models", ()) if model._llm_type == "moa" else ()  # noqa: SLF001
        return any(one.built is not None and brings_prompt(one.built) for one in inside)
    return any(map(brings_prompt, _parts_of(model)))


def _parts_of(model: Runnable[Any, Any]) -> list[Any]:
    """Return the Runnables directly inside one: its alternatives, or its steps."""
    parts: list[Any] = []
    if isinstance(model, RunnableBindingBase):
        parts = [model.bound]
    elif isinstance(model, RunnableWithFallbacks):
        parts = list(model.runnables)
    elif isinstance(model, RunnableSequence):
        parts = model.steps
    elif isinstance(model, RunnableBranch):
        parts = [model.default, *(way for _, way in model.branches)]
    elif isinstance(model, RunnableConfigurableAlternatives):
        parts = [model.default, *model.alternatives.values()]
    elif isinstance(model, DynamicRunnable):
        parts = [model.default]
    return [part for part in parts if isinstance(part, Runnable)]


def nested_graph(model: Runnable[Any, Any]) -> Pregel[Any, Any, Any, Any] | None:
    """Return the compiled graph in the model, such as an agent; None if it is not a graph."""
    first = first_step(model)
    return first if isinstance(first, Pregel) else None


def first_step(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the Runnable that receives the input: inside bindings, the first step of a chain."""
    if isinstance(model, RunnableBindingBase):
        return first_step(model.bound)
    if isinstance(model, RunnableWithFallbacks):
        return first_step(model.runnable)
    if isinstance(model, RunnableSequence):
        return first_step(model.first)
    if isinstance(model, DynamicRunnable):
        return first_step(model.default)
    return model


def same_input(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    """Return the model; if its fallbacks take different inputs, make all of them take messages."""
    if not isinstance(model, RunnableWithFallbacks):
        return model
    alternatives = list(model.runnables)
    if not any(_takes_messages(a) for a in alternatives) or all(map(_takes_messages, alternatives)):
        return model
    first, *others = (a if _takes_messages(a) else _from_messages(a) for a in alternatives)
    return model.model_copy(update={"runnable": first, "fallbacks": others})


def _takes_messages(model: Runnable[Any, Any]) -> bool:
    first = first_step(model)
    return not isinstance(first, Pregel) and _prompt_variables(first) is None


def _from_messages(model: Runnable[Any, Any]) -> Runnable[Any, Any]:
    return RunnableLambda(lambda messages: input_for(model, messages)) | model


def _prompt_variables(prompt: Runnable[Any, Any]) -> tuple[list[str], list[str]] | None:
    """Return the placeholders and the other variables of a prompt; None if it is not a prompt.

    Prompts are recognized by their attributes, because importing LangChain's prompts is slow.
    """
    if isinstance(prompt, BaseChatModel):
        return None
    variables = getattr(prompt, "input_variables", None)
    if variables is None or not hasattr(prompt, "format_prompt"):
        return None
    messages = getattr(prompt, "messages", ())
    placeholders = [m.variable_name for m in messages if hasattr(m, "variable_name")]
    return placeholders, [name for name in variables if name not in placeholders]


def check_kind(model: Runnable[Any, Any], role: str) -> None:
    """Check that a Runnable can be used as a model; tools and prompts are found by attributes.

    Raises:
        TypeError: If it is a prompt, a tool, or a graph without `messages` in its state.
        ValueError: If it is `init_chat_model(configurable_fields='any')` without a prefix.
    """
    first = first_step(model)
    if isinstance(first, Pregel) and "messages" not in first.channels:
        raise TypeError(f"{role}: the graph {first.name!r} has no `messages` in its state.")
    if takes_all_configuration(first):
        raise ValueError(
            f"{role} is init_chat_model(configurable_fields='any'), which would read every "
            "key of a graph's configuration as a model setting: give it a config_prefix, or name "
            "the fields."
        )
    if decides(first) and not any(word in role for word in _JUDGES):
        raise TypeError(
            f"{role} is a decision model, which writes no text. Use it as a judge, such as "
            "Rank(judge=…), and a chat model here."
        )
    if hasattr(model, "format_prompt"):
        raise TypeError(f"{role} must be a model, but is a prompt. Use `prompt | model`.")
    if hasattr(model, "args_schema"):
        raise TypeError(f"{role} must be a model, but is a tool. Use an agent that has this tool.")


def check_prompt(model: Runnable[Any, Any], role: str) -> None:
    """Check that a prompt needs only the conversation.

    Raises:
        ValueError: If it has more variables; the message names them and the fix.
    """
    needs = _prompt_variables(first_step(model))
    if needs is not None and len(needs[1]) > 1:
        names = ", ".join(needs[1])
        raise ValueError(
            f"{role}: its prompt needs {names}, but a model gets only the conversation. "
            "Keep one variable or a MessagesPlaceholder, and fill the others with `.partial()`."
        )
