"""Convert what a user gives as a model to a chat model or Runnable."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping, MutableMapping
from typing import Any, Self, TypeAlias

from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from moa_graph.calling import sync
from moa_graph.errors import MoAError, explain
from moa_graph.models.inputs import check_kind, check_prompt, same_input
from moa_graph.models.local import check_local_name, local_chat_model
from moa_graph.models.numbering import number_of
from moa_graph.models.providers import AZURE_API_VERSION, check_own_key, check_provider
from moa_graph.models.runnables import (
    answering_name,
    chooses_transport,
    name_of,
    provider_of,
    with_connections_of,
    without_own_retries,
)
from moa_graph.models.this_machine import direct

_ASKED_FOR_USAGE = ("together", "openai")


class Model:
    """One model of a graph; a string becomes a chat model on first use.

    A graph can therefore be built, drawn and served without an API key, and a key that is set
    later is used. Errors that do not depend on a key (an unknown provider, a missing package)
    are raised at once.

    Args:
        given: The model.
        role: Use of the model, such as `"proposers[2]"`; errors begin with it.
        params: Arguments of `init_chat_model` besides the name; only with a string.

    Raises:
        TypeError: If `given` is not a model.
        ValueError: If `given` is a string without a provider, with an unknown provider, or with
            a provider for which the package is not installed.
    """

    def __init__(self, given: str | Runnable[Any, Any], role: str, **params: Any) -> None:
        self.role = role
        self.begins_in_reasoning = False
        """Whether an earlier answer had reasoning without an opening tag."""
        self._given = given
        self._params = params
        self._fast = isinstance(given, str) and not chooses_transport(params)
        self._lock = sync.Lock()
        self._runnable: Runnable[Any, Any] | None = None
        self._of_loops: MutableMapping[Any, Runnable[Any, Any]] = weakref.WeakKeyDictionary()
        self._provider: str | None = None
        if isinstance(given, str):
            self._provider, self.name = _split(given, self._where)
            if given.startswith("local:"):
                check_local_name(self.name, self._where)
            else:
                self._try_to_build(given)
        elif isinstance(given, Runnable):
            check_kind(given, role)
            check_prompt(given, role)
            self.name = name_of(given)
            number_of(given, self.name)  # in the order in which models are given
            self._runnable = without_own_retries(same_input(given))
        else:
            raise TypeError(f"{role} must be a model, but is {_what(given)}. {_MODEL_HINT}")

    def __repr__(self) -> str:
        return f"Model({self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (self._given, self.role, self._params)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self  # immutable, and may hold connections

    @property
    def provider(self) -> str | None:
        """Provider's name as LangChain spells it; None if the model is not a chat model."""
        if self._provider is None and self._runnable is not None:
            self._provider = provider_of(self._runnable)
        return self._provider

    @property
    def data(self) -> str | dict[str, Any] | None:
        """The model as data for a configuration file; None if it was given as an object."""
        if not isinstance(self._given, str):
            return None
        own = {k: v for k, v in self._params.items() if k in ("temperature", "max_tokens")}
        params = {k: v for k, v in self._params.items() if k not in own}
        if not own and not params:
            return self._given
        return {"model": self._given, **own, **({"params": params} if params else {})}

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model in limits of concurrent calls: provider, and `"provider:model"`."""
        return (self.provider, f"{self.provider}:{self.name}") if self.provider else (self.name,)

    def answering(self, answered: tuple[str | None, str | None]) -> str:
        """Return the name of the model that answered, which may be a fallback.

        Args:
            answered: The name in the request, and the name that the provider returned.
        """
        if self._runnable is None:
            return self.name
        return answering_name(self._runnable, self.name, answered)

    @property
    def built(self) -> Runnable[Any, Any] | None:
        """The model to call; None if it is not built yet."""
        return self._runnable

    def get(self) -> Runnable[Any, Any]:
        """Return the model to call.

        Raises:
            MoAError: If it cannot be built, usually because an API key is missing. The message
                says how to fix it.
        """
        if self._runnable is not None:
            return self._runnable
        with self._lock:
            if self._runnable is not None:
                return self._runnable
            assert isinstance(self._given, str)
            try:
                self._runnable = without_own_retries(build_chat_model(self._given, self._params))
            except MoAError as error:
                raise MoAError(f"{self._where}{error}") from None
            except Exception as error:  # noqa: BLE001 - each provider has its own errors
                # The original error may contain an argument such as the key.
                raise MoAError(
                    f"{self._where}{self._given!r} cannot be used: {explain(error)}"
                ) from None
            return self._runnable

    async def ready(self) -> None:
        """Build the model in a thread if it is not built yet; loading weights can take long.

        Raises:
            MoAError: If it cannot be built, see `get`.
        """
        if self._runnable is None:
            await sync.in_thread(self.get)

    async def here(self) -> Runnable[Any, Any]:
        """Return the model to call in the current event loop.

        A connection can be used only in the event loop that opened it. The model therefore has
        separate connections for each loop, if its client supports that.

        Raises:
            MoAError: If it cannot be built, see `get`.
        """
        if self._runnable is None:
            await self.ready()
        model = self.get()
        loop = sync.current_loop()
        if loop is None:
            return model
        if (known := self._of_loops.get(loop)) is not None:
            return known
        with self._lock:
            if loop not in self._of_loops:
                sync.forget_closed(self._of_loops)
                self._of_loops[loop] = with_connections_of(
                    model, loop, own=sync.is_background(), fast=self._fast
                )
            return self._of_loops[loop]

    @property
    def _where(self) -> str:
        """Beginning of errors: the role, unless it is the name, which the errors have anyway."""
        return "" if self.role == self._given else f"{self.role}: "

    def _try_to_build(self, spec: str) -> None:
        provider = spec.partition(":")[0]
        try:
            self._runnable = without_own_retries(build_chat_model(spec, self._params))
        except ImportError as error:
            raise ValueError(
                f"{self._where}the package for {provider!r} is not installed. {error}"
            ) from error
        except ValueError as error:
            if "Unsupported" in str(error) and "provider" in str(error):
                known = str(error).rpartition("are: ")[2]
                raise ValueError(
                    f"{self._where}unknown provider {provider!r} in {spec!r}. Write "
                    f"'provider:model' with one of: local, {known}; or install the provider's "
                    "LangChain package and give its chat model object instead."
                ) from error
        except Exception:  # noqa: BLE001, S110 - a missing key: `get` reports it
            pass


def _made_again(given: Any, role: str, params: dict[str, Any]) -> Model:
    return Model(given, role, **params)


ModelLike: TypeAlias = str | Runnable[Any, Any] | Model
"""A model: `"provider:model"`, a chat model, or any Runnable from messages to a message."""


def as_model(given: ModelLike, role: str) -> Model:
    """Convert a model to the class that nodes use; `role` begins its error messages."""
    return given if isinstance(given, Model) else Model(given, role)


_MODEL_HINT = (
    "Give 'provider:model' (such as 'together:Qwen/Qwen2.5-72B-Instruct-Turbo'), a chat model "
    "object, or any Runnable from messages to a message."
)


def _what(given: object) -> str:
    if given is None:
        return "None"
    if isinstance(given, type):
        return f"the class {given.__name__} (an object is needed: {given.__name__}(...))"
    if callable(given):
        return "a function (wrap it in RunnableLambda)"
    return f"of type {type(given).__name__}"


def _split(spec: str, where: str) -> tuple[str, str]:
    provider, colon, model = spec.partition(":")
    missing = "model" if colon and provider.strip() else "provider"
    if missing == "provider" or not model.strip(": "):
        raise ValueError(
            f"{where}{spec!r} has no {missing}. Use the form 'provider:model', for example "
            "'together:Qwen/Qwen2.5-72B-Instruct-Turbo' or 'openai:gpt-5.2'."
        )
    if model.startswith(":"):
        raise ValueError(
            f"{where}{spec!r} has two colons after the provider. Use the form 'provider:model'."
        )
    return provider, model


def build_chat_model(spec: str, params: Mapping[str, Any] | None = None) -> BaseChatModel:
    """Build the chat model for a `"provider:model"` string with the provider's package.

    Args:
        spec: The provider and the model.
        params: Further arguments of the chat model.

    Raises:
        MoAError: If a key is missing, or the provider would be sent the key of another.
        ValueError: If the provider is unknown.
        ImportError: If the provider's package is not installed.
    """
    params = params or {}
    provider, name = spec.split(":", 1)
    provider = provider.strip().lower()
    if provider == "local":
        return local_chat_model(name, **params)
    check_provider(spec, params)
    given = {**_defaults(provider), **params}
    given |= direct(provider, given, os.environ)
    model: BaseChatModel = init_chat_model(name, model_provider=provider, **given)
    check_own_key(spec, params, model)
    return model


def _defaults(provider: str) -> dict[str, Any]:
    """Return arguments that the package of a provider does not set by itself."""
    # These providers count the tokens of a streamed answer only on request.
    defaults: dict[str, Any] = {"stream_usage": True} if provider in _ASKED_FOR_USAGE else {}
    environment = os.environ
    if provider == "together" and "TOGETHER_API_BASE" not in environment:
        if url := environment.get("TOGETHER_BASE_URL"):  # the variable of Together's own client
            defaults["base_url"] = url
    elif provider == "azure_openai":
        # Without this argument, LangChain would send OpenAI's key to Azure.
        defaults["api_key"] = environment.get("AZURE_OPENAI_API_KEY") or None
        if not environment.get("OPENAI_API_VERSION"):
            defaults["api_version"] = AZURE_API_VERSION
    return defaults
