"""Which mixture a command uses: options that name it, or else what is there."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import typer
from pydantic import ValidationError

from moa_graph.cli.terminal import WRONG_CALL, say
from moa_graph.errors import what_is_wrong
from moa_graph.presets import load_preset, preset_names
from moa_graph.presets.available import NothingToUse, choose
from moa_graph.presets.configuration import Configuration
from moa_graph.presets.families import PROPOSERS
from moa_graph.presets.needs import needs_of_mixture


def _completed(incomplete: str) -> list[str]:
    return [name for name in preset_names() if name.startswith(incomplete)]


PresetOption = Annotated[
    str | None,
    typer.Option(
        "--preset",
        "-p",
        help="A preset's name (see `moa presets`), or a file.",
        autocompletion=_completed,
    ),
]
ConfigOption = Annotated[
    str | None, typer.Option("--config", "-c", help="Your own configuration, TOML or YAML.")
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        "-m",
        help="A model that proposes, as PROVIDER:MODEL; several times for several models. "
        f"One alone is asked {PROPOSERS} times.",
    ),
]
AggregatorOption = Annotated[
    str | None,
    typer.Option(help="The model that writes the answer; by default the first --model."),
]


def chosen(
    preset: str | None = None,
    config: str | None = None,
    models: Sequence[str] | None = None,
    aggregator: str | None = None,
) -> Configuration:
    """Return the mixture that the options name; without options, the one for what is there.

    In the latter case, one line on standard error says what was chosen, and how to choose.

    Raises:
        typer.Exit: With code 2 after a message, if the options contradict each other or are
            invalid, or nothing can be used.
    """
    given = [name for name, value in (("--preset", preset), ("--config", config)) if value]
    given += ["--model"] if models else []
    if len(given) > 1:
        wrong(f"Give {' or '.join(given)}, not both.")
    try:
        if models:
            return _of_models(models, aggregator)
        return _with_aggregator(_named(preset or config), aggregator)
    except (ValueError, OSError, NothingToUse) as error:
        wrong(str(error))


def check_ready(configuration: Configuration) -> None:
    """Check that every package is installed and every key is set, before anything is asked.

    Raises:
        typer.Exit: With code 2 after a message with the command that helps.
    """
    needs = needs_of_mixture(configuration, os.environ)
    if needs:
        told = needs.sentence(f"The mixture {configuration.name!r}")
        wrong("\n".join(filter(None, (told, needs.command))))


def question_of(words: Sequence[str], command: str = "moa ask") -> str:
    """Return the question that was given as one argument.

    Raises:
        typer.Exit: With code 2 after a message with the quoted question, if there are several.
    """
    if len(words) > 1:
        wrong(
            f"The question is {len(words)} words for the shell, which may also replace those with "
            f"? or * by names of files. Put it in quotes:\n{command} {shlex.quote(' '.join(words))}"
        )
    return words[0]


def wrong(text: str) -> NoReturn:
    """Print a message to standard error and exit with the code of a wrong call."""
    say(text)
    raise typer.Exit(WRONG_CALL)


def _named(name: str | None) -> Configuration:
    if name:
        return load_preset(name)
    choice = choose(os.environ)
    say(choice.told())
    return choice.configuration


def _of_models(models: Sequence[str], aggregator: str | None) -> Configuration:
    counted = Counter(models)
    if len(counted) == 1:
        counted[models[0]] = max(counted[models[0]], PROPOSERS)
    proposers: list[Any] = [
        model if samples == 1 else {"model": model, "samples": samples}
        for model, samples in counted.items()
    ]
    for model in models:
        provider, _, name = model.partition(":")
        if not (provider.strip() and name.strip()):
            raise ValueError(
                f"--model {model!r} has no provider: write PROVIDER:MODEL, such as "
                f"openai:{name or model}."
            )
    try:
        return Configuration(
            name="models", proposers=proposers, aggregator=aggregator or models[0], layers=2
        )
    except ValidationError as error:
        raise ValueError(what_is_wrong(error, Configuration, {})) from None


def _with_aggregator(configuration: Configuration, aggregator: str | None) -> Configuration:
    return configuration.model_copy(update={"aggregator": aggregator} if aggregator else {})
