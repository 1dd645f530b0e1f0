"""Build, configure, inspect and fingerprint models."""

from moa_graph.models.inputs import brings_prompt, input_for, nested_graph
from moa_graph.models.model import Model, ModelLike, as_model, build_chat_model
from moa_graph.models.runnables import (
    answering_name,
    chat_models_in,
    has_tools,
    host_of,
    is_same_model,
    map_chat_models,
    max_tokens_of,
    name_of,
    name_of_chat_model,
    own_retries,
    provider_of,
    repeats_by_itself,
    secrets_of,
    window_of,
    with_connections_of,
    without_llm_cache,
    without_own_retries,
)
from moa_graph.models.settings import Settings, with_call_options, with_settings

__all__ = [
    "Model",
    "ModelLike",
    "Settings",
    "answering_name",
    "as_model",
    "brings_prompt",
    "build_chat_model",
    "chat_models_in",
    "has_tools",
    "host_of",
    "input_for",
    "is_same_model",
    "map_chat_models",
    "max_tokens_of",
    "name_of",
    "name_of_chat_model",
    "nested_graph",
    "own_retries",
    "provider_of",
    "repeats_by_itself",
    "secrets_of",
    "window_of",
    "with_call_options",
    "with_connections_of",
    "with_settings",
    "without_llm_cache",
    "without_own_retries",
]
