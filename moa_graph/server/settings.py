"""Server settings, read from environment variables."""

from __future__ import annotations

import hashlib
import hmac
from fnmatch import fnmatchcase
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from moa_graph.presets import PRESETS

LOCAL_USER = "local"
"""User name for all requests to a server without API keys."""

_SHORTEST_KEY = 16  # characters; shorter ones can be guessed
_LOADS_FILES = ("huggingface",)  # providers whose model names can be file paths


class Keys:
    """API keys and their owners. Only SHA-256 digests of the keys are stored.

    Args:
        text: `NAME=KEY` pairs, separated by commas. A name may have several keys, so that keys
            can be rotated; it owns everything created with any of them.

    Raises:
        ValueError: If a pair is not `NAME=KEY`, its name is reserved, or its key is too short. The
            message never contains a key.
    """

    def __init__(self, text: str) -> None:
        self._owners: list[tuple[bytes, str]] = []
        for number, pair in enumerate(filter(None, map(str.strip, text.split(","))), start=1):
            owner, _, key = (part.strip() for part in pair.partition("="))
            if not owner or not key:
                raise ValueError(f"entry {number} is not NAME=KEY")
            if owner == LOCAL_USER:
                raise ValueError(
                    f"entry {number}: {owner!r} is the name of the users of a server without keys"
                )
            if len(key) < _SHORTEST_KEY:
                raise ValueError(f"the key of {owner!r} has fewer than {_SHORTEST_KEY} characters")
            self._owners.append((_digest(key), owner))

    def __bool__(self) -> bool:
        return bool(self._owners)

    def owner_of(self, key: str) -> str | None:
        """Return the owner of a key, or None, in constant time to prevent timing attacks."""
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
    """Settings of the server, from environment variables with the prefix `MOA_`.

    Raises:
        pydantic.ValidationError: If a setting is invalid.
    """

    model_config = SettingsConfigDict(
        env_prefix="MOA_", env_ignore_empty=True, frozen=True, hide_input_in_errors=True
    )

    api_keys: Annotated[SecretStr, AfterValidator(_checked)] = SecretStr("")
    """API keys: `NAME=KEY,NAME=KEY`. If empty, only this machine may use the server."""
    allowed_models: str = ""
    """Models that assistants may use, as patterns such as `together:*,openai:gpt-*`. If empty: the
    models of the presets if there are API keys, else any model except `huggingface:…`."""
    max_layers: int = Field(default=10, ge=2)
    """Maximum layers of an assistant, including the aggregator."""
    max_proposers: int = Field(default=16, ge=1)
    """Maximum proposers of a layer; each sample counts as one."""
    max_samples: int = Field(default=16, ge=1)
    """Maximum samples of a proposer."""
    max_tokens: int = Field(default=1_000_000, ge=1)
    """Maximum tokens of a run's input, of all its proposers together, and of one answer."""
    max_messages: int = Field(default=300, ge=1)
    """Maximum messages of a run's input."""
    max_bytes: int = Field(default=10_000_000, ge=1)
    """Maximum bytes of a request's body."""
    max_values: int = Field(default=50_000, ge=1)
    """Maximum values in the JSON of a request's body."""
    max_threads: int = Field(default=1000, ge=1)
    """Maximum threads of each name that has API keys; those of stateless runs do not count."""
    max_assistants: int = Field(default=100, ge=1)
    """Maximum assistants of each name that has API keys."""
    max_versions: int = Field(default=100, ge=1)
    """Maximum versions of an assistant of a name that has API keys."""
    max_items: int = Field(default=1000, ge=1)
    """Maximum items in the store of each name that has API keys."""
    max_stored_bytes: int = Field(default=10_000_000, ge=1)
    """Maximum bytes of the items in the store of each name that has API keys, together."""
    max_metadata: int = Field(default=16_384, ge=1)
    """Maximum bytes of the metadata, the name and the description of a thread, a run or an
    assistant of a name that has API keys."""
    max_mixture: int = Field(default=100_000, ge=1)
    """Maximum bytes of the context and the config of an assistant of a name that has API keys."""
    private_urls: bool = False
    """Whether images, audio and files may be at loopback, link-local and private addresses."""
    mcp: bool = False
    """Whether MCP clients can call the tool `consult` at `/mcp`."""
    drain_seconds: float = Field(default=20, ge=0)
    """Seconds that streams have to finish after the server is told to stop."""
    strict: bool = False
    """Whether requests to `/v1` with unknown fields are rejected, instead of the fields ignored."""
    max_responses: int = Field(default=100, ge=1, le=900)
    """Most responses of `/v1/responses` that are kept for each user."""
    response_minutes: float = Field(default=60, gt=0)
    """Minutes that they are kept."""
    metrics_token: SecretStr = SecretStr("")
    """Token that reads `/metrics` (`Authorization: Bearer TOKEN`). If empty, only a server without
    API keys has this route."""
    runs_per_minute: int = Field(default=60, ge=1)
    """Maximum runs that each user may start per minute."""
    rate_storage: str = "async+memory://"
    """Storage of the run counts, as a URI of the package `limits`. Several processes can share
    `async+redis://HOST:PORT`."""

    votes: str = "moa-votes"
    """Folder of the readers' votes on the page, if runs are not traced in LangSmith. `moa eval
    pool` reads it."""
    cache: str = ""
    """Where proposals are cached, for each user apart: path of an SQLite file, or
    `redis://HOST:PORT`. If empty, they are not cached, and the proposals of a turn of an agent are
    kept in memory."""

    @property
    def keys(self) -> Keys:
        """Parsed API keys and their owners."""
        return Keys(self.api_keys.get_secret_value())

    @property
    def allowed(self) -> list[str]:
        """The entries of `allowed_models`."""
        return [entry.strip() for entry in self.allowed_models.split(",") if entry.strip()]

    @property
    def allowed_patterns(self) -> list[str]:
        """The entries of `allowed_models` that stand for several models."""
        return [entry for entry in self.allowed if set(entry) & set("*?[")]

    @property
    def allowed_names(self) -> list[str]:
        """The entries of `allowed_models` that are names of models."""
        return [entry for entry in self.allowed if entry not in self.allowed_patterns]

    def allows(self, model: str) -> bool:
        """Return whether assistants may use the model, given as `"provider:model"`."""
        provider, _, name = model.partition(":")
        provider = provider.strip().lower()
        if self.allowed_models:
            return any(fnmatchcase(f"{provider}:{name}", entry) for entry in self.allowed)
        if self.keys:
            return any(model in preset.models() for preset in PRESETS.values())
        return provider not in _LOADS_FILES


SETTINGS = Settings()
"""Settings of this process."""
