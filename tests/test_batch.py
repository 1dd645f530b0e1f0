"""What the batch does around Ray; with Ray it is tried in tests/integration."""

from __future__ import annotations

import json

import pytest

from moa_graph import batch
from moa_graph.batch import answer_prompts


def test_without_ray_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'moa-graph\[batch\]'"):
        answer_prompts("prompts.jsonl", "local", tmp_path)


def test_a_line_that_was_not_written_to_its_end_is_dropped(tmp_path):
    part = tmp_path / "part-1.jsonl"
    whole = json.dumps({"key": "a-0", "row": {"error": None}}) + "\n"
    part.write_text(whole + '{"key": "b-0", "ro')
    batch._drop_torn_line(part)
    assert part.read_text() == whole
    part.write_text('{"ke')
    batch._drop_torn_line(part)
    assert part.read_text() == ""


@pytest.mark.parametrize("retry", [False, True])
def test_what_was_answered_is_not_asked_again(tmp_path, retry):
    pandas = pytest.importorskip("pandas")
    rows = [{"id": 1, "prompt": "one"}, {"id": 2, "prompt": "two"}, {"id": 1, "prompt": "one"}]
    before = batch._Unanswered(tmp_path, "prompt", retry)
    first = before(pandas.DataFrame(rows))
    assert len(set(first["key"])) == 3
    assert [json.loads(row)["id"] for row in first["row"]] == [1, 2, 1]
    lines = [
        {"key": first["key"][0], "row": {"error": None}},
        {"key": first["key"][1], "row": {"error": "ValueError: down"}},
    ]
    (tmp_path / "part-1.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    after = batch._Unanswered(tmp_path, "prompt", retry)
    assert after(pandas.DataFrame(rows))["key"] == first["key"][1 if retry else 2 :]


def test_a_row_without_the_column_is_told(tmp_path):
    pandas = pytest.importorskip("pandas")
    with pytest.raises(ValueError, match="no column 'prompt'; it has: question"):
        batch._Unanswered(tmp_path, "prompt", False)(pandas.DataFrame([{"question": "hi"}]))
