"""What the operator of a server sets, in the environment."""

from __future__ import annotations

import hashlib
import hmac
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from moa_graph.presets import PRESETS

LOCAL_USER = "local"
"""Who uses a server without keys: this machine."""

_SHORTEST_KEY = 16  # characters; shorter ones can be guessed
_LOADS_FILES = ("huggingface",)  # providers whose model names may be paths of the server


class Keys:
    """Who owns which API key. Only the keys' SHA-256 digests are kept.

    Args:
        text: `NAME=KEY` pairs, separated by commas. A name may have several keys, so that they
            can be changed one after the other; it owns what was made with any of them.

    Raises:
        ValueError: If a pair is none, or a key is too short; never quotes a key.
    """

    def __init__(self, text: str) -> None:
        self._owners: list[tuple[bytes, str]] = []
        for number, pair in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
            owner, _, key = (part.strip() for part in pair.partition("="))
            if not owner or not key:
                raise ValueError(f"entry {number} is not NAME=KEY")
            if owner == LOCAL_USER:
                raise ValueError(f"entry {number}: {owner!r} is who uses a server without keys")
            if len(key) < _SHORTEST_KEY:
                raise ValueError(f"the key of {owner!r} has fewer than {_SHORTEST_KEY} characters")
            self._owners.append((_digest(key), owner))

    def __bool__(self) -> bool:
        return bool(self._owners)

    def owner_of(self, key: str) -> str | None:
        """The key's owner. Takes the same time whichever key it is, and how much of it is right."""
        given, found = _digest(key), None
        for digest, owner in self._owners:
            if hmac.compare_digest(digest, given):
                found = owner
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()


def _checked(keys: SecretStr) -> SecretStr:
    Keys(keys.get_secret_value())
    return keys


class Settings(BaseSettings):
    """The server's settings, each from the environment variable `MOA_` and its name.

    Raises:
        pydantic.ValidationError: If one is out of range.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOA_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    api_keys: Annotated[SecretStr, AfterValidator(_checked)] = SecretStr("")
    """Who may use the server: `NAME=KEY,NAME=KEY`. Without, only this machine may."""
    allowed_models: str = ""
    """Which models assistants may name: patterns such as `together:*,openai:gpt-*`. Without, any
    on this machine alone, and those of the presets where there are keys."""
    max_layers: int = Field(default=10, ge=2)
    """Layers of an assistant, the aggregator's included."""
    max_proposers: int = Field(default=16, ge=1)
    """Proposers of a layer, every sample counted."""
    max_samples: int = Field(default=16, ge=1)
    """Samples of a proposer."""
    max_tokens: int = Field(default=1_000_000, ge=1)
    """Tokens of a run: what its proposers may spend together."""
    runs_per_minute: int = Field(default=60, ge=1)
    """Runs that each key may start within a minute."""
    rate_storage: str = "async+memory://"
    """Where the runs of the last minute are counted, as the package `limits` writes it. Several
    processes share `async+redis://HOST:PORT`."""

    @property
    def keys(self) -> Keys:
        """Who owns which key."""
        return Keys(self.api_keys.get_secret_value())

    def allows(self, model: str) -> bool:
        """Return whether assistants may name that model, as `"provider:model"`."""
        provider, _, name = model.partition(":")
        provider = provider.strip().lower()
        if self.allowed_models:
            patterns = [pattern.strip() for pattern in self.allowed_models.split(",")]
            return any(fnmatchcase(f"{provider}:{name}", pattern) for pattern in patterns)
        if self.keys:
            return any(model in preset.models() for preset in PRESETS.values())
        return provider not in _LOADS_FILES


SETTINGS = Settings()
"""This process's."""
