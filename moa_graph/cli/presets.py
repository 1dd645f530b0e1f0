"""The command `moa presets`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.table import Table

from moa_graph.cli.consoles import new_console
from moa_graph.cli.terminal import FAILED, say
from moa_graph.models.providers import PROVIDERS, provider_named
from moa_graph.presets import PRESETS
from moa_graph.presets.configuration import Configuration
from moa_graph.presets.families import ALL_KEYS, ALL_KEYS_DESCRIPTION, FAMILIES, family
from moa_graph.presets.served import CannotTell, is_served, served
from moa_graph.presets.servers import SERVERS, running


@dataclass(frozen=True)
class _Listed:
    """A preset in the list; without a configuration, it cannot be made here."""

    name: str
    description: str
    configuration: Configuration | None = None


CheckOption = Annotated[
    bool,
    typer.Option(
        "--check",
        help="Ask each provider whose key is set which models it serves. Costs nothing.",
    ),
]


def presets(check: CheckOption = False) -> None:
    """List the presets."""
    listed = list(_all())
    _print_list(listed)
    if check:
        _check(listed)


def _all() -> Iterator[_Listed]:
    for name, preset in PRESETS.items():
        yield _Listed(name, preset.description, preset)
    for name, provider in FAMILIES.items():
        try:
            made = family(name, os.environ)
        except ValueError as error:
            yield _Listed(name, f"Models of {provider.title}. {error}")
        else:
            yield _Listed(name, made.description, made)
    try:
        yield _Listed(ALL_KEYS, ALL_KEYS_DESCRIPTION, family(ALL_KEYS, os.environ))
    except ValueError:
        yield _Listed(ALL_KEYS, ALL_KEYS_DESCRIPTION)
    here = {found.server.name: found for found in running(os.environ)}
    for server in SERVERS:
        found = here.get(server.name)
        told = found.address if found else f"port {server.port}; it does not run now"
        made_here = found.configuration() if found else None
        yield _Listed(server.name, f"Models of {server.title} on this machine ({told}).", made_here)


def _print_list(listed: list[_Listed]) -> None:
    console = new_console()
    if not console.is_terminal:
        for one in listed:
            typer.echo(f"{one.name}\t{one.description}")
        return
    table = Table("preset", "layers", "models (the last one aggregates)", "", box=None)
    for one in listed:
        models, layers = [], ""
        if one.configuration is not None:
            models = [_short(model) for model in one.configuration.models()]
            models.append(f"→ {_short(one.configuration.answer)}")
            layers = str(one.configuration.depth)
        table.add_row(one.name, layers, "\n".join(models), one.description)
    console.print(table)


def _short(model: str) -> str:
    return model.partition(":")[2].rpartition("/")[2] or model


def _check(listed: list[_Listed]) -> None:
    """Print which models of the presets are not served.

    Raises:
        typer.Exit: With code 1, if a provider did not tell.
    """
    answers = served(os.environ)
    say("")
    for name, answer in answers.items():
        title = PROVIDERS[name].title
        if isinstance(answer, CannotTell):
            say(f"{title}: not checked: {answer}")
        else:
            say(f"{title} serves {len(answer)} models.")
    for one in listed:
        if one.configuration is not None and (told := _told(one.configuration, answers)):
            typer.echo(f"{one.name}\t{told}")
    unchecked = [PROVIDERS[n].keys[0][0] for n in PROVIDERS if n not in answers]
    if unchecked:
        say(f"Not checked, because the key is not set: {', '.join(unchecked)}")
    if any(isinstance(answer, CannotTell) for answer in answers.values()):
        raise typer.Exit(FAILED)


def _told(configuration: Configuration, answers: dict[str, set[str] | CannotTell]) -> str:
    """Return what the providers tell about a preset's models; empty if none was asked."""
    checked, absent = 0, []
    for spec, settings in configuration.entries():
        provider = provider_named(spec)
        known = answers.get(provider.name) if provider else None
        if known is None or isinstance(known, CannotTell) or "base_url" in settings:
            continue
        checked += 1
        if not is_served(spec.partition(":")[2], known):
            absent.append(spec)
    if absent:
        return f"not served: {', '.join(dict.fromkeys(absent))}"
    return "served" if checked else ""
