"""Providers of models: their packages, and the environment variables with their API keys."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moa_graph._compat import clients_of
from moa_graph.errors import MoAError

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

Environment = Mapping[str, str]
"""Environment variables by name. A variable that is empty or blank counts as not set."""


@dataclass(frozen=True)
class Provider:
    """A provider, as the LangChain package for it reads it from the environment."""

    name: str
    """Name in `"provider:model"`, as LangChain spells it."""
    short: str
    """Name in a list of presets."""
    title: str
    package: str
    """Package on PyPI."""
    keys: tuple[tuple[str, ...], ...]
    """Variables of the API key. Each entry is one way: variables that are all needed."""
    site: str
    """Page that explains how to get a key."""
    needs: tuple[str, ...] = ()
    """Other variables that are needed, too."""
    without_key: tuple[str, ...] = ()
    """Variables of ways to sign in without one of `keys`, which the package checks itself."""
    in_files: bool = False
    """Whether the package also finds credentials in files, or on a machine in the cloud."""
    bases: tuple[str, ...] = ()
    """Variables with another base URL, in the order in which the package reads them."""

    @property
    def is_installed(self) -> bool:
        """Whether the package is installed; it is not imported."""
        return importlib.util.find_spec(self.package.replace("-", "_")) is not None

    def key_in(self, environment: Environment) -> tuple[str, ...]:
        """Return the names of the variables that hold the key; empty if there is no key."""
        for way in self.keys:
            if all(is_set(environment, name) for name in way):
                return way
        return ()

    def found_in(self, environment: Environment) -> tuple[str, ...]:
        """Return as `key_in`; if there is no key, the variables that hold a part of one."""
        parts = [tuple(n for n in way if is_set(environment, n)) for way in self.keys]
        return self.key_in(environment) or next(filter(None, parts), ())

    def base_in(self, environment: Environment) -> str:
        """Return the base URL that a variable sets; empty if none does."""
        return next((environment[n].strip() for n in self.bases if is_set(environment, n)), "")

    def missing_in(self, environment: Environment) -> tuple[str, ...]:
        """Return the names of the variables to set before a model can be built."""
        others = (*self.without_key, *_FOR_ALL)
        signs_in = self.in_files or any(is_set(environment, name) for name in others)
        key = () if signs_in or self.key_in(environment) else self.keys[0]
        if not self.key_in(environment) and (part := self.found_in(environment)):
            key = next(way for way in self.keys if part[0] in way)  # half of a key is an error
            key = tuple(name for name in key if name not in part)
        return (*key, *(name for name in self.needs if not is_set(environment, name)))


_IN_HEADERS = re.compile(r"[!-~]+")
_FOR_ALL = ("LANGSMITH_GATEWAY",)  # its own key stands for those of all providers

PROVIDERS = {
    provider.name: provider
    for provider in (
        Provider(
            name="together",
            short="together",
            title="Together",
            package="langchain-together",
            keys=(("TOGETHER_API_KEY",),),
            site="https://api.together.ai/settings/api-keys",
            bases=("TOGETHER_API_BASE", "TOGETHER_BASE_URL"),
        ),
        Provider(
            name="openai",
            short="openai",
            title="OpenAI",
            package="langchain-openai",
            keys=(("OPENAI_API_KEY",),),
            site="https://platform.openai.com/api-keys",
            bases=("OPENAI_API_BASE", "OPENAI_BASE_URL"),
        ),
        Provider(
            name="anthropic",
            short="anthropic",
            title="Anthropic",
            package="langchain-anthropic",
            keys=(("ANTHROPIC_API_KEY",),),
            site="https://platform.claude.com/settings/keys",
            without_key=(
                "ANTHROPIC_AUTH_TOKEN",
                "ANTHROPIC_PROFILE",
                "ANTHROPIC_IDENTITY_TOKEN",
                "ANTHROPIC_IDENTITY_TOKEN_FILE",
            ),
            bases=("ANTHROPIC_API_URL", "ANTHROPIC_BASE_URL"),
        ),
        Provider(
            name="google_genai",
            short="google",
            title="Google",
            package="langchain-google-genai",
            keys=(("GOOGLE_API_KEY",), ("GEMINI_API_KEY",)),
            site="https://aistudio.google.com/apikey",
            without_key=(
                "GOOGLE_GENAI_USE_VERTEXAI",
                "GOOGLE_GENAI_USE_ENTERPRISE",
                "GOOGLE_CLOUD_PROJECT",
                "GOOGLE_APPLICATION_CREDENTIALS",
            ),
            bases=("GOOGLE_GEMINI_BASE_URL",),
        ),
        Provider(
            name="openrouter",
            short="openrouter",
            title="OpenRouter",
            package="langchain-openrouter",
            keys=(("OPENROUTER_API_KEY",),),
            site="https://openrouter.ai/keys",
            bases=("OPENROUTER_API_BASE",),
        ),
        Provider(
            name="groq",
            short="groq",
            title="Groq",
            package="langchain-groq",
            keys=(("GROQ_API_KEY",),),
            site="https://console.groq.com/keys",
            bases=("GROQ_API_BASE", "GROQ_BASE_URL"),
        ),
        Provider(
            name="mistralai",
            short="mistral",
            title="Mistral",
            package="langchain-mistralai",
            keys=(("MISTRAL_API_KEY",),),
            site="https://console.mistral.ai/api-keys",
            bases=("MISTRAL_BASE_URL",),
        ),
        Provider(
            name="deepseek",
            short="deepseek",
            title="DeepSeek",
            package="langchain-deepseek",
            keys=(("DEEPSEEK_API_KEY",),),
            site="https://platform.deepseek.com/api_keys",
            bases=("DEEPSEEK_API_BASE",),
        ),
        Provider(
            name="xai",
            short="xai",
            title="xAI",
            package="langchain-xai",
            keys=(("XAI_API_KEY",),),
            site="https://console.x.ai",
            bases=("XAI_API_BASE",),
        ),
        Provider(
            name="fireworks",
            short="fireworks",
            title="Fireworks",
            package="langchain-fireworks",
            keys=(("FIREWORKS_API_KEY",),),
            site="https://app.fireworks.ai/settings/users/api-keys",
            bases=("FIREWORKS_API_BASE",),
        ),
        Provider(
            name="azure_openai",
            short="azure",
            title="Azure OpenAI",
            package="langchain-openai",
            keys=(("AZURE_OPENAI_API_KEY",),),
            needs=("AZURE_OPENAI_ENDPOINT",),
            site="https://portal.azure.com",
            without_key=("AZURE_OPENAI_AD_TOKEN", "AZURE_FEDERATED_TOKEN_FILE"),
            bases=("AZURE_OPENAI_ENDPOINT",),
        ),
        Provider(
            name="bedrock_converse",
            short="bedrock",
            title="Amazon Bedrock",
            package="langchain-aws",
            keys=(
                ("AWS_BEARER_TOKEN_BEDROCK",),
                ("AWS_PROFILE",),
                ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
            ),
            site="https://console.aws.amazon.com/bedrock",
            in_files=True,
        ),
    )
}
"""Providers by name, in the order in which `moa ask` looks for their keys."""

AZURE_DEPLOYMENT = (
    "AZURE_OPENAI_DEPLOYMENT",
    "AZURE_OPENAI_DEPLOYMENT_NAME",
    "AZURE_OPENAI_CHAT_DEPLOYMENT",
    "AZURE_OPENAI_CHAT_DEPLOYMENT_NAME",
)
"""Variables that may name the deployment of Azure's resource; LangChain reads none of them."""

AZURE_API_VERSION = "2024-10-21"
"""Version of Azure's API for models without `OPENAI_API_VERSION`, which LangChain requires."""


def deployment_in(environment: Environment) -> str:
    """Return the name of Azure's deployment; empty if no variable names one."""
    return next((environment[n].strip() for n in AZURE_DEPLOYMENT if is_set(environment, n)), "")


def is_set(environment: Environment, name: str) -> bool:
    """Return whether a variable has a value that is not blank."""
    return bool(environment.get(name, "").strip())


def wrong_keys(spec: str, params: Mapping[str, Any], environment: Environment) -> str:
    """Return a sentence about keys of a model that no header can have; empty if there are none.

    It has the names of variables and arguments, and not their values.

    Args:
        spec: The model, as `"provider:model"`.
        params: Arguments of the chat model. If they have a key, no variable is read.
        environment: Environment variables.
    """
    if has_credentials(params):
        given = {f"the argument {name}": _plain(value) for name, value in params.items()}
        names = [f"the argument {name}" for name in params if "key" in name or "token" in name]
    else:
        given = dict(environment)
        names = _variables_of_keys(spec, environment)
    wrong = [name for name in names if not _IN_HEADERS.fullmatch(given.get(name) or "x")]
    if not wrong:
        return ""
    return (
        f"{' and '.join(wrong)} must have only printable ASCII characters, and no spaces or line "
        "ends: set it again."
    )


def _variables_of_keys(spec: str, environment: Environment) -> list[str]:
    provider = provider_named(spec)
    if provider is None:  # as most of LangChain's packages call it
        return [f"{spec.partition(':')[0].strip().upper()}_API_KEY"]
    others = [name for name in provider.without_key if name.endswith("_TOKEN")]
    return [n for n in (*provider.key_in(environment), *others) if not n.endswith("_PROFILE")]


def _plain(value: Any) -> str:
    secret = getattr(value, "get_secret_value", None)
    value = secret() if secret else value
    return value if isinstance(value, str) else ""


def provider_named(spec: str) -> Provider | None:
    """Return the provider of a `"provider:model"` string; None if it is not in `PROVIDERS`."""
    return PROVIDERS.get(spec.partition(":")[0].strip().lower())


def has_credentials(params: Mapping[str, Any]) -> bool:
    """Return whether a model's arguments have its key, or another way to sign in."""
    return any(
        word in name
        for name in params
        for word in ("key", "token_provider", "ad_token", "credential")
    )


def check_provider(spec: str, params: Mapping[str, Any]) -> None:
    """Check that a model's package is installed, and that its key is set.

    Args:
        spec: The model, as `"provider:model"`. Providers that are not in `PROVIDERS` are left to
            LangChain's own checks.
        params: Arguments of the chat model, which may have the key.

    Raises:
        ImportError: If the package is not installed.
        MoAError: If a variable is not set.
    """
    provider = provider_named(spec)
    if provider is None:
        return
    if not provider.is_installed:
        raise ImportError(f"Install it: pip install {provider.package}")
    if not has_credentials(params) and (missing := provider.missing_in(os.environ)):
        raise MoAError(
            f"{spec!r} needs an API key: set {' and '.join(missing)} (from {provider.site})."
        )


def check_own_key(spec: str, params: Mapping[str, Any], chat_model: BaseChatModel) -> None:
    """Check that a provider is not sent the key of OpenAI.

    Clients of other providers are often derived from OpenAI's client, which reads
    `OPENAI_API_KEY` if it is given no key.

    Args:
        spec: The model, as `"provider:model"`.
        params: Arguments of the chat model, which may have the key.
        chat_model: The chat model that was built from them.

    Raises:
        MoAError: If the key in its client is `OPENAI_API_KEY`, and the provider is not OpenAI.
    """
    key = os.environ.get("OPENAI_API_KEY")
    if not key or spec.partition(":")[0].strip().lower() == "openai" or has_credentials(params):
        return
    if any(value == key for name, value in os.environ.items() if name != "OPENAI_API_KEY"):
        return  # the provider's own variable has the same key
    if any(getattr(client, "api_key", None) == key for client in clients_of(chat_model).values()):
        raise MoAError(
            f"{spec!r} has no API key of its own, and its client would send OPENAI_API_KEY to "
            "another provider: set the provider's own variable."
        )
