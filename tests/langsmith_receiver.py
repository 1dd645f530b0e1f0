"""A server that speaks LangSmith's ingest protocol, and rebuilds the run trees that it would show.

It takes what LangSmith's client sends: `/info`, `/runs/multipart` (compressed or not),
`/runs/batch`, and single runs. What arrives is merged by run: a run is created by one message and
ended by another, in any order.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import zstandard
from langsmith import run_trees
from langsmith.utils import get_env_var


def forget_client() -> None:
    """LangSmith reads its environment once a process; this makes it read it again."""
    get_env_var.cache_clear()
    if (client := run_trees._CLIENT) is not None:
        client.cleanup()
    run_trees._CLIENT = None


@dataclass
class TracedRun:
    """One run, as LangSmith's page of it would show it."""

    id: str
    data: dict[str, Any] = field(default_factory=dict)
    children: list[TracedRun] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.data.get("name", "")

    @property
    def kind(self) -> str:
        return self.data.get("run_type", "")

    @property
    def inputs(self) -> Any:
        return self.data.get("inputs")

    @property
    def outputs(self) -> Any:
        return self.data.get("outputs")

    @property
    def error(self) -> str | None:
        return self.data.get("error")

    @property
    def ended(self) -> bool:
        return bool(self.data.get("end_time"))

    @property
    def tags(self) -> list[str]:
        return self.data.get("tags") or []

    @property
    def metadata(self) -> dict[str, Any]:
        return (self.data.get("extra") or {}).get("metadata") or {}

    @property
    def tokens(self) -> dict[str, Any] | None:
        """The usage of the message that a model's run returned."""
        generations = (self.outputs or {}).get("generations") or [[]]
        for generation in generations[0]:
            return generation["message"]["kwargs"].get("usage_metadata")
        return None

    def walk(self) -> Iterator[TracedRun]:
        """This run and all below it, in the order of their start."""
        yield self
        for child in self.children:
            yield from child.walk()

    def find(self, name: str) -> TracedRun:
        """The only run of that name here or below."""
        (found,) = [run for run in self.walk() if run.name == name]
        return found

    def drawn(self, depth: int = 0) -> str:
        """The tree as text, a line for each run."""
        end = "" if self.ended else " (not ended)"
        said, *_ = (self.error or "").partition("Traceback (most recent call last):")
        error = f"  ! {said.splitlines()[0]}" if said else ""
        lines = [f"{'  ' * depth}{self.name} [{self.kind}]{end}{error}"]
        return "\n".join([*lines, *(child.drawn(depth + 1) for child in self.children)])


class LangSmithReceiver:
    """Listens on a port of this machine.

    Args:
        compressed: Whether it says that it takes compressed messages.
        multipart: Whether it says that it takes multipart messages.
        status: What it answers to every message; above 299 it loses them.
        hold: Whether it answers to no message before `go_on`.
    """

    def __init__(
        self,
        *,
        compressed: bool = True,
        multipart: bool = True,
        status: int = 202,
        hold: bool = False,
    ) -> None:
        self.info = {
            "version": "0.10.0",
            "instance_flags": {"zstd_compression_enabled": compressed},
            "batch_ingest_config": {
                "use_multipart_endpoint": multipart,
                "scale_up_qsize_trigger": 1000,
                "scale_up_nthreads_limit": 4,
                "scale_down_nempty_trigger": 4,
                "size_limit": 100,
                "size_limit_bytes": 20_000_000,
            },
        }
        self.status = status
        self._free = threading.Event()
        if not hold:
            self._free.set()
        self.messages: list[tuple[str, str]] = []
        """The path and the encoding of each message."""
        # A message that creates a run may come after the one that completes it.
        self._created: dict[str, dict[str, Any]] = {}
        self._completed: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> LangSmithReceiver:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._answer(200, receiver.info)

            def do_POST(self) -> None:
                self._take("post")

            def do_PATCH(self) -> None:
                self._take("patch")

            def _take(self, operation: str) -> None:
                body = self._body()
                receiver._free.wait()
                encoding = self.headers.get("Content-Encoding", "")
                receiver.messages.append((self.path, encoding))
                if receiver.status < 300:
                    if encoding == "zstd":
                        body = zstandard.ZstdDecompressor().decompressobj().decompress(body)
                    receiver.take(operation, self.path, self.headers["Content-Type"], body)
                self._answer(receiver.status, {})

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                chunks = []
                while size := int(self.rfile.readline(), 16):
                    chunks.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(chunks)

            def _answer(self, status: int, data: Any) -> None:
                body = json.dumps(data).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def go_on(self) -> None:
        """Answer, also to what has come before."""
        self._free.set()

    def __exit__(self, *args: object) -> None:
        self.go_on()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def take(self, operation: str, path: str, content_type: str, body: bytes) -> None:
        """One message of the client."""
        if path.endswith("/multipart"):
            head = f"Content-Type: {content_type}\r\n\r\n".encode()
            for part in BytesParser().parsebytes(head + body).get_payload():
                name = part.get_param("name", header="content-disposition")
                kind, run_id, *attribute = name.split(".")
                if kind in ("post", "patch"):
                    value = json.loads(part.get_payload(decode=True))
                    self._merge(kind, run_id, {attribute[0]: value} if attribute else value)
        elif path.endswith("/batch"):
            runs = json.loads(body)
            for kind in ("post", "patch"):
                for run in runs.get(kind, []):
                    self._merge(kind, run["id"], run)
        else:
            run = json.loads(body)
            self._merge(operation, run.get("id") or path.rpartition("/")[2], run)

    def _merge(self, kind: str, run_id: str, data: dict[str, Any]) -> None:
        with self._lock:
            runs = self._created if kind == "post" else self._completed
            run = runs.setdefault(run_id, {})
            run.update({key: value for key, value in data.items() if value is not None})

    @property
    def roots(self) -> list[TracedRun]:
        """The trees so far; a run whose parent never came is a root too."""
        with self._lock:
            runs = {
                run_id: TracedRun(
                    run_id, {**self._created.get(run_id, {}), **self._completed.get(run_id, {})}
                )
                for run_id in {**self._created, **self._completed}
            }
        roots = []
        # `dotted_order` is LangSmith's: time and id of every run on the way down.
        for run in sorted(runs.values(), key=lambda run: run.data.get("dotted_order", "")):
            parent = runs.get(run.data.get("parent_run_id") or "")
            (parent.children if parent else roots).append(run)
        return roots
