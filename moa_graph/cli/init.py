"""The command `moa init`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from moa_graph.cli.choosing import wrong
from moa_graph.cli.terminal import say
from moa_graph.presets.available import NothingToUse, choices
from moa_graph.presets.starter import quoted, starter


def init(
    path: Annotated[Path, typer.Argument(help="The file to write.")] = Path("moa.toml"),
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Write a commented configuration file from the keys and model servers that are there."""
    if path.suffix.lower() != ".toml":
        wrong(f"The file must end in .toml, and {path} does not.")
    try:
        shown = quoted(str(path))
    except ValueError as error:
        wrong(str(error))
    if path.exists() and not force:
        wrong(f"{path} exists: give another name, or --force to replace it.")
    try:
        first, *others = choices(os.environ)
        path.write_text(starter(first, others, str(path)), encoding="utf-8")
    except (NothingToUse, OSError) as error:
        wrong(str(error))
    say(f'Wrote {path} for {first.because}. Next: moa ask --config {shown} "…"')
