"""Presets of providers: the newest models that a provider's LangChain package knows.

The package has a profile of each model of its provider, with the date of its release. So a preset
has the models of the installed version of the package, and no list of models can become outdated
here; `moa presets --check` asks the provider which of them it serves.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from itertools import zip_longest

from langchain_core.language_models import ModelProfile

from moa_graph._compat import model_profiles
from moa_graph.models.providers import (
    AZURE_DEPLOYMENT,
    PROVIDERS,
    Environment,
    Provider,
    deployment_in,
)
from moa_graph.presets.configuration import Configuration

PROPOSERS = 3
"""Proposers of a mixture, if there are so many models; else samples of the only one."""

ALL_KEYS = "all-keys"
"""Name of the preset with a model of each provider whose key is set."""

TOGETHER_MODELS = (
    "together:deepseek-ai/DeepSeek-V4-Pro",
    "together:zai-org/GLM-5.2",
    "together:MiniMaxAI/MiniMax-M3",
    "together:openai/gpt-oss-120b",
)
"""Models of the preset `together`, because its package has no profiles. They are from public
catalogues of Together's serverless models, read on 2026-11-23."""

_LINES = {
    "openai": ("gpt-*-sol", "gpt-*-terra", "gpt-*-luna"),
    "anthropic": ("claude-sonnet-*", "claude-opus-*", "claude-haiku-*"),
    "google_genai": ("gemini-*-flash", "gemini-*", "gemini-*-flash-lite"),
    "openrouter": (
        "openai/gpt-*-sol",
        "anthropic/claude-sonnet-*",
        "google/gemini-*-flash",
        "z-ai/glm-*",
    ),
    "groq": ("openai/gpt-oss-120b", "moonshotai/kimi-*", "qwen/*", "llama-*-versatile"),
    "mistralai": ("mistral-medium-latest", "mistral-large-latest", "mistral-small-latest"),
    "deepseek": ("deepseek-*-pro", "deepseek-*-flash"),
    "xai": ("grok-*",),
    "fireworks": tuple(
        f"accounts/fireworks/models/{line}" for line in ("deepseek-*", "glm-*", "kimi-*", "qwen*")
    ),
    "bedrock_converse": (
        "global.anthropic.claude-sonnet-*",
        "global.anthropic.claude-haiku-*",
        "global.amazon.nova-*",
    ),
}
"""Lines of models by provider, as patterns of their names. A mixture has the newest model of each
line, and the first line aggregates; models for special purposes are left out."""

_SPECIAL = re.compile(
    r"preview|latest|\d{4}-?\d{2}-?\d{2}|-pro\b|-max\b|codex|embed|guard|vision|-exp\b|image|audio"
    r"|realtime|search|research|transcribe|tts|live|computer|customtools|non-reasoning|build|free$"
    r"|flashx|-vl\b|-chat\b|cyber|daybreak",
    re.IGNORECASE,
)
"""Words in names of models that are not for general use, or cost many times as much."""


def family(name: str, environment: Environment = os.environ) -> Configuration:
    """Return the preset of a provider, or of all providers whose keys are set.

    Args:
        name: `Provider.short` of a provider in `FAMILIES`, or `ALL_KEYS`.
        environment: Environment variables.

    Raises:
        ValueError: If the provider's package is not installed, or a variable that names the
            models is not set. The message has the command that helps.
    """
    if name == ALL_KEYS:
        return _across(environment)
    provider = FAMILIES[name]
    if not provider.is_installed:
        raise ValueError(
            f"The preset {name!r} needs the package of {provider.title}: "
            f"pip install {provider.package}"
        )
    models = models_of(provider, environment)
    key = " and ".join(provider.keys[0] + provider.needs)
    return mixture(models, name=name, description=f"{_what(provider)} Needs {key}.")


def mixture(models: list[str], *, name: str, description: str) -> Configuration:
    """Return a mixture of models, of which the first one aggregates; one alone is sampled.

    Args:
        models: Models as `"provider:model"`, at least one.
        name: Name of the mixture.
        description: One sentence.
    """
    proposers: list[object] = list(models)
    if len(models) == 1:
        proposers = [{"model": models[0], "samples": PROPOSERS}]
    return Configuration(
        name=name, description=description, proposers=proposers, aggregator=models[0], layers=2
    )


def models_of(provider: Provider, environment: Environment = os.environ) -> list[str]:
    """Return the models of a provider's preset, as `"provider:model"`; the first aggregates.

    Raises:
        ValueError: If the models cannot be known. The message has the command that helps.
    """
    if provider.name == "together":
        return list(TOGETHER_MODELS)
    if provider.name == "azure_openai":
        if not (deployment := deployment_in(environment)):
            raise ValueError(
                "Azure's models have the names of your deployments: "
                f"export {AZURE_DEPLOYMENT[0]}=NAME"
            )
        return [f"{provider.name}:{deployment}"]
    found = _newest(model_profiles(provider.package), _LINES[provider.name])
    if not found:
        raise ValueError(
            f"The installed package of {provider.title} lists no models: "
            f"pip install --upgrade {provider.package}"
        )
    return [f"{provider.name}:{model}" for model in found]


def _newest(profiles: dict[str, ModelProfile], lines: tuple[str, ...]) -> list[str]:
    """Return the newest model of each line, then the second newest of each, up to the number."""
    known = list(_by_date(profiles))
    by_line = [[model for model in known if _belongs(model, line)] for line in lines]
    in_turn = [model for turn in zip_longest(*by_line) for model in turn if model]
    usual = [model for model in known if not _special(model)]
    found = dict.fromkeys(in_turn or usual or known)  # lines may have models in common
    return list(found)[: max(PROPOSERS, len(lines))]


def _belongs(model: str, line: str) -> bool:
    return fnmatchcase(model, line) and _special(model) <= _special(line)


def _special(name: str) -> set[str]:
    return {word.lower() for word in _SPECIAL.findall(name)}


def _by_date(profiles: dict[str, ModelProfile]) -> Iterator[str]:
    """Return the names of models that answer in text and are not deprecated, newest first."""
    usable = [
        (str(profile.get("release_date", "")), name)
        for name, profile in profiles.items()
        if profile.get("tool_calling")
        and profile.get("text_outputs")
        and not profile.get("image_outputs")
        and not profile.get("audio_outputs")
        and profile.get("status") not in ("deprecated", "retired")
    ]
    return (name for _, name in sorted(usable, reverse=True))


def _across(environment: Environment) -> Configuration:
    models = []
    for provider in PROVIDERS.values():
        if provider.key_in(environment) and provider.is_installed:
            try:
                models.append(models_of(provider, environment)[0])
            except ValueError:  # a deployment without a name
                continue
    if not models:
        names = ", ".join(provider.keys[0][0] for provider in PROVIDERS.values())
        raise ValueError(f"The preset {ALL_KEYS!r} needs at least one API key. Keys are: {names}.")
    return mixture(models, name=ALL_KEYS, description=ALL_KEYS_DESCRIPTION)


def _what(provider: Provider) -> str:
    if provider.name == "azure_openai":
        return "Three samples of your deployment on Azure, which also aggregates."
    return f"The newest models of {provider.title} that {provider.package} lists, two layers."


ALL_KEYS_DESCRIPTION = "One model of each provider whose key is set; the first one aggregates."

FAMILIES = {p.short: p for p in PROVIDERS.values() if p.name != "together"}
"""Providers that have a preset made from their profiles, by the preset's name."""
