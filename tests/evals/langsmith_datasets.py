"""A server of LangSmith's datasets, experiments and feedback, as far as its client asks for them."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlparse
from uuid import uuid4


class LangSmithDatasets:
    """Listens on a port of this machine; remembers what it was told."""

    def __init__(self) -> None:
        self.datasets: dict[str, dict[str, Any]] = {}
        self.examples: dict[str, dict[str, Any]] = {}
        self.sessions: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.feedback: list[dict[str, Any]] = []

    def __enter__(self) -> LangSmithDatasets:
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _handle(self) -> None:
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    body = b""
                    while size := int(self.rfile.readline(), 16):
                        body += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                url = urlparse(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                kind = self.headers.get("Content-Type", "")
                answer = json.dumps(service.answer(self.command, url.path, query, kind, body))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer.encode())

            def do_GET(self) -> None:
                self._handle()

            def do_POST(self) -> None:
                self._handle()

            def do_PATCH(self) -> None:
                self._handle()

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *args: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add_dataset(self, name: str) -> str:
        key = str(uuid4())
        now = datetime.now(UTC).isoformat()
        self.datasets[key] = {
            "id": key,
            "name": name,
            "created_at": now,
            "modified_at": now,
            "example_count": 0,
            "session_count": 0,
        }
        return key

    def add_example(self, dataset: str, parts: dict[str, Any], key: str | None = None) -> None:
        key = key or str(uuid4())
        now = datetime.now(UTC).isoformat()
        self.examples[key] = {
            "id": key,
            "dataset_id": dataset,
            "created_at": now,
            "modified_at": now,
            "inputs": parts.get("inputs"),
            "outputs": parts.get("outputs"),
            "metadata": parts.get("", {}).get("metadata"),
            "runs": [],
        }

    def answer(self, method: str, path: str, query: dict[str, str], kind: str, body: bytes) -> Any:
        if path == "/info":
            return {
                "version": "0.10.0",
                "instance_flags": {"dataset_examples_multipart_enabled": True},
                "batch_ingest_config": {
                    "use_multipart_endpoint": False,
                    "scale_up_qsize_trigger": 1000,
                    "scale_up_nthreads_limit": 4,
                    "scale_down_nempty_trigger": 4,
                    "size_limit": 100,
                    "size_limit_bytes": 20_000_000,
                },
            }
        what = path.strip("/").split("/")
        if method == "GET":
            return self._get(what, query)
        if path.endswith("/examples"):
            return self._take_examples(what[3], kind, body)
        data = json.loads(body)
        if what[0] == "datasets":
            return self.datasets[self.add_dataset(data["name"])]
        if what[0] == "sessions":
            key = what[1] if len(what) > 1 else data["id"]
            self.sessions[key] = {
                **self.sessions.get(key, {}),
                **{name: value for name, value in data.items() if value is not None},
                "id": key,
            }
            now = datetime.now(UTC).isoformat()
            return {"tenant_id": str(uuid4()), "start_time": now, **self.sessions[key]}
        if what[0] == "feedback":
            self.feedback += data if isinstance(data, list) else [data]
            return {}
        if what[0] == "runs":
            for run in data.get("post", []) + data.get("patch", []):
                self.runs.setdefault(run["id"], {}).update(run)
        return {}

    def _get(self, what: list[str], query: dict[str, str]) -> Any:
        if what[0] == "datasets":
            found = [d for d in self.datasets.values() if query.get("name") in {None, d["name"]}]
            return self.datasets[what[1]] if len(what) > 1 else found
        if what[0] == "examples":
            found = [e for e in self.examples.values() if e["dataset_id"] == query["dataset"]]
            start = int(query.get("offset", 0))
            return found[start : start + int(query.get("limit", 100))]
        return []

    def _take_examples(self, dataset: str, kind: str, body: bytes) -> Any:
        found: dict[str, dict[str, Any]] = {}
        for part in (
            BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + body).get_payload()
        ):
            name = part.get_param("name", header="content-disposition")
            key, _, field = name.partition(".")
            found.setdefault(key, {})[field] = json.loads(part.get_payload(decode=True))
        for key, parts in found.items():
            self.add_example(dataset, parts, key)
        return {"count": len(found), "example_ids": list(found)}
