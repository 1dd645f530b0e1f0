"""The command `moa server init`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from moa_graph.cli.terminal import FAILED, say
from moa_graph.server.deployment import SETTINGS, init

app = typer.Typer(help="A deployment with containers.", no_args_is_help=True)

_LAST_PORT = 65535


@app.callback()
def _group() -> None:
    """Keep the name of the only command."""


@app.command("init")
def server_init(
    folder: Annotated[Path, typer.Argument(help="The folder that the files are written to.")],
    domain: Annotated[
        str | None,
        typer.Option(
            help="Name or IPv4 address of the site [default: localhost]. A public name gets a "
            "certificate from Let's Encrypt, any other a self-signed one."
        ),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=_LAST_PORT, help="Port of the site [default: 443]."),
    ] = None,
    http_port: Annotated[
        int | None,
        typer.Option(min=1, max=_LAST_PORT, help="Port that redirects to the site [default: 80]."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help=f"Overwrite files; {SETTINGS} keeps its secrets."),
    ] = False,
) -> None:
    """Write the files that run two servers behind a proxy with TLS, and print an API key.

    The folder's README.md says how to run, back up and upgrade them.
    """
    try:
        key = init(folder, domain=domain, port=port, http_port=http_port, force=force, tell=say)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    except OSError as error:
        say(str(error))
        raise typer.Exit(FAILED) from None
    clone = Path(__file__).parents[2]
    if (clone / "pyproject.toml").is_file():
        wheel = ("pip", "wheel", "--no-deps", "--wheel-dir", str(folder), str(clone))
        say(f"To deploy this clone: {shlex.join(wheel)}")
    if key is not None:
        say(f"This API key is in {folder / SETTINGS}, too:")
        typer.echo(key)
