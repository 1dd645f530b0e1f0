"""The fake server in a process of its own, so that its work is not counted as the client's."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from tests.fake_server import FakeServer


class Server:
    """`with running() as server: server.url`."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url: str = pipe.recv()

    def reset(self) -> None:
        """Forget the calls, and begin the random latencies anew."""
        self._ask("reset")

    def calls(self) -> list[tuple[str, str, float, float]]:
        """Of each call: model, question, and when it began and ended (`time.monotonic`)."""
        return self._ask("calls")

    def answer(self, text: str, label: str = "") -> None:
        """What every model, or the one with that label, answers until the next reset."""
        self._ask("answer", text, label)

    def totals(self) -> dict[str, float]:
        """Calls, prompt tokens and completion tokens since the last reset."""
        return self._ask("totals")

    def forget_calls(self) -> None:
        """Forget the calls, and nothing else."""
        self._ask("forget")

    def prompts(self) -> list[tuple[str, str]]:
        """Of each call that has ended: its model, and its prompt as one text."""
        return self._ask("prompts")

    def spent(self) -> list[tuple[str, int, int, int, float, float]]:
        """Of each call: model, tokens of the prompt, of them cached, of the answer, begin, end.

        Tokens are those that `prefill` counts.
        """
        return self._ask("spent")

    def _ask(self, *what: str) -> Any:
        self._pipe.send(what)
        return self._pipe.recv()


@contextmanager
def running() -> Iterator[Server]:
    """The server, until the block ends."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(there,), daemon=True)
    process.start()
    try:
        yield Server(here)
    finally:
        process.terminate()


def _serve(pipe: Connection) -> None:
    with FakeServer() as server:
        pipe.send(server.url)
        while True:
            what, *given = pipe.recv()
            ended = [c for c in server.calls if c.ended is not None]
            told: Any = None
            if what == "reset":
                server.reset()
            elif what == "answer":
                text, label = given
                if label:
                    server.answers[label] = text
                else:
                    server.answer_all = text
            elif what == "totals":
                used = [c.usage for c in server.calls]
                told = {
                    "calls": len(server.calls),
                    "prompt": sum(u.get("prompt_tokens", 0) for u in used),
                    "completion": sum(u.get("completion_tokens", 0) for u in used),
                }
            elif what == "forget":
                server.calls.clear()
            elif what == "spent":
                told = [
                    (c.label, c.prompt, c.cached, c.usage.get("completion_tokens", 0), c.started,
                     c.ended)
                    for c in ended
                ]  # fmt: skip
            elif what == "prompts":
                told = [(c.model, _as_text(c.messages)) for c in ended]
            else:
                told = [(c.model, _question(c.messages), c.started, c.ended) for c in ended]
            pipe.send(told)


def _as_text(messages: list[dict[str, Any]]) -> str:
    # Without an end of the last message: what is prefilled goes on there.
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _question(messages: list[dict[str, Any]]) -> str:
    """The line that names the run, wherever a contender puts it."""
    for message in reversed(messages):
        for word in str(message["content"]).split():
            if word.startswith("run-"):
                return word.strip(".,'\"")
    return ""


def critical_paths(
    calls: list[tuple[str, str, float, float]], aggregator: str = "agg"
) -> dict[str, float]:
    """The shortest time that each run could take: the slowest call of each layer, added up.

    A layer's calls of one run are those that overlap: the next begins when all have ended.
    """
    paths: dict[str, float] = {}
    by_run: dict[str, list[tuple[float, float]]] = {}
    for _, question, started, ended in calls:
        by_run.setdefault(question, []).append((started, ended))
    for question, spans in by_run.items():
        total, until, longest = 0.0, float("-inf"), 0.0
        for started, ended in sorted(spans):
            if started >= until:
                total, longest = total + longest, 0.0
            longest = max(longest, ended - started)
            until = max(until, ended)
        paths[question] = total + longest
    return paths
