"""The command `moa`: ask, chat, draw, presets. Needs `moa-graph[cli]`."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph.building.compiled import MoAGraph
from moa_graph.errors import MoAError, explain
from moa_graph.models import local
from moa_graph.presets.configuration import Configuration
from moa_graph.state import MoAState, Proposal, total_usage

try:
    import typer

    from moa_graph.cli import benchmarks, evaluate, pool, server  # noqa: F401 - imports add commands
    from moa_graph.cli.choosing import (
        AggregatorOption,
        ConfigOption,
        ModelsOption,
        PresetOption,
        check_ready,
        chosen,
        question_of,
        wrong,
    )
    from moa_graph.cli.init import init
    from moa_graph.cli.presets import presets
    from moa_graph.cli.terminal import (
        FAILED,
        STOPPED,
        RunView,
        print_json,
        print_proposals,
        say,
    )
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


LayersOption = Annotated[
    int | None, typer.Option(help="Layers to build, the aggregator's included.")
]


@app.command()
def ask(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="QUESTION", help="The question, in quotes; `-` reads it from standard input."
        ),
    ],
    preset: PresetOption = None,
    config: ConfigOption = None,
    models: ModelsOption = None,
    aggregator: AggregatorOption = None,
    layers: LayersOption = None,
    show_proposals: Annotated[
        bool, typer.Option("--show-proposals", help="Print every proposal before the answer.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, with all proposals.")
    ] = False,
) -> None:
    """Ask one question and show the models' progress and the answer."""
    question = question_of(words)
    if question == "-":
        question = sys.stdin.read()
    question = question.strip()
    if not question:
        wrong("The question is blank.")
    configuration = chosen(preset, config, models, aggregator)
    check_ready(configuration)
    graph = _build(configuration, layers=layers)
    started = time.monotonic()
    view = RunView(quiet=as_json, show_proposals=show_proposals)
    try:
        with _running():
            _fetch_weights(configuration)
            state = asyncio.run(view.show(graph, question))
    except _Failed as failure:
        if as_json:
            record = {"question": question, "preset": configuration.name, "error": str(failure)}
            print_json({**record, "proposals": failure.proposals})
        elif show_proposals:
            print_proposals(failure.proposals)
        say(str(failure))
        raise typer.Exit(FAILED) from None
    if as_json:
        print_json(
            {
                "question": question,
                "preset": configuration.name,
                "answer": state["messages"][-1].text,
                "proposals": state["proposals"],
                "usage": _total_usage(state),
                "seconds": round(time.monotonic() - started, 3),
            }
        )


_CHAT_HELP = """\
Write a question, or:
  /proposals        what each model proposed in the last turn
  /model            the models of this mixture
  /model NAME       another preset or configuration file, same conversation
  /new              forget the conversation
  /help             this
  /exit             leave (Ctrl-D does too); Ctrl-C stops an answer"""


@app.command()
def chat(
    preset: PresetOption = None,
    config: ConfigOption = None,
    models: ModelsOption = None,
    aggregator: AggregatorOption = None,
    layers: LayersOption = None,
) -> None:
    """Chat over several turns; every model sees the earlier answers."""
    conversation = _Conversation(chosen(preset, config, models, aggregator), layers)
    say(_CHAT_HELP)
    with asyncio.Runner() as runner:
        while (line := _read_line()) not in {"/exit", "/quit"}:
            if line.startswith("/"):
                conversation.command(line)
            elif line:
                conversation.ask(runner, line)


class _Conversation:
    """One thread with one mixture; commands can change both."""

    def __init__(self, configuration: Configuration, layers: int | None) -> None:
        self._memory = InMemorySaver()
        self._layers = layers
        self._use(configuration)
        self._begin()

    def _use(self, configuration: Configuration) -> None:
        check_ready(configuration)
        graph = _build(configuration, layers=self._layers, checkpointer=self._memory)
        self._configuration, self._graph = configuration, graph

    def _begin(self) -> None:
        self._thread: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4())}}

    def ask(self, runner: asyncio.Runner, question: str) -> None:
        try:
            with _running():
                _fetch_weights(self._configuration)
                runner.run(RunView().show(self._graph, question, self._thread))
        except KeyboardInterrupt:
            say("\nStopped.")
        except _Failed as failure:
            say(str(failure))

    def command(self, line: str) -> None:
        name, _, argument = line.partition(" ")
        if name == "/proposals":
            print_proposals(self._graph.get_state(self._thread).values.get("proposals", []))
        elif name == "/new":
            self._begin()
            say("A new conversation.")
        elif name == "/model":
            if argument:
                # Stay in the chat if the name is wrong.
                with suppress(typer.Exit):
                    self._use(chosen(argument.strip()))
            say("\n".join([f"{self._configuration.name}:", *self._configuration.models()]))
        else:
            say(_CHAT_HELP)


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
    drawing = _build(chosen(preset, config, models, aggregator), layers=layers).get_graph()
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


def main() -> None:
    """Run the `moa` command."""
    logging.getLogger("moa_graph").addHandler(logging.NullHandler())  # the display shows errors
    try:
        app()
    except KeyboardInterrupt:
        sys.exit(STOPPED)


class _Failed(Exception):
    """Failure of a run, with a message for the user."""

    def __init__(self, message: str, proposals: list[Proposal]) -> None:
        super().__init__(message)
        self.proposals = proposals


@contextmanager
def _running() -> Iterator[None]:
    try:
        yield
    except MoAError as error:
        raise _Failed(str(error), getattr(error, "proposals", [])) from None
    except Exception as error:  # noqa: BLE001 - a traceback does not help at a prompt
        raise _Failed(explain(error), []) from None


def _build(configuration: Configuration, **options: Any) -> MoAGraph:
    given = {name: value for name, value in options.items() if value is not None}
    try:
        # The proposers' tokens are not printed, but they are counted while they arrive.
        return configuration.create(stream_proposals=True, **given)
    except (ValueError, TypeError) as error:
        wrong(str(error))


def _fetch_weights(configuration: Configuration) -> None:
    """Download local models before the run, because a download shows its own progress."""
    for model in configuration.models():
        if model.startswith("local:") and local.is_installed():
            local.fetch(model.removeprefix("local:"))


def _total_usage(state: MoAState) -> UsageMetadata | None:
    usages = [p["usage"] for p in state["proposals"]]
    usages.append(getattr(state["messages"][-1], "usage_metadata", None))
    return total_usage(usages)


def _read_line() -> str:
    """Return the next line; `/exit` at the end of the input."""
    try:
        return input("\n> " if sys.stdin.isatty() else "").strip()
    except KeyboardInterrupt:
        say("\nCtrl-D or /exit leaves.")
        return ""
    except EOFError:
        say("")
        return "/exit"
