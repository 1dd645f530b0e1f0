"""What every client must do with every feature: the same checks for all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fake_server import Call, FakeServer, eventually
from tests.integration.conftest import PNG

KEY = "alice-0123456789abcdef"
PATIENCE = 300  # seconds for one request, the first of which waits for imports
LONG = "one two three four five six"
MODELS = {
    "text": "agg-text",
    "stream": "agg-stream?tps=20",
    "tools": "agg-tools?steps=1&parallel=2",
    "structured": "agg-structured",
    "images": "agg-images",
    "cancel": "agg-cancel?tps=5",
    "down": "agg-down?status=401",
    "cut": "agg-cut?cut=3&tps=20",
}
"""The aggregator of each mixture that the clients ask, which says what it does."""
BREAKS_AT = b"two"
"""Where the broken connection ends an answer with that text."""
FOUND = "Jazz in the park."
ANSWERS = {
    "agg-stream": LONG,
    "agg-cut": LONG,
    "agg-cancel": "word " * 1000,
    "agg-tools": FOUND,
}


def assistant_of(name: str) -> dict[str, Any]:
    """Return the settings of the assistant for a mixture."""
    proposers = [f"openai:{label}-{name}" for label in "ab"]
    return {"proposers": proposers, "aggregator": f"openai:{MODELS[name]}"}


@dataclass
class Session:
    """A client's script that waits for requests.

    Args:
        process: The script.
        kind: Which of the script's clients, if it has several.
        url: The server with the mixtures.
        broken_url: The same server, behind a connection that breaks in the midst of an answer.
        server: The server of the models.
        mark: A text that is in all questions of this client, and of no other.
        models: The name of each mixture for this client.
        says_unknown: What the API says of a model that does not exist.
    """

    process: asyncio.subprocess.Process
    kind: str
    url: str
    broken_url: str
    server: FakeServer
    mark: str
    models: dict[str, str]
    says_unknown: str = "Unknown model"
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Results that several features are checked with."""

    async def ask(
        self, do: str, model: str, question: str = "hi", *, key: str = KEY, url: str | None = None
    ) -> Any:
        """Send a request, and return its result."""
        question = f"{question} ({self.mark})"
        asked = {
            "do": do,
            "model": self.models.get(model, model),
            "question": question,
            "url": url or self.url,
            "key": key,
            "kind": self.kind,
        }
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked).encode() + b"\n")
        try:
            line = await asyncio.wait_for(self.process.stdout.readline(), PATIENCE)
        except TimeoutError:
            self.process.kill()  # what it says later would be taken for the next result
            raise AssertionError(f"no result of {do} in {PATIENCE} s") from None
        assert line, "the script has ended"
        return json.loads(line)

    async def answer(self, do: str, model: str, question: str = "hi") -> Any:
        """Send a request that must not fail, and return its result."""
        if (result := self.told.get(do)) is None:
            result = self.told[do] = await self.ask(do, model, question)
        assert "error" not in result, f"{result['error']}: {result['message']}"
        return result

    def calls(self, model: str, *labels: str) -> list[Call]:
        """Return the calls of the models of a mixture that this client has caused."""
        names = {f"{label}-{model}" for label in labels or ("a", "b", "agg")}
        return [
            call
            for call in self.server.calls
            if call.label in names and f"({self.mark})" in json.dumps(call.messages)
        ]


async def text(client: Session) -> None:
    """An answer is that of the aggregator."""
    told = (await client.answer("text", "text"))["text"]
    assert told == f"agg-text: hi ({client.mark})", f"the text is {told!r}"


async def stream(client: Session) -> None:
    """A streamed answer comes in several pieces, and is whole."""
    pieces = (await client.answer("stream", "stream"))["pieces"]
    assert "".join(pieces) == LONG, f"the pieces are {pieces}"
    assert len(pieces) > 1, "it came in one piece"


async def tools(client: Session) -> None:
    """Two calls of a tool are run by the client; the answer follows from their results."""
    told = (await client.answer("tools", "tools", "What is on in 'SF'?"))["text"]
    assert told == FOUND, f"the text is {told!r}"
    seen = [m for m in client.calls("tools", "agg")[-1].messages if m["role"] == "tool"]
    assert [m["content"] for m in seen] == ["found SF"] * 2, f"the results are {seen}"
    assert len({m["tool_call_id"] for m in seen}) == 2, f"the results are {seen}"


async def structured(client: Session) -> None:
    """A structured answer has the values that the model found."""
    question = "It is 12 degrees in 'SF'."
    value = (await client.answer("structured", "structured", question))["value"]
    assert value == {"city": "SF", "degrees": 12}, f"the value is {value}"


async def images(client: Session) -> None:
    """A picture reaches each proposer as it was sent."""
    await client.answer("images", "images")
    for label in "ab":
        (call,) = client.calls("images", label)
        assert f"data:image/png;base64,{PNG}" in json.dumps(call.messages), call.messages


async def usage(client: Session) -> None:
    """The tokens of an answer are the sum of all models' tokens."""
    await _sum(client, "text")


async def streamed_usage(client: Session) -> None:
    """So are those of a streamed answer."""
    await _sum(client, "stream")


async def _sum(client: Session, do: str) -> None:
    told = (await client.answer(do, do))["usage"]
    used = [call.usage for call in client.calls(do)]
    names = ("prompt_tokens", "completion_tokens")
    sums = [sum(tokens[name] for tokens in used) for name in names]
    assert told == sums, f"{do}: the client tells {told}, and the models {sums}"


async def cancel(client: Session) -> None:
    """A client that aborts a stream ends the call of the model, while the client runs on."""
    result = await client.ask("cancel", "cancel")
    assert "error" not in result, f"{result['error']}: {result['message']}"
    assert result["pieces"], "there was no piece to abort at"
    (call,) = client.calls("cancel", "agg")
    await eventually(lambda: call.disconnected, 30)


async def errors(client: Session) -> None:
    """Errors are raised with their message; a failed run is not repeated, or taken for whole."""
    await _raised(client, "text", "text", "Invalid API key", key="wrong-0123456789abcdef")
    await _raised(client, "text", "unknown", client.says_unknown)
    for do in ("text", "stream"):
        await _raised(client, do, "down", "aggregator")
    runs = len(client.calls("down", "a"))
    assert runs == 2, f"the client repeated failed runs: two requests were {runs}"
    result = await _raised(client, "stream", "cut", "aggregator")
    assert LONG.startswith("".join(result["pieces"])), f"the pieces are {result['pieces']}"
    assert len(client.calls("cut", "a")) == 1, "the client repeated a run that was cut"
    result = await client.ask("stream", "stream", url=client.broken_url)
    # LangGraph's SDK may connect again, and read the rest.
    whole = "".join(result["pieces"]) == LONG
    assert whole or "error" in result, f"the client took a part for the whole: {result}"


async def _raised(client: Session, do: str, model: str, says: str, **given: str) -> Any:
    result = await client.ask(do, model, **given)
    assert "error" in result, f"{do} of {model}: no error, but {result}"
    said = result["message"]
    assert says in said, f"{do} of {model}: the error does not say {says!r}: {said[:500]}"
    return result


FEATURES: dict[str, Callable[[Session], Awaitable[None]]] = {
    "text": text,
    "stream": stream,
    "tools": tools,
    "structured": structured,
    "images": images,
    "usage": usage,
    "streamed usage": streamed_usage,
    "cancel": cancel,
    "errors": errors,
}
"""The columns of the table."""
