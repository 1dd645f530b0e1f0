"""Conversations that are kept on this machine, and the command that lists them."""

from __future__ import annotations

import os
import re
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import platformdirs
import typer
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph.cli.choosing import wrong
from moa_graph.cli.consoles import new_console
from moa_graph.cli.lines import counted, cut, one_line, padded
from moa_graph.cli.terminal import say
from moa_graph.presets.configuration import Configuration

IN_MEMORY = ":memory:"
LAST = "last"

StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FILE",
        envvar="MOA_CHATS",
        help="Where conversations are kept; by default in your data folder. "
        f"{IN_MEMORY} keeps nothing.",
    ),
]

_PLACE = ("chats",)
_MOST = 100_000
_SECRET = re.compile(r"(api_?key|secret|password|token|authorization|headers)$", re.IGNORECASE)
_TITLE = 80  # cells


@dataclass(frozen=True)
class Chat:
    """What is known of a conversation beside its checkpoints."""

    id: str
    """Id of its thread."""
    title: str = ""
    """Its first question, in one line."""
    turns: int = 0
    mixture: str = ""
    """Name of the mixture."""
    configuration: dict[str, Any] = field(default_factory=dict)
    """The mixture as data, without secrets."""
    layers: int | None = None
    """Number of layers, if it is not the mixture's own."""
    updated: str = ""
    """Time of the last question, in ISO format and UTC."""

    @classmethod
    def new(cls) -> Chat:
        """Return a conversation with a new id."""
        return cls(secrets.token_hex(4))

    def using(self, configuration: Configuration, layers: int | None) -> Chat:
        """Return it with the mixture that answers its next question."""
        return replace(
            self,
            mixture=configuration.name,
            configuration=_without_secrets(configuration.data()),
            layers=layers,
        )

    def asked(self, question: str, turn: int) -> Chat:
        """Return it with one more question.

        Args:
            question: The question.
            turn: Its place in the conversation, from 1.
        """
        return replace(
            self,
            title=self.title or cut(one_line(question), _TITLE),
            turns=turn,
            updated=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _without_secrets(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_secrets(v) for k, v in value.items() if not _SECRET.search(str(k))}
    return [_without_secrets(v) for v in value] if isinstance(value, list) else value


if TYPE_CHECKING:
    from langgraph.store.sqlite import SqliteStore


class Chats:
    """The conversations in one SQLite file, which only its user can read.

    Args:
        path: The file, which is made if necessary; None to keep nothing.

    Raises:
        OSError: If the file cannot be made.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        if path is not None and not path.exists():
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))

    @classmethod
    def at(cls, store: str | None) -> Chats:
        """Return the conversations of a file; by default, of the file in the user's data folder.

        Raises:
            OSError: If the file cannot be made.
        """
        if store == IN_MEMORY:
            return cls(None)
        folder = platformdirs.user_data_path("moa-graph", appauthor=False)
        return cls(Path(store).expanduser() if store else folder / "chats.sqlite")

    def prepare(self) -> None:
        """Make the tables of the file.

        Raises:
            sqlite3.Error: If the file is no database, or cannot be written.
        """
        with self._records():
            pass
        if self.path is not None:
            from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: PLC0415 - takes time

            with SqliteSaver.from_conn_string(str(self.path)) as saver:
                saver.setup()

    def all(self) -> list[Chat]:
        """Return the conversations, the latest first."""
        with self._records() as records:
            found = records.search(_PLACE, limit=_MOST) if records else []
        known = {field.name for field in fields(Chat)}  # a later version may write more
        chats = [Chat(**{k: v for k, v in item.value.items() if k in known}) for item in found]
        return sorted(chats, key=lambda chat: chat.updated, reverse=True)

    def find(self, name: str) -> Chat:
        """Return a conversation by its id, the beginning of its id, or `"last"`.

        Raises:
            ValueError: If there is none, or several begin so.
        """
        chats = self.all()
        if name == LAST and chats:
            return chats[0]
        found = [chat for chat in chats if chat.id.startswith(name)] if name else []
        if len(found) != 1:
            what = "several conversations begin" if found else "no conversation begins"
            raise ValueError(f"{what} with {name!r}: `moa chats` lists them.")
        return found[0]

    def save(self, chat: Chat) -> None:
        """Write what is known of a conversation."""
        with self._records() as records:
            if records:
                records.put(_PLACE, chat.id, vars(chat), index=False)

    def remove(self, chat: Chat) -> None:
        """Delete a conversation with all of its checkpoints."""
        with self._records() as records:
            if records:
                records.delete(_PLACE, chat.id)
        if self.path is not None:
            from langgraph.checkpoint.sqlite import SqliteSaver  # noqa: PLC0415 - takes time

            with SqliteSaver.from_conn_string(str(self.path)) as saver:
                saver.delete_thread(chat.id)
                saver.conn.execute("VACUUM")  # else the text stays in the file

    async def take(self, chat: Chat, memory: BaseCheckpointSaver[Any]) -> bool:
        """Keep a conversation whose checkpoints are in memory.

        Args:
            chat: What is known of it.
            memory: The checkpointer that has its checkpoints.

        Returns:
            Whether there is something to go on with.
        """
        thread: RunnableConfig = {"configurable": {"thread_id": chat.id, "checkpoint_ns": ""}}
        found = [kept async for kept in memory.alist(thread)]
        if not found or self.path is None:
            return False
        async with self.saver() as saver:
            for one in reversed(found):
                versions = one.checkpoint["channel_versions"]
                place = await saver.aput(
                    one.parent_config or thread, one.checkpoint, one.metadata, versions
                )
                for task, channel, value in one.pending_writes or ():
                    await saver.aput_writes(place, [(channel, value)], task)
        self.save(chat)
        return True

    @asynccontextmanager
    async def saver(self) -> AsyncIterator[BaseCheckpointSaver[Any]]:
        """Open the checkpointer."""
        if self.path is None:
            yield InMemorySaver()
            return
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver  # noqa: PLC0415 - takes time

        async with AsyncSqliteSaver.from_conn_string(str(self.path)) as saver:
            await saver.setup()
            yield saver

    @contextmanager
    def _records(self) -> Iterator[SqliteStore | None]:
        if self.path is None:
            yield None
            return
        from langgraph.store.sqlite import SqliteStore  # noqa: PLC0415 - takes time

        with SqliteStore.from_conn_string(str(self.path)) as records:
            records.setup()
            yield records


def opened(store: str | None, *, needed: bool = False) -> Chats:
    """Return the conversations of a file; in memory after a message, if that is not possible.

    Args:
        store: The value of `--store`.
        needed: Whether a conversation of the file is to be read.

    Raises:
        typer.Exit: With code 2 after a message, if the file is needed and cannot be used.
    """
    chats = Chats(None)
    try:
        chats = Chats.at(store)
        chats.prepare()
    except (OSError, sqlite3.Error) as error:
        place = f" in {chats.path}" if chats.path else ""
        if needed:
            wrong(f"The conversations{place} cannot be used: {error}.")
        other = "`--store FILE` keeps them in another file."
        say(f"Conversations are not kept{place}: {error}. {other}")
        return Chats(None)
    return chats


def chats(
    remove: Annotated[
        str | None, typer.Option("--remove", metavar="ID", help="Delete one, with its answers.")
    ] = None,
    store: StoreOption = None,
) -> None:
    """List the conversations of `moa chat`, the latest first; `moa chat --resume ID` goes on."""
    try:
        kept = Chats.at(store)
        if remove is not None:
            chat = kept.find(remove)
            kept.remove(chat)
            say(f"Removed {chat.id}: {chat.title}")
            return
        found = kept.all()
    except ValueError as error:
        wrong(str(error))
    except (OSError, sqlite3.Error) as error:
        wrong(f"The conversations cannot be read: {error}.")
    console = new_console()
    for chat in found:
        when = datetime.fromisoformat(chat.updated).astimezone().strftime("%Y-%m-%d %H:%M")
        columns = [chat.id, when, counted(chat.turns, "turn"), one_line(chat.mixture)]
        if console.is_terminal:
            start = "  ".join(map(padded, columns, (8, 16, 9, max(8, console.width // 8))))
            typer.echo(cut(f"{start}  {one_line(chat.title)}", console.width))
        else:
            typer.echo("\t".join([*columns, one_line(chat.title)]))
    if not found:
        say("No conversation is kept: `moa chat` begins one.")
