"""Which mixture to use where none is named: by the keys that are set, and what runs here.

The order is: the API keys in the order of `PROVIDERS`, for which the provider's package is
installed; the servers in the order of `SERVERS`; the embedded models. Keys are not sent anywhere,
and only loopback addresses are asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from moa_graph.models import local
from moa_graph.models.providers import (
    AZURE_DEPLOYMENT,
    PROVIDERS,
    Environment,
    Provider,
    deployment_in,
)
from moa_graph.presets import PRESETS
from moa_graph.presets.configuration import Configuration
from moa_graph.presets.families import ALL_KEYS, family
from moa_graph.presets.needs import Needs, needs_of
from moa_graph.presets.servers import Running, not_asked, running

EMBEDDED = "local"
"""Name of the preset of the embedded models."""

SHOWS_THE_PIPELINE = "they are there to show the pipeline, not for good answers"


@dataclass(frozen=True)
class Choice:
    """A mixture, and why it is used."""

    preset: str
    """Name of its preset."""
    configuration: Configuration
    because: str
    """What was found, such as a variable's name or an address."""
    also: tuple[str, ...] = field(default=())
    """What was found and is not used, or what would help, in short sentences."""

    @property
    def models(self) -> str:
        """Names of the models, without their providers."""
        names = [spec.partition(":")[2].rpartition("/")[2] for spec in self.configuration.models()]
        return ", ".join(names)

    def told(self) -> str:
        """Return one line that says what is used, why, and how to choose otherwise."""
        also = "".join(f" {sentence}" for sentence in self.also)
        return (
            f"Using {self.because}: {self.models}.{also} To choose: --preset NAME (see moa "
            "presets), --model PROVIDER:MODEL, or --config FILE."
        )


class NothingToUse(LookupError):
    """There is no mixture that can be used as it is.

    Args:
        message: What is missing.
        command: The command that helps; empty if the message has the ways.
    """

    def __init__(self, message: str, command: str = "") -> None:
        super().__init__("\n".join(filter(None, (message, command))))
        self.command = command


def choose(
    environment: Environment, look: Callable[[Environment], list[Running]] = running
) -> Choice:
    """Return the first mixture that can be used.

    Args:
        environment: Environment variables.
        look: Function that returns the servers on this machine; called only if no key can be
            used.

    Raises:
        NothingToUse: If a key is set and its provider's package, or another variable, is missing;
            or if nothing was found and the embedded models are not installed.
    """
    usable, waiting = _with_keys(environment)
    if usable:
        return _by_key(usable[0], environment, more=usable[1:])
    if found := look(environment):
        also = [_would_help(provider, environment) for provider in waiting]
        return _by_server(found[0], (*also, *not_asked(environment)))
    return _last(waiting, environment)


def choices(
    environment: Environment, look: Callable[[Environment], list[Running]] = running
) -> list[Choice]:
    """Return all mixtures that can be used, in order; see `choose`.

    The embedded models are among them only if there is nothing else.
    """
    usable, waiting = _with_keys(environment)
    by_key = [_by_key(provider, environment, more=[]) for provider in usable]
    found = by_key + [_by_server(one, ()) for one in look(environment)]
    return found or [_last(waiting, environment)]


def _with_keys(environment: Environment) -> tuple[list[Provider], list[Provider]]:
    """Return the providers whose keys are set: usable ones, and those that need something."""
    with_keys = [p for p in PROVIDERS.values() if p.found_in(environment)]
    usable = [p for p in with_keys if not needs_of_family(p, environment)]
    return usable, [p for p in with_keys if p not in usable]


def _last(waiting: list[Provider], environment: Environment) -> Choice:
    if waiting:
        needs = needs_of_family(waiting[0], environment)
        found_key = " and ".join(waiting[0].found_in(environment))
        raise NothingToUse(f"{found_key} is set. {needs.sentence(waiting[0].title)}", needs.command)
    if local.is_installed():
        return _embedded(not_asked(environment))
    skipped = "".join(f"{told} " for told in not_asked(environment))
    raise NothingToUse(
        f"{skipped}There is no API key and no model server here. Set a key, such as "
        f"TOGETHER_API_KEY ({PROVIDERS['together'].site}) or OPENAI_API_KEY; or start Ollama.\n"
        f"Small models on this machine need no key; {SHOWS_THE_PIPELINE}: {local.INSTALL}"
    )


def needs_of_family(provider: Provider, environment: Environment) -> Needs:
    """Return what a provider's preset needs; empty if it can be used."""
    needs = needs_of(provider, environment)
    if provider.name == "azure_openai" and not deployment_in(environment):
        return Needs.of_all([needs, Needs(variables=AZURE_DEPLOYMENT[:1])])
    return needs


def _by_key(provider: Provider, environment: Environment, more: list[Provider]) -> Choice:
    found = " and ".join(provider.key_in(environment))
    also: tuple[str, ...] = ()
    if more:
        also = (f"--preset {ALL_KEYS} asks {', '.join(p.title for p in more)}, too.",)
    known = PRESETS.get(provider.short)
    return Choice(
        provider.short,
        known or family(provider.short, environment),
        f"{provider.title} ({found})",
        also,
    )


def _by_server(one: Running, also: tuple[str, ...]) -> Choice:
    because = f"{one.server.title} at {one.address}"
    return Choice(one.server.name, one.configuration(), because, also)


def _embedded(also: tuple[str, ...]) -> Choice:
    return Choice(
        EMBEDDED,
        PRESETS[EMBEDDED],
        f"the embedded models ({SHOWS_THE_PIPELINE})",
        (
            *also,
            "For good answers, set an API key such as OPENAI_API_KEY, or start Ollama.",
        ),
    )


def _would_help(provider: Provider, environment: Environment) -> str:
    needs = needs_of_family(provider, environment)
    return f"{' and '.join(provider.found_in(environment))} needs: {needs.command}."
