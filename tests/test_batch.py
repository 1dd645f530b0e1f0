"""Many prompts in one process, and what the batch does around Ray (tests/integration tries that)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from langchain_core.runnables import RunnableLambda

from moa_graph import CallPolicy, MoAContext, create_moa
from moa_graph import batch as batches
from moa_graph.batch import Answers, actors, answer_prompts
from moa_graph.batch.actors import Unanswered
from moa_graph.batch.answers import answered_in, mend
from moa_graph.batch.rows import Keys

REPOSITORY = Path(__file__).parents[1]


class Models:
    """A mixture of functions that counts what it is asked."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.asked: Counter[str] = Counter()
        self.down: set[str] = set()
        self.at_once = self.most = 0
        self.seconds = seconds

    def __call__(self):
        async def propose(messages):
            return messages[-1].text

        async def answer(messages):
            question = messages[-1].text
            self.asked[question] += 1
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            try:
                await asyncio.sleep(self.seconds)
                if question in self.down:
                    raise ConnectionError(f"{question} is down")
                return f"re: {question}"
            finally:
                self.at_once -= 1

        return create_moa(
            [RunnableLambda(propose, name="a")],
            RunnableLambda(answer, name="b"),
            calls=CallPolicy(retries=0),
        )


def rows_of(*questions: str) -> list[dict[str, object]]:
    return [{"id": n, "prompt": question} for n, question in enumerate(questions)]


def lines_in(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for part in folder.glob("*.jsonl") for line in part.open()]


def write(path: Path, rows) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("given", ["list", "generator", "file", "folder", "pattern", "path"])
@pytest.mark.parametrize("processes", [None, 1])
def test_every_row_is_answered_in_order(tmp_path, given, processes):
    rows = rows_of(*"zyxwv")
    if given == "list":
        prompts = rows
    elif given == "generator":
        prompts = (row for row in rows)
    else:
        write(tmp_path / "in" / "1.jsonl", rows[:3])
        write(tmp_path / "in" / "2.jsonl", rows[3:]).open("a").write("\n \n")
        whole = write(tmp_path / "whole.jsonl", rows)
        prompts = {
            "file": str(whole),
            "path": whole,
            "folder": tmp_path / "in",
            "pattern": str(tmp_path / "in" / "*.jsonl"),
        }[given]
    models = Models()
    answers = answer_prompts(prompts, models, tmp_path / "out", processes=processes, at_once=3)
    assert isinstance(answers, Answers)
    assert [row["answer"] for row in answers] == [f"re: {q}" for q in "zyxwv"]
    assert [row["id"] for row in answers.iter_rows()] == list(range(5))
    assert answers.count() == len(answers) == 5
    assert answers.take(2) == answers[:2] == [answers[0], answers[1]]
    assert answers.take_all()[-1] == answers[-1]
    assert set(answers[0]) == {"id", "prompt", "answer", "error", "proposals", "usage"}
    assert [p["proposer"] for p in answers[0]["proposals"]] == ["a"]
    assert "5 rows" in repr(answers)
    again = answer_prompts(rows, models, tmp_path / "out", processes=processes)
    assert list(again) == list(answers)
    assert set(models.asked.values()) == {1}


async def test_it_runs_inside_an_event_loop(tmp_path):
    answers = answer_prompts(rows_of("a", "b"), Models(), tmp_path)
    beside = await asyncio.to_thread(answer_prompts, rows_of("a", "c"), Models(), tmp_path)
    assert [row["answer"] for row in answers] == ["re: a", "re: b"]
    assert [row["answer"] for row in beside] == ["re: a", "re: c", "re: b"]


def test_conversations_settings_and_equal_rows(tmp_path):
    seen = []

    def made():
        def answer(messages):
            seen.append([m.text for m in messages])
            return "fine"

        return create_moa([RunnableLambda(answer, name="a")], RunnableLambda(answer, name="b"))

    talk = [{"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}]
    talk.append({"role": "user", "content": "3"})
    rows = [{"talk": talk}, {"talk": talk}, {"talk": "4", "more": None}]
    context = MoAContext(aggregation_prompt="Be brief. {references}")
    answers = answer_prompts(rows, made, tmp_path, column="talk", context=context)
    assert [row["talk"] for row in answers] == [talk, talk, "4"]
    assert [row["answer"] for row in answers] == ["fine"] * 3
    assert len(seen) == 6
    assert sum("Be brief." in texts[0] for texts in seen) == 3


@pytest.mark.parametrize("retry", [False, True])
def test_a_failed_prompt_does_not_stop_the_others(tmp_path, retry):
    models = Models()
    models.down = {"b"}
    rows = rows_of("a", "b", "", "c")
    answers = answer_prompts(rows, models, tmp_path)
    assert [row["answer"] for row in answers] == ["re: a", None, None, "re: c"]
    assert "b is down" in answers[1]["error"]
    assert [p["content"] for p in answers[1]["proposals"]] == ["b"]
    assert "blank" in answers[2]["error"]
    models.down = set()
    answers = answer_prompts(rows, models, tmp_path, retry_failed=retry)
    assert [row["answer"] for row in answers] == [
        "re: a",
        "re: b" if retry else None,
        None,
        "re: c",
    ]
    assert models.asked == {"a": 1, "b": 1 + retry, "c": 1}
    assert len(lines_in(tmp_path)) == 4  # one for each row, for readers of the files, too


def test_at_most_so_many_are_in_flight_and_no_slot_waits(tmp_path):
    models = Models(seconds=0.1)
    answer_prompts(rows_of(*map(str, range(60))), models, tmp_path, at_once=7)
    assert models.most == 7
    assert len(models.asked) == 60


def test_prompts_are_not_held(tmp_path):
    """A file of 18 MB is answered with a small part of it in memory."""
    size, count = 300_000, 60
    file = write(tmp_path / "in.jsonl", ({"n": n, "prompt": "x" * size} for n in range(count)))

    def made():
        return create_moa(
            [RunnableLambda(lambda _: "a", name="a")], RunnableLambda(lambda _: "b", name="b")
        )

    tracemalloc.start()
    try:
        answers = answer_prompts(file, made, tmp_path / "out", at_once=1)
        assert [row["n"] for row in answers] == list(range(count))
        assert tracemalloc.get_traced_memory()[1] < size * count / 3
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "torn",
    ['{"key": "b-0", "ro', "{", '{"key": "b-0", "row": {"error": null}}', '{"key": 1}\n', "[]\n"],
)
def test_a_line_that_was_not_written_to_its_end_is_dropped(tmp_path, torn):
    whole = json.dumps({"key": "a-0", "row": {"error": None}}) + "\n"
    part = tmp_path / "part-1.jsonl"
    for before, after in ((whole, ""), ("", ""), (whole, whole)):
        part.write_text(before + torn + ("\n" if after and not torn.endswith("\n") else "") + after)
        mend(tmp_path)
        # A whole line after a torn one is what a disk leaves that was full for a while.
        kept = part.read_text()
        assert kept.startswith(before)
        assert kept.endswith(after)
        assert [json.loads(line)["key"] for line in kept.splitlines() if "a-0" in line] == (
            ["a-0"] * ((before != "") + (after != ""))
        )
        assert answered_in(tmp_path) <= {"a-0", "b-0"}
    assert {p.name for p in tmp_path.iterdir()} == {"part-1.jsonl"}


DRIVER = """
import sys
from moa_graph.batch import answer_prompts
from moa_graph.presets import Configuration

mixture = Configuration(proposers=["openai:a", "openai:b?latency=0.01"], aggregator="openai:agg")
answers = answer_prompts(sys.argv[1], mixture, sys.argv[2], processes=1, at_once=8)
assert "ray" not in sys.modules
print(len(answers))
"""


def test_killed_in_one_process_it_goes_on_and_pays_for_nothing_twice(server, tmp_path):
    prompts, count, folder = tmp_path / "prompts.jsonl", 300, tmp_path / "answers"
    write(prompts, [{"id": n, "prompt": f"question {n}"} for n in range(count)])
    models = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-test-0123456789"}

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", DRIVER, str(prompts), str(folder)],
            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=os.environ | models | {"PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip

    first = start()
    ends = time.monotonic() + 120
    while len(server.of("agg")) < count / 3:
        assert first.poll() is None, first.communicate()[1][-3000:]
        assert time.monotonic() < ends
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL) if hasattr(signal, "SIGKILL") else first.kill()
    first.communicate()
    written = len(answered_in(folder))
    assert count / 3 - 9 <= written < count
    for part in folder.glob("*.jsonl"):  # a line that was being written
        part.open("ab").write(b'{"key": "ab')
    second = start()
    output, errors = second.communicate(timeout=120)
    assert second.returncode == 0, errors[-3000:]
    assert output.split() == [str(count)]
    lines = lines_in(folder)
    assert Counter(line["row"]["id"] for line in lines) == dict.fromkeys(range(count), 1)
    assert all(line["row"]["answer"] == f"agg: {line['row']['prompt']}" for line in lines)
    for label in ("a", "b", "agg"):
        asked = Counter(call.messages[-1]["content"] for call in server.of(label))
        assert len(asked) == count
        assert sum(times > 1 for times in asked.values()) <= 8, "more than was in flight"
        assert max(asked.values()) <= 2


@pytest.mark.parametrize("place", ["no folder", "full disk"])
def test_an_answer_that_cannot_be_saved_stops_the_job(tmp_path, monkeypatch, place):
    models = Models()
    if place == "no folder":
        (tmp_path / "file").write_text("")
        with pytest.raises(OSError):  # noqa: PT011 - each system has its own text
            answer_prompts(rows_of("a"), models, tmp_path / "file")
        assert not models.asked
        return

    def full(self, key, row):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("moa_graph.batch.answers.Part.add", full)
    with pytest.raises(OSError, match="No space left"):
        answer_prompts(rows_of(*map(str, range(50))), models, tmp_path, at_once=2)
    assert len(models.asked) <= 4


@pytest.mark.parametrize(
    ("prompts", "error", "says"),
    [
        ([{"question": "hi"}], ValueError, "no column 'prompt'; it has: question"),
        (["hi"], TypeError, "must be a mapping such as {'prompt': '…'}, not 'hi'"),
        ("nowhere.jsonl", FileNotFoundError, "no file nowhere.jsonl"),
        ("[1]", ValueError, "Line 2 of .* must be a JSON object"),
        ("{", ValueError, "Line 2 of .* is not JSON"),
    ],
)
def test_wrong_prompts_are_told_before_any_is_asked(tmp_path, prompts, error, says):
    if isinstance(prompts, str) and prompts[0] in "[{":
        file = write(tmp_path / "in.jsonl", rows_of("a"))
        file.open("a").write(prompts)
        prompts = file
    models = Models()
    with pytest.raises(error, match=says):
        answer_prompts(prompts, models, tmp_path / "out")
    assert not models.asked


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"processes": 0}, ValueError, "processes is 0: it must be at least 1"),
        ({"processes": 1.0}, TypeError, "processes must be an integer"),
        ({"actors": True}, TypeError, "actors must be an integer"),
        ({"at_once": 0}, ValueError, "at_once is 0"),
        ({"processes": 2, "actors": 2}, ValueError, "not both"),
        ({"processes": 1, "num_cpus": 1}, ValueError, "num_cpus=… needs Ray"),
        ({"processes": 1, "prompts": "s3://bucket/in"}, ValueError, "s3://bucket/in needs Ray"),
    ],
)
def test_wrong_arguments_are_told(tmp_path, arguments, error, says):
    with pytest.raises(error, match=says):
        answer_prompts(**{"prompts": [], "mixture": Models(), "folder": tmp_path, **arguments})


@pytest.mark.parametrize(
    "arguments", [{"processes": 2}, {"actors": 1}, {"num_cpus": 1}, {"prompts": "s3://bucket/in"}]
)
def test_without_ray_it_says_what_to_install(monkeypatch, tmp_path, arguments):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ImportError, match=r"pip install 'moa-graph\[batch\]'"):
        answer_prompts(**{"prompts": [], "mixture": Models(), "folder": tmp_path, **arguments})


@pytest.mark.parametrize(
    ("installed", "new", "expected"),
    [(False, 10_000, "here"), (True, 2_999, "here"), (True, 3_000, "actors")],
)
def test_ray_is_used_from_where_it_wins(monkeypatch, tmp_path, installed, new, expected):
    monkeypatch.setattr(actors, "is_installed", lambda: installed)
    used = []
    monkeypatch.setattr(actors, "answer_in_actors", lambda *_, **__: used.append("actors"))
    monkeypatch.setattr(batches, "answer_here", lambda *_, **__: used.append("here"))
    rows = [{"prompt": str(n)} for n in range(new + 5)]
    done = [{"key": key, "row": {"error": None}} for key, _ in Keys("prompt").of(rows[:5])]
    write(tmp_path / "part-1.jsonl", done)
    answer_prompts(rows, Models(), tmp_path)
    assert used == [expected]


@pytest.mark.parametrize("as_lines", [False, True])
def test_actors_are_given_the_rows_without_an_answer(tmp_path, as_lines):
    pandas = pytest.importorskip("pandas")
    rows = [{"id": 1, "prompt": "one"}, {"id": 2, "prompt": "two"}, {"id": 1, "prompt": "one"}]
    table = pandas.DataFrame([{"text": json.dumps(row)} for row in rows] if as_lines else rows)
    first = Unanswered(tmp_path, "prompt", as_lines)(table)
    assert first["key"] == [key for key, _ in Keys("prompt").of(rows)]
    assert [json.loads(row)["id"] for row in first["row"]] == [1, 2, 1]
    write(tmp_path / "part-1.jsonl", [{"key": first["key"][0], "row": {"error": None}}])
    after = Unanswered(tmp_path, "prompt", as_lines)(table)
    assert after["key"] == first["key"][1:]
    with pytest.raises(ValueError, match="no column 'question'; it has: id, prompt"):
        Unanswered(tmp_path, "question", as_lines)(table)
