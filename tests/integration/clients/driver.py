"""Drive the clients through all features, and write down what works."""

from __future__ import annotations

import asyncio
import os
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import IO

from langgraph_sdk import get_sync_client
from langgraph_sdk.schema import Assistant

from tests.fake_server import FakeServer
from tests.integration.clients.checks import (
    ANSWERS,
    BREAKS_AT,
    FEATURES,
    KEY,
    MODELS,
    Session,
    assistant_of,
)
from tests.integration.clients.clients import RUNS, Client, installed, start
from tests.integration.clients.proxy import cutting_proxy
from tests.integration.langgraph_server import LangGraphServer, langgraph_dev

AT_ONCE = 6  # scripts; most of their time is waiting for runs to begin
TO_END = 30  # seconds for a script to end when it has no more requests
NOT_OFFERED = "–"
OTHERS = ("ANTHROPIC_", "LANGCHAIN_", "LANGSMITH_", "LITELLM_", "LLM_", "MOA_", "OPENAI_")
"""What variables begin with that would set up the clients."""
NOBODY = "00000000-0000-0000-0000-000000000000"  # no assistant has this id

Row = dict[str, str]
"""For each feature: nothing if it works, `–` if the client does not have it, or what is wrong."""
Table = list[tuple[Client, Row]]


@contextmanager
def guarded_server(models: FakeServer, folder: Path) -> Iterator[LangGraphServer]:
    """A server with an API key, whose models are those of the fake server."""
    settings = {
        "MOA_API_KEYS": f"alice={KEY}",
        "MOA_ALLOWED_MODELS": "openai:*",
        "MOA_RUNS_PER_MINUTE": "100000",
        "OPENAI_BASE_URL": models.url,
        "OPENAI_API_KEY": "sk-test-0123456789",
    }
    with langgraph_dev(folder, "--n-jobs-per-worker", "10", **settings) as server:
        yield server


async def drive(clients: Sequence[Client], server: FakeServer, url: str) -> Table:
    """Drive clients through all features.

    Args:
        clients: The clients.
        server: The server of the models.
        url: The server with the key, whose models those are.
    """
    scripts: dict[str, list[Client]] = {}
    for client in clients:
        scripts.setdefault(client.script, []).append(client)
    places = {those[0].place for those in scripts.values()}
    await asyncio.gather(*(asyncio.to_thread(installed, place) for place in places))
    commands = {script: start(those[0].place, script) for script, those in scripts.items()}
    made = _mixtures(url)
    server.answers |= ANSWERS
    free = asyncio.Semaphore(AT_ONCE)

    def session(client: Client, process: Process) -> Session:
        native = client.api == RUNS
        names = {name: m["assistant_id"] if native else m["name"] for name, m in made.items()}
        return Session(
            process,
            client.kind,
            url,
            broken_url,
            server,
            mark=client.title,
            models={**names, "unknown": NOBODY if native else "unknown"},
            says_unknown="not found" if native else "Unknown model",
        )

    async def rows(script: str) -> Table:
        async with free, _started(commands[script]) as (process, log):
            return [
                (client, await _row(client, session(client, process), log))
                for client in scripts[script]
            ]

    longest_first = sorted(scripts, key=lambda script: -len(scripts[script]))
    async with cutting_proxy(url, BREAKS_AT) as broken_url:
        tables = await asyncio.gather(*map(rows, longest_first))
    found = {client.title: row for table in tables for client, row in table}
    return [(client, found[client.title]) for client in clients]


def _mixtures(url: str) -> dict[str, Assistant]:
    """Create an assistant for each mixture."""
    with get_sync_client(url=url, api_key=KEY) as client:
        return {
            name: client.assistants.create(
                "mixture", name=f"moa-{name}", context=assistant_of(name)
            )
            for name in MODELS
        }


@asynccontextmanager
async def _started(command: Sequence[str]) -> AsyncIterator[tuple[Process, IO[bytes]]]:
    """A started script, and the file that its messages are in."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OTHERS) and "API_KEY" not in k}
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=PIPE, stdout=PIPE, stderr=log, env=kept, limit=2**24
        )
        try:
            yield process, log
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), TO_END)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _row(client: Client, session: Session, log: IO[bytes]) -> Row:
    row = {}
    for feature, check in FEATURES.items():
        try:
            await check(session)
            row[feature] = "" if feature not in client.without else "it works, against the note"
        except Exception as error:
            row[feature] = str(error) or type(error).__name__
            if session.process.returncode is not None:
                log.seek(0)
                row[feature] += f": {log.read().decode()[-2000:]}"
            elif feature in client.without:
                row[feature] = NOT_OFFERED
    return row


# --- the table ---------------------------------------------------------------------------------


def markdown(table: Table) -> str:
    """Return the table as Markdown, with a note for each cell that needs one."""
    notes: list[str] = []

    def cell(client: Client, feature: str, found: str) -> str:
        sign = "✓" if not found else found if found == NOT_OFFERED else "✗"
        note = found if sign == "✗" else {**client.without, **client.notes}.get(feature, "")
        if not note:
            return sign
        if note not in notes:
            notes.append(note)
        return f"{sign} {notes.index(note) + 1}"

    lines = [["client", "API", *FEATURES], ["---"] * (2 + len(FEATURES))]
    lines += [
        [f"`{client.name}`", client.api, *(cell(client, f, row[f]) for f in FEATURES)]
        for client, row in table
    ]
    listed = [f"{number}. {' '.join(note.split())}" for number, note in enumerate(notes, start=1)]
    return "\n".join([*(f"| {' | '.join(line)} |" for line in lines), "", *listed])
