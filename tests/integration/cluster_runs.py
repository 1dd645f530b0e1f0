"""Runs and streams of two servers over one queue, of which one is killed and one is stopped."""

from __future__ import annotations

import asyncio
from collections import Counter

import httpx
import openai
import psutil
import psycopg
from langgraph.checkpoint.postgres import PostgresSaver

from tests.fake_server import eventually

ALICE = "alice-0123456789abcdef"
LAYERS = [[("a", 0.4), ("b", 1.5), ("c", 2.5)], [("d", 0.4), ("e", 1.5), ("f", 2.5)]]
MIXTURE = {
    "proposers": [
        [{"model": f"openai:{name}?latency={seconds}", "name": name} for name, seconds in layer]
        for layer in LAYERS
    ],
    "aggregator": "openai:agg",
}
WAVE = 20  # runs before a process is killed, and as many before the other one is stopped
STREAMS = 3  # of each kind
WORDS = {"short": 20, "long": 600}  # at 20 tokens a second: less and more time than streams have


class Runs:
    """Runs in threads of their own, whose shape is not that of their assistant."""

    def __init__(self, assistant: str, server, database: str) -> None:
        self._assistant = assistant
        self._server = server
        self._database = database
        self.started: list[tuple[str, str]] = []

    async def start(self, clients) -> None:
        """Start a wave of runs, half of them at each server."""

        async def one(number: int) -> tuple[str, str]:
            client = clients[number % 2]
            shape = (
                {"context": MIXTURE} if number % 4 < 2 else {"config": {"configurable": MIXTURE}}
            )
            thread = (await client.threads.create())["thread_id"]
            question = asked(f"question {number}.")
            run = await client.runs.create(thread, self._assistant, input=question, **shape)
            return thread, run["run_id"]

        first = len(self.started)
        self.started += await asyncio.gather(*map(one, range(first, first + WAVE)))

    def calls(self) -> Counter[tuple[str, str]]:
        """How often each model was asked each question."""
        return Counter((c.messages[-1]["content"], c.label) for c in self._server.calls)

    def in_the_middle(self, process: int) -> int:
        """Runs of a process with a layer of which some proposers have answered, and some not."""
        middle = set()
        for layer in LAYERS:
            names = {name for name, _ in layer}
            told = [c for c in self._server.calls if c.label in names and not c.disconnected]
            done = {c.messages[-1]["content"] for c in told if c.ended}
            middle |= done & {c.messages[-1]["content"] for c in told if not c.ended}
        threads = {thread: number for number, (thread, _) in enumerate(self.started)}
        with psycopg.connect(self._database) as connection:
            rows = connection.execute(
                "SELECT thread_id FROM runs WHERE status = 'running' AND claimed_by LIKE %s",
                [f"%-{process}-worker-%"],
            )
            return sum(f"question {threads.get(thread)}." in middle for (thread,) in rows)

    def stored(self) -> dict[tuple[str, str], int]:
        """The proposals that are in the database, and how often each was asked for."""
        found = set()
        with PostgresSaver.from_conn_string(self._database) as saver:
            for number, (thread, _) in enumerate(self.started):
                checkpoint = saver.get_tuple({"configurable": {"thread_id": thread}})
                if checkpoint is None:
                    continue
                known = list(checkpoint.checkpoint["channel_values"].get("proposals", ()))
                for _, channel, value in checkpoint.pending_writes or ():
                    known += value if channel == "proposals" else []
                found |= {(f"question {number}.", p["proposer"]) for p in known}
        calls = self.calls()
        return {one: calls[one] for one in found}

    async def end(self, client) -> None:
        """Wait until all have ended, and check their answers."""

        async def finished(thread: str, run: str) -> str:
            while True:
                status = (await client.runs.get(thread, run))["status"]
                if status not in ("pending", "running"):
                    return status
                await asyncio.sleep(0.5)

        async with asyncio.timeout(90):
            statuses = await asyncio.gather(*(finished(*ids) for ids in self.started))
        assert Counter(statuses) == {"success": len(self.started)}
        for number, (thread, _) in enumerate(self.started):
            state = (await client.threads.get_state(thread))["values"]
            assert state["messages"][-1]["content"] == f"agg: question {number}."
            assert [p["proposer"] for p in state["proposals"]] == list("abcdef")
            assert {p["status"] for p in state["proposals"]} == {"ok"}


class Streams:
    """Streams of short and of long answers, through `/v1` and through the server's own API."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.texts: dict[tuple[str, int], str] = {}
        self.tasks: list[asyncio.Task[tuple[str, str | None]]] = []

    async def open(self, name: str, client) -> None:
        """Open streams of that answer, and wait until they have begun."""
        context = {"proposers": ["openai:p"], "aggregator": f"openai:{name}?tps=20"}
        await client.assistants.create("mixture", name=name, context=context)
        for number in range(STREAMS):
            for kind in (self._v1, self._own):
                key = (f"{kind.__name__} {name}", number)
                self.texts[key] = ""
                self.tasks.append(asyncio.create_task(self._one(name, kind, key, client)))
        await eventually(lambda: all(self.texts.values()), 30)

    async def _one(self, name: str, kind, key, client) -> tuple[str, str | None]:
        """What was asked for, and its text; None instead of it if the stream was an error."""
        try:
            async for text in kind(name, client):
                self.texts[key] += text
        except (openai.APIError, httpx.HTTPError):
            return name, None
        return name, self.texts[key]

    async def _v1(self, name: str, client):
        async with openai.AsyncOpenAI(base_url=f"{self._url}/v1", api_key=ALICE) as openais:
            stream = await openais.chat.completions.create(
                model=name, messages=asked(name)["messages"], stream=True
            )
            async for chunk in stream:
                yield chunk.choices[0].delta.content or ""

    async def _own(self, name: str, client):
        (found,) = await client.assistants.search(name=name)
        async for part in client.runs.stream(
            None, found["assistant_id"], input=asked(name), stream_mode="messages-tuple"
        ):
            if part.event == "error":
                raise httpx.ReadError(str(part.data))
            if part.event == "messages":
                yield part.data[0]["content"]


def asked(content: str) -> dict:
    """The input of a run."""
    return {"messages": [{"role": "user", "content": content}]}


def is_gone(process: int) -> bool:
    try:
        return psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
