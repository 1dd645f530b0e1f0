"""The command `moa` with all of its commands. Needs `moa-graph[cli]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

try:
    import typer

    from moa_graph.cli import benchmarks, evaluate, pool, server  # noqa: F401 - imports add commands
    from moa_graph.cli.ask import ask
    from moa_graph.cli.chat import chat
    from moa_graph.cli.chats import chats
    from moa_graph.cli.choosing import (
        AggregatorOption,
        ConfigOption,
        ModelsOption,
        PresetOption,
        chosen,
        wrong,
    )
    from moa_graph.cli.init import init
    from moa_graph.cli.presets import presets
    from moa_graph.cli.running import LayersOption, build
    from moa_graph.cli.terminal import FAILED, say
except ImportError as error:  # the base package does not need these
    sys.exit(f"The moa command needs more packages ({error.name}): pip install 'moa-graph[cli]'")

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"moa-graph {version('moa-graph')}")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Mixture-of-Agents: several models propose, one synthesizes the answer."""


app.command()(ask)
app.command()(chat)
app.command()(chats)


@app.command()
def draw(
    preset: PresetOption = None,
    config: ConfigOption = None,
    models: ModelsOption = None,
    aggregator: AggregatorOption = None,
    layers: LayersOption = None,
    ascii_art: Annotated[
        bool, typer.Option("--ascii", help="Draw with characters instead of Mermaid.")
    ] = False,
) -> None:
    """Draw a mixture's graph as Mermaid or with characters, without network access."""
    drawing = build(chosen(preset, config, models, aggregator), layers=layers).get_graph()
    # Each box would otherwise show the metadata of its node, which the names already contain.
    drawing.nodes = {name: node._replace(metadata=None) for name, node in drawing.nodes.items()}
    typer.echo(drawing.draw_ascii() if ascii_art else drawing.draw_mermaid())


app.command()(presets)
app.command()(init)
app.add_typer(benchmarks.app, name="eval")

cluster = typer.Typer(help="Several servers on this machine.", no_args_is_help=True)
app.add_typer(cluster, name="cluster")
app.add_typer(server.app, name="server")

FolderOption = Annotated[Path, typer.Option(help="Where settings and logs are kept.")]


@cluster.command("up")
def cluster_up(
    servers: Annotated[int, typer.Option(min=1, help="Number of servers.")] = 2,
    host: Annotated[str, typer.Option(help="The address that they listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(help="Port of the first server; the others use the next ports.")
    ] = 2026,
    config: Annotated[Path, typer.Option(help="The langgraph.json.")] = Path("langgraph.json"),
    folder: FolderOption = Path(".moa-cluster"),
) -> None:
    """Start servers with a shared PostgreSQL and Redis; install these if missing."""
    with _administering():
        from moa_graph.server.cluster import up  # noqa: PLC0415 - needs [server]

        for url in up(folder, config, servers=servers, host=host, port=port, tell=say):
            typer.echo(url)


@cluster.command("down")
def cluster_down(
    folder: FolderOption = Path(".moa-cluster"),
    remove: Annotated[bool, typer.Option("--remove", help="Delete the threads too.")] = False,
) -> None:
    """Stop the servers, PostgreSQL and Redis."""
    with _administering():
        from moa_graph.server.cluster import down  # noqa: PLC0415 - needs [server]

        down(folder, remove=remove)


@contextmanager
def _administering() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        wrong(f"This needs more packages ({error.name}): pip install 'moa-graph[server]'")
    except RuntimeError as error:
        say(str(error))
        raise typer.Exit(FAILED) from None
