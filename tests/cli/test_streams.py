"""Standard streams that are closed, full, or read by nobody, and Ctrl-C at any time."""

from __future__ import annotations

import errno
import os
import subprocess
import sys

import pytest

from moa_graph import create_moa
from moa_graph.cli.consoles import new_console
from moa_graph.cli.view import RunView

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs a shell and /dev/full")

CONFIG = """
proposers = ["openai:a", "openai:b?latency=0.1"]
aggregator = "openai:agg?tps=300"
"""


@pytest.fixture
def shell(server, monkeypatch, tmp_path):
    """`shell("moa ask hi | head -1")`: what a shell does, with models of the fake server."""
    server.answers["agg"] = "one\n" + "word " * 60 + "\n" + "word " * 60
    (tmp_path / "ask.toml").write_text(CONFIG)
    (tmp_path / "moa").write_text(f'#!/bin/sh\nexec {sys.executable} -m moa_graph "$@"\n')
    (tmp_path / "moa").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789abcdef")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("MOA_CHATS", str(tmp_path / "chats.sqlite"))

    def run(command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


FULL = "Nothing can be written: No space left on device.\n"


QUICK = [
    ("moa ask hi -c ask.toml --show-proposals | head -1", 1, ""),
    ("moa ask hi -c ask.toml > /dev/full", 1, FULL),
    ("moa ask hi -c ask.toml <&- >&- 2>&-", 0, ""),
    ("moa ask - -c ask.toml <&-", 2, "The question is blank.\n"),
]
OTHERS = [
    ("moa ask hi -c ask.toml | head -1", 1, ""),
    ("moa ask hi -c ask.toml --json | true", 1, ""),
    ("moa presets | true", 1, ""),
    ("moa ask hi -c ask.toml --show-proposals > /dev/full", 1, FULL),
    ("moa ask hi -c ask.toml --json > /dev/full", 1, FULL),
    ("moa presets > /dev/full", 1, FULL),
    ("moa draw -c ask.toml > /dev/full", 1, FULL),
    ("moa --help > /dev/full", 1, FULL),
    ("echo hi | moa chat -c ask.toml > /dev/full", 1, FULL),
    ("moa ask hi -c ask.toml 2> /dev/full", 1, ""),
    ("moa ask hi -c ask.toml >&-", 0, ""),
    ("moa ask hi -c ask.toml 2>&-", 0, ""),
    ("moa presets >&-", 0, ""),
    ("moa chat -c ask.toml <&-", 0, "Ctrl-D leaves.\n"),
]


@pytest.mark.parametrize(
    ("command", "code", "ends"),
    [*QUICK, *(pytest.param(*case, marks=pytest.mark.full) for case in OTHERS)],
)
def test_a_stream_that_is_lost_ends_the_command_in_one_sentence(shell, command, code, ends):
    done = shell(command)
    assert done.returncode == code, done.stderr
    assert done.stderr.endswith(ends)
    for word in ("Traceback", "Error", "Exception", "Errno"):
        assert word not in done.stderr


WHILE_IMPORTING = """
import sys
class Stopped:
    def find_spec(self, name, path, target=None):
        if name == {name!r}:
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stopped())
from moa_graph.cli.main import main
main()
"""


@pytest.mark.parametrize("name", ["moa_graph.cli.app", "typer", "moa_graph.cli.ask"])
def test_ctrl_c_while_the_command_is_imported_ends_it_without_a_word(name):
    code = WHILE_IMPORTING.format(name=name)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


class _Reader:
    """A stream that nobody reads any more: each write fails."""

    encoding = "utf-8"

    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, text: str) -> int:
        raise OSError(self._number, os.strerror(self._number))

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return False


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC, errno.EIO])
async def test_a_view_of_a_stream_that_is_lost_raises_its_error(number, chat, monkeypatch):
    """It writes no more, and the run has ended."""
    graph = create_moa([chat("a")], chat("agg?tps=500"))
    monkeypatch.setattr(sys, "stdout", _Reader(number))
    view = RunView()
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        await view.show(graph, {"messages": "hi"})
    assert caught.value.errno == number
    assert caught.value.__context__ is None


@pytest.mark.parametrize("number", [errno.EPIPE, errno.ENOSPC])
def test_rich_raises_the_error_of_its_stream(number):
    console = new_console(file=_Reader(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        console.print("text")
