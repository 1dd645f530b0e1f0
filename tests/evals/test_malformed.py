"""Damaged files, and files of other forms, as input of every command that reads some."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from moa_graph.cli.app import app

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
ROWS = [
    {
        "id": str(i),
        "question_id": i,
        "instruction": f"question {i}",
        "question": f"question {i}",
        "output": f"answer {i}",
        "gold": str(i),
        "answer": str(i),
        "score": 7,
        "turn": 1,
        "model": "m",
        "preference": 1.5,
        "review": "{'Readability': 4}",
        "skill": ["Readability"],
        "generator": "m",
    }
    for i in range(30)
]
TEXT = "\n".join(map(json.dumps, ROWS))


def changed(field: str, value: str) -> bytes:
    """The rows with one value of the second row written as this text."""
    lines = TEXT.split("\n")
    row = {name: 0 if name == field else v for name, v in ROWS[1].items()}
    lines[1] = json.dumps(row).replace(f'"{field}": 0', f'"{field}": {value}')
    return "\n".join(lines).encode()


SCALARS = ("NaN", "Infinity", "-Infinity", "1e999", "null", "[1]", "{}", "true", '""', "9" * 4000)
FIELDS = {  # the value of each command that counts
    "alpaca": "preference",
    "mt-bench": "score",
    "flask": "review",
    "compare": "answer",
    "pool": "output",
    "replay": "output",
}
DAMAGED: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\n\t\n",
    "no rows": b"[]",
    "truncated": TEXT.encode()[:-40],
    "truncated array": json.dumps(ROWS).encode()[:-40],
    "truncated gzip": gzip.compress(TEXT.encode(), mtime=0)[:-30],
    "corrupted gzip": gzip.compress(TEXT.encode(), mtime=0)[:40] + b"x" * 99,
    "gzip of nothing": gzip.compress(b"", mtime=0),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-32": TEXT.encode("utf-32"),
    "Latin-1": TEXT.replace("question", "frågå").encode("latin-1"),
    "binary": bytes(range(256)) * 40,
    "zeros": b"\0" * 5000,
    "HTML": b"<!doctype html><html><body>404</body></html>",
    "CSV": b"id,question,answer\n1,two,3\n",
    "a number": b"7",
    "a text": b'"seven"',
    "rows of numbers": b"1\n2\n3\n",
    "rows of lists": b"[1]\n[2]\n",
    "array of numbers": b"[1, 2, 3]",
    "other fields": b'{"a": 1}\n{"a": 2}\n',
    "no fields": b"{}\n{}\n",
    "nested too deep": b"[" * 100_000,
    "nested objects": b'{"a":' * 100_000,
    "single quotes": b"{'question': 'x', 'answer': '1'}\n",
    "a huge number": b'[{"a": ' + b"1" * 5000 + b"}]",
}
WHOLE = {
    "a byte order mark": b"\xef\xbb\xbf" + TEXT.encode(),
    "gzip": gzip.compress(TEXT.encode(), mtime=0),
    "line ends of Windows": TEXT.replace("\n", "\r\n").encode(),
    "an array": json.dumps(ROWS).encode(),
}


@pytest.fixture
def moa(together, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def run(command: str, content: bytes | None):
        path = tmp_path / "rows.jsonl"
        if content is not None:
            path.write_bytes(content)
        arguments = {
            "alpaca": ("alpaca", "--from-annotations", path),
            "mt-bench": ("mt-bench", "--from-judgments", path),
            "flask": ("flask", "--from-reviews", path),
            "compare": (
                *("compare", "together:a", "together:b", "-d", path),
                *("--scorer", "exact", "--out", tmp_path / "o"),
            ),
            "pool": ("pool", recorded(tmp_path, path)),
            "replay": ("replay", recorded(tmp_path, path)),
            "similarity": ("similarity", path, path),
            "references": ("alpaca", "together:a", "--instructions", path, "--references", path),
            "prices": ("compare", "together:a", "together:b", "-d", path, "--prices", path),
        }[command]
        return CliRunner().invoke(app, ["eval", *map(str, arguments)])

    return run


def recorded(folder: Path, path: Path) -> Path:
    """A folder of recorded answers in which this file has those of one model."""
    made = folder / "records"
    (made / "outputs").mkdir(parents=True, exist_ok=True)
    questions = [{k: row[k] for k in ("id", "question", "gold")} for row in ROWS]
    (made / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    (made / "outputs" / "other.jsonl").write_text(TEXT)
    link = made / "outputs" / "damaged.jsonl"
    link.unlink(missing_ok=True)
    link.symlink_to(path)
    return made


def one_sentence(result) -> bool:
    said = result.stderr.strip().splitlines()
    return result.exit_code in {1, 2} and len(said) == 1 and "Traceback" not in said[0]


COMMANDS = ("alpaca", "mt-bench", "flask", "compare", "pool", "replay", "similarity", "references")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_file_is_told_in_one_sentence(moa, together, command):
    for name, content in DAMAGED.items():
        result = moa(command, content)
        assert isinstance(result.exception, SystemExit), (name, result.exception)
        assert one_sentence(result), (name, result.stderr, result.stdout)
    assert not together.calls


@pytest.mark.parametrize("value", SCALARS)
@pytest.mark.parametrize("command", FIELDS)
def test_a_value_of_another_type_is_told_or_counted_as_no_answer(moa, together, command, value):
    result = moa(command, changed(FIELDS[command], value))
    if result.exit_code:
        assert one_sentence(result), (result.stderr, result.exception)
        assert not together.calls
    else:
        assert not any(word in result.stdout for word in ("nan", "inf "))


@pytest.mark.parametrize("command", COMMANDS)
def test_duplicates_are_told(moa, command):
    result = moa(command, (TEXT + "\n" + json.dumps(ROWS[3])).encode())
    assert result.exit_code == 0 or one_sentence(result), (result.stderr, result.exception)
    if command in {"pool", "replay"}:
        assert "twice" in result.stderr


@pytest.mark.parametrize("command", [*COMMANDS, "prices"])
def test_a_folder_a_missing_and_an_unreadable_file_are_told(moa, tmp_path, command):
    for content in (None, b""):
        result = moa(command, content)
        assert one_sentence(result), (result.stderr, result.exception)
    path = tmp_path / "rows.jsonl"
    path.unlink()
    path.mkdir()
    result = moa(command, None)
    assert one_sentence(result), (result.stderr, result.exception)
    path.rmdir()
    path.write_text(TEXT)
    path.chmod(0)
    if not os.access(path, os.R_OK):  # not for root
        assert one_sentence(moa(command, None))


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("command", ["mt-bench", "flask", "replay", "pool"])
def test_usual_forms_are_read(moa, command, name):
    result = moa(command, WHOLE[name])
    assert result.exit_code == 0, result.stderr


@pytest.mark.full
@pytest.mark.parametrize("command", COMMANDS)
def test_a_large_file_is_read_or_told(moa, command):
    result = moa(command, b'{"a": "' + b"x" * 1000 + b'"}\n' * 200_000)
    assert one_sentence(result), (result.stderr[-500:], result.exception)
