"""Model servers on this machine: Ollama, LM Studio, llama.cpp and vLLM on their usual ports.

Only loopback addresses are asked, directly (no proxy, no redirect) and without an API key.
"""

from __future__ import annotations

import http.client
import json
import re
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from moa_graph.limits import CallPolicy
from moa_graph.models.providers import Environment, is_set
from moa_graph.models.this_machine import address_here
from moa_graph.presets.configuration import Configuration
from moa_graph.presets.families import PROPOSERS

TIMEOUT = 1.0
"""Seconds that a server has for its list of models."""

_LARGEST = 2**22  # bytes of a list of models
_NO_CHAT = re.compile(
    r"""
    embed | rerank | \b(?:bge|gte|e5)\b | minilm | bert\b | mpnet | col(?:bert|pali|qwen)  # vectors
    | \b(?:clip|siglip2?)\b
    | whisper | wav2vec | parakeet | speech | \b(?:asr|stt|canary)\b  # of speech
    | tts\b | kokoro | chatterbox | musicgen | \b(?:bark|piper|vits|tts\d*|xtts.*)\b  # to speech
    | diffusion | sdxl | \b(?:sd\d|sd-turbo|flux) | dall-e | \bimage\b | \bvae\b  # to images
    | \b(?:t2v|i2v|animatediff)\b | hunyuanvideo | ltx-video  # to videos
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CHATS = ("llm", "vlm")
"""Types of models that chat, as LM Studio calls them."""
_TYPES = "/api/v0/models"
_MIXTURE = "mixture"
_PORT_OF_HTTP = 80  # Ollama's own programs take it where the variable has a scheme and no port
_NUMBER = re.compile(r"[1-9][0-9]{,5}")
_ELSEWHERE = re.compile(r"[:-]cloud$")  # Ollama's names of models that its own servers run


@dataclass(frozen=True)
class Server:
    """A program that serves models with OpenAI's protocol at `/v1`."""

    name: str
    """Name of its preset."""
    title: str
    port: int
    path: str
    """Path of the list of its models."""
    concurrent: int | None
    """Calls that it answers at a time, if it does not tell; None if there is no such limit."""
    host: str = "127.0.0.1"
    """Its address, which is a loopback one."""

    @property
    def address(self) -> str:
        """Host and port."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


SERVERS = (
    Server("ollama", "Ollama", 11434, "/api/tags", 1),
    Server("lm-studio", "LM Studio", 1234, "/v1/models", 1),
    Server("llama-cpp", "llama.cpp", 8080, "/v1/models", 1),
    Server("vllm", "vLLM", 8000, "/v1/models", None),
)
"""Servers in the order in which `moa ask` looks for them."""


@dataclass(frozen=True)
class Running:
    """A server that answered."""

    server: Server
    models: tuple[str, ...]
    """Models that chat, at most `PROPOSERS`; the first one aggregates."""
    concurrent: int | None
    """Calls that it answers at a time."""

    @property
    def address(self) -> str:
        """Host and port."""
        return self.server.address

    def configuration(self) -> Configuration:
        """Return a mixture of the server's models; one model alone is sampled."""
        entries = [self._entry(model) for model in self.models]
        proposers = entries if len(entries) > 1 else [{**entries[0], "samples": PROPOSERS}]
        limited = CallPolicy(concurrent={"openai": self.concurrent}) if self.concurrent else None
        return Configuration(
            name=self.server.name,
            description=f"Models of {self.server.title} at {self.address}.",
            proposers=proposers,
            aggregator=entries[0],
            layers=2,
            calls=limited,
        )

    def _entry(self, model: str) -> dict[str, Any]:
        # The key is required by the client, not by the server; it is also not OPENAI_API_KEY.
        params = {"base_url": f"http://{self.address}/v1", "api_key": "none"}
        return {"model": f"openai:{model}", "params": {**params, "use_responses_api": False}}


def running(environment: Environment, servers: Iterable[Server] | None = None) -> list[Running]:
    """Return the servers that run here and have a model that chats, in order.

    All are asked at the same time.

    Args:
        environment: Environment variables: `OLLAMA_HOST` is another port of Ollama on this
            machine, and `OLLAMA_NUM_PARALLEL` the calls that it answers at a time.
        servers: The servers to look for; by default `SERVERS`.
    """
    expected = [_as_set(server, environment) for server in servers or SERVERS]
    present = [server for server in expected if server is not None]
    with ThreadPoolExecutor(max_workers=max(1, len(present))) as threads:
        found = list(threads.map(_look_at, present))
    return [_with_parallel(one, environment) for one in found if one is not None]


def running_server(name: str, environment: Environment) -> Running:
    """Return one server that runs here.

    Args:
        name: Name of a server in `SERVERS`.
        environment: As for `running`.

    Raises:
        ValueError: If it does not run, or has no model that chats.
    """
    (server,) = (server for server in SERVERS if server.name == name)
    for found in running(environment, [server]):
        return found
    here = _as_set(server, environment)
    if here is None:
        raise ValueError(f"{NOT_HERE} Name a model with --model.")
    raise ValueError(
        f"There is no {server.title} server with a chat model at {here.address}. Start it, "
        "or name a model with --model."
    )


NOT_HERE = "Ollama is not asked: OLLAMA_HOST names no http server on this machine."


def not_asked(environment: Environment) -> tuple[str, ...]:
    """Return a sentence about each server that is not looked for, because it is not here."""
    return () if _as_set(SERVERS[0], environment) else (NOT_HERE,)


def _as_set(server: Server, environment: Environment) -> Server | None:
    """Return the server at the address in its variable; None if that is another machine."""
    if server.name != "ollama" or not is_set(environment, "OLLAMA_HOST"):
        return server
    given = environment["OLLAMA_HOST"].strip()
    if host := address_here(given):  # also an address of IPv6 without brackets
        return replace(server, host=host)
    try:
        address = urlsplit(given if "//" in given else f"//{given}")
        port = address.port or (_PORT_OF_HTTP if "//" in given else server.port)
    except ValueError:
        return None
    host = address_here(address.hostname) if address.hostname else server.host
    if address.scheme not in ("", "http") or host is None:
        return None
    return replace(server, host=host, port=port)


def _with_parallel(one: Running, environment: Environment) -> Running:
    told = environment.get("OLLAMA_NUM_PARALLEL", "").strip()
    if one.server.name == "ollama" and _NUMBER.fullmatch(told):
        return replace(one, concurrent=int(told))
    return one


def _look_at(server: Server) -> Running | None:
    deadline = time.monotonic() + TIMEOUT
    sizes: dict[str, float] = {}
    models = _models_in(_ask(server, server.path, deadline))
    types = _types_in(_ask(server, _TYPES, deadline)) if server.name == "lm-studio" else {}
    for name, size in models.items():
        if len(sizes) >= PROPOSERS:
            break
        if types.get(name, _CHATS[0]) in _CHATS and _chats(server, name, deadline):
            sizes[name] = size
    if not sizes:
        return None
    concurrent = server.concurrent
    if server.name == "llama-cpp":
        slots = (_ask(server, "/props", deadline) or {}).get("total_slots")
        concurrent = slots if type(slots) is int and slots > 0 else concurrent
    largest_first = sorted(sizes, key=lambda name: -sizes[name])
    return Running(server, tuple(largest_first), concurrent)


def _models_in(listed: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the sizes of models by name, in a list of Ollama or of OpenAI's protocol.

    Sizes that are not told are 0. Models that do not chat, such as those of embeddings, speech or
    images, and models on other machines, are left out.
    """
    entries = (listed or {}).get("models") or (listed or {}).get("data")
    found: dict[str, float] = {}
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, Mapping):
            continue
        name = entry.get("id") or entry.get("model") or entry.get("name")
        if name == _MIXTURE:  # a server of this package: a mixture must not ask itself
            return {}
        if isinstance(name, str) and _is_usable(name) and not _is_left_out(name, entry):
            size = entry.get("size")
            # A size may be NaN, which is not above 0.
            found[name] = size if isinstance(size, int | float) and size > 0 else 0
    return found


def _types_in(listed: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the types of models by name, as LM Studio tells them."""
    entries = (listed or {}).get("data")
    known = [e for e in entries if isinstance(e, Mapping)] if isinstance(entries, list) else []
    named = [(e.get("id"), e.get("type")) for e in known]
    return {n: kind for n, kind in named if isinstance(n, str) and isinstance(kind, str)}


def _is_usable(name: str) -> bool:
    """Return whether a name can be written in `"provider:model"`, and shown."""
    return name.isprintable() and bool(name.strip(": ")) and not name.startswith(":")


def _is_left_out(name: str, entry: Mapping[str, Any]) -> bool:
    details = entry.get("details")
    family = str(details.get("family", "")) if isinstance(details, Mapping) else ""
    runs_elsewhere = bool(entry.get("remote_host")) or _ELSEWHERE.search(name) is not None
    no_chat = any(_NO_CHAT.search(told.replace("_", "-")) for told in (name, family))
    return runs_elsewhere or no_chat or not _completes(entry)


def _completes(told: Mapping[str, Any]) -> bool:
    """Return whether a model writes text, as far as its description tells."""
    capabilities = told.get("capabilities")
    return not isinstance(capabilities, list) or not capabilities or "completion" in capabilities


def _chats(server: Server, model: str, deadline: float) -> bool:
    """Return whether a model answers chats, as far as its server tells."""
    if server.name != "ollama":
        return True
    return _completes(_ask(server, "/api/show", deadline, {"model": model}) or {})


def _ask(
    server: Server, path: str, deadline: float, body: Mapping[str, Any] | None = None
) -> dict[str, Any] | None:
    """Return the JSON object at a path; None if there is none in time.

    Args:
        server: The server.
        path: Path of the request.
        deadline: Time of the monotonic clock after which the rest is not read.
        body: Data to post; by default the request is a GET.
    """
    left = deadline - time.monotonic()
    if left <= 0:
        return None
    connection = http.client.HTTPConnection(server.host, server.port, timeout=left)
    try:
        data = None if body is None else json.dumps(body)
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        connection.request("GET" if body is None else "POST", path, data, headers)
        response = connection.getresponse()
        read = b""
        while piece := response.read1(2**16):
            read += piece
            if len(read) > _LARGEST or time.monotonic() > deadline:
                return None
        value = json.loads(read) if response.status == http.HTTPStatus.OK else None
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return None
    finally:
        connection.close()
    return value if isinstance(value, dict) else None
