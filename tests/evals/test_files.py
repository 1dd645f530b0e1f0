from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

from moa_graph.evals.files import EvalError, Journal, name_of, read_results, read_rows

ROWS = [{"instruction": "a", "output": "b"}, {"instruction": "c\u2028d", "output": "é"}]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("lines", [False, True])
def test_arrays_and_lines_are_read_compressed_or_not(tmp_path, lines, packed):
    text = "\n".join(json.dumps(r, ensure_ascii=False) for r in ROWS) if lines else json.dumps(ROWS)
    path = tmp_path / "rows"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert read_rows(path, ["instruction"]) == ROWS


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"[]", "has no rows"),
        (b'{"a": 1}\n{"a": 2}\n{"a"', "line 3: is cut in the middle"),
        (b'{"a": 1}\n{"a" 2}\n{"a": 3}\n', "line 2: is not JSON"),
        (b'[{"a": 1}, {"a":', "is cut in the middle"),
        (b'[{"a": "x', "is cut in the middle"),
        (b'{"a": 1}\n[1]\n', "line 2: must be a JSON object"),
        (b'{"a": 1}\n{"b": 2}\n', "line 2: has no field 'a'"),
        (b'[{"a": 1}, {"aa": 2}]', "object 2: has no field 'a'. Did you mean 'aa'?"),
        (gzip.compress(b'{"a": 1}\n' * 1000, mtime=0)[:-20], "is truncated"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"[" * 100_000, "too deep"),
        (b'[{"a": ' + b"1" * 5000 + b"}]", "cannot be read"),
        (b'{"a": 1}\n{"a": ' + b"1" * 5000 + b"}\n", "line 2: cannot be read"),
    ],
)
@pytest.mark.usefixtures("no_garbage")
def test_what_is_wrong_with_a_file_is_told(tmp_path, content, said):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(EvalError) as error:
        read_rows(path, ["a"])
    assert said in str(error.value)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_lines_may_end_as_on_any_system(tmp_path, ending):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ending.join(['{"a": 1}', '{"a": 2}', ""]).encode())
    assert read_rows(path) == [{"a": 1}, {"a": 2}]


def test_only_a_journal_has_keys_of_which_the_last_counts(tmp_path):
    path = tmp_path / "results.jsonl"
    rows = [{"key": "mt", "x": 1}, {"key": "mt", "x": 2}, {"key": {"any": "thing"}}]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert read_results(path) == rows
    path.write_text("\n".join(map(json.dumps, [{"about": {}}, *rows[:2]])))
    assert read_results(path) == [{"key": "mt", "x": 2}]
    path.write_text('{"about": {}}\n')
    with pytest.raises(EvalError, match="has no results yet"):
        read_results(path)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("gpt-4.1.jsonl", "gpt-4.1"),
        ("Qwen1.5-72B.json.gz", "Qwen1.5-72B"),
        ("a.b", "a.b"),
        ("x.jsonl.gz", "x"),
    ],
)
def test_files_are_named_without_their_format(file, name):
    assert name_of(Path(file)) == name


def test_missing_files_and_folders_are_told(tmp_path):
    with pytest.raises(EvalError, match="There is no file"):
        read_rows(tmp_path / "nowhere.json")
    with pytest.raises(EvalError, match="is a folder"):
        read_rows(tmp_path)


def test_journal_goes_on_and_the_last_row_of_a_key_counts(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"target": "a"}) as journal:
        journal.add("1", {"answer": "x"})
        journal.add("2", {"error": "late"})
    with Journal(path, {"target": "a"}) as journal:
        assert list(journal.done) == ["1"]
        assert list(journal.failed) == ["2"]
        journal.add("2", {"answer": "y"})
        assert sorted(journal.done) == ["1", "2"]
        assert not journal.failed
    assert len(path.read_text().splitlines()) == 4


def test_line_that_a_kill_has_cut_is_taken_off(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {}) as journal:
        journal.add("1", {"answer": "x"})
        journal.add("2", {"answer": "a long answer"})
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:-cut])
        kept = whole[:-cut].count(b"\n") - 1
        with Journal(path, {}) as journal:
            assert len(journal.rows) == max(kept, 0)
            journal.add("3", {"answer": "z"})
        with Journal(path, {}) as journal:
            assert len(journal.rows) == max(kept, 0) + 1


def test_journal_of_other_settings_is_refused_and_kept(tmp_path):
    path = tmp_path / "journal.jsonl"
    with Journal(path, {"target": "a", "n": 1}) as journal:
        journal.add("1", {"answer": "x"})
    before = path.read_bytes()
    with pytest.raises(EvalError, match=r"other settings \(target was \"a\", and is \"b\"\)"):
        Journal(path, {"target": "b", "n": 1})
    assert path.read_bytes() == before


def test_damaged_journal_is_refused_with_its_line(tmp_path):
    path = tmp_path / "journal.jsonl"
    path.write_text('{"about": {}}\n{"key": "1"}\nwhat\n{"key": "2"}\n')
    with pytest.raises(EvalError, match="line 3: is damaged"):
        Journal(path, {})


def test_two_processes_cannot_write_to_one_journal(tmp_path):
    path = tmp_path / "journal.jsonl"
    other = (
        "import sys; from pathlib import Path; from moa_graph.evals.files import Journal\n"
        f"Journal(Path({str(path)!r}), {{}})"
    )
    with Journal(path, {}):
        run = subprocess.run([sys.executable, "-c", other], capture_output=True, check=False)
    assert b"is in use" in run.stderr
