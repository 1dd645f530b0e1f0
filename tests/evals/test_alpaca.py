from __future__ import annotations

import csv
import importlib
import json
import logging
import random
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from moa_graph.evals import alpaca, alpaca_report
from moa_graph.evals.files import EvalError, EvalFailed, read_rows, write_json
from moa_graph.evals.targets import load_target

COLUMNS = (
    "win_rate",
    "standard_error",
    "n_wins",
    "n_wins_base",
    "n_draws",
    "n_total",
    "discrete_win_rate",
    "avg_length",
)
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture
def alpaca_eval():
    """The package; importing it warns of what it imports."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("alpaca_eval")


@pytest.mark.parametrize("model", ["claude-2.1", "gemma-7b-it"])
def test_recorded_annotations_give_the_published_row(data, model):
    found = alpaca.metrics(read_rows(data / f"alpaca_eval/{model}.annotations.json.gz"))
    with (data / "alpaca_eval/leaderboard.csv").open() as file:
        published = {row[""]: row for row in csv.DictReader(file)}[model]
    assert {name: found[name] for name in COLUMNS} == pytest.approx(
        {name: float(published[name]) for name in COLUMNS}, abs=1e-6
    )
    assert found["length_controlled_winrate"] is None
    assert "not available offline" in found["length_controlled_note"]


def annotations(preferences):
    return [
        {"instruction": f"{i}", "output_1": "b" * 5, "output_2": "a" * 10, "preference": p}
        for i, p in enumerate(preferences)
    ]


def test_draws_and_what_is_no_preference():
    found = alpaca.metrics(annotations([1, 2, 1.5, 0, None, -1, 1.25]))
    assert found["n_total"] == 5  # None and -1 are no preferences
    assert found["n_draws"] == 2
    assert found["win_rate"] == pytest.approx(100 * (0 + 1 + 0.5 + 0.5 + 0.25) / 5)
    assert found["avg_length"] == 10
    assert found["avg_length_of"] == 7
    report = alpaca_report.report("m", found, {})
    assert "The length is the mean of the 7 answers whose text is known." in report


@pytest.mark.parametrize("rows", [annotations([None, -1]), [{"output_2": "x"}], annotations(["A"])])
def test_annotations_without_preferences_are_refused(rows):
    with pytest.raises(EvalError, match="preference"):
        alpaca.metrics(rows)


def test_package_leaves_logging_as_it_was():
    before = logging.getLogger().level
    alpaca.metrics(annotations([1, 2]))
    assert logging.getLogger().level == before
    assert logging.root.manager.disable == 0


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that serves the difficulty of the instructions; answers are its requests."""
    rng = random.Random(0)
    lines = ["model,index,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"]
    for name, shift in (("concise", 0.2), ("verbose", -0.2)):
        for i in range(805):
            preference = min(1, max(0, rng.gauss(0.5 + shift, 0.3)))
            lines.append(f"{name},{i},{preference},{rng.gauss(0, 1)},{rng.gauss(0, 1)},False")
    table = ("\n".join(lines) + "\n").encode()
    seen = []

    class Hub(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self._send(b"")

        def do_GET(self):
            self._send(table)

        def _send(self, body):
            seen.append((self.command, self.path))
            known = self.path.endswith("resolve/main/df_gamed.csv") or "/resolve/" in self.path
            self.send_response(200 if known else 404)
            self.send_header("ETag", '"0123"')
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("Content-Length", str(len(table)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    import huggingface_hub.constants as constants

    service = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=service.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{service.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield seen
    service.shutdown()


def test_length_controlled_win_rate_where_the_difficulty_can_be_had(data, hub):
    rows = read_rows(data / "alpaca_eval/claude-2.1.annotations.json.gz")
    found = alpaca.metrics(rows)
    assert any("df_gamed.csv" in path for _, path in hub)
    assert "length_controlled_note" not in found, found
    # claude-2.1 writes half as much as the baseline, and lengths are controlled for
    assert found["length_controlled_winrate"] > found["win_rate"]
    assert found["lc_standard_error"] > 0


def test_generated_file_loads_in_the_package(together, tmp_path, alpaca_eval):
    asked = [{"instruction": f"question {i}", "dataset": "d", "output": "b"} for i in range(12)]
    target = load_target("together:alpha")
    path, failed = alpaca.generate(target, asked, tmp_path, quiet=True)
    assert not failed
    frame = alpaca_eval.utils.load_or_convert_to_dataframe(path)
    assert list(frame["instruction"]) == [row["instruction"] for row in asked]
    assert list(frame["output"]) == [f"alpha: question {i}" for i in range(12)]
    assert set(frame["generator"]) == {"together:alpha"}


def test_failed_items_are_told_left_out_and_asked_again(together, tmp_path):
    asked = [{"instruction": f"question {i}"} for i in range(3)]
    target = load_target("together:alpha?fail_first=3")  # the client itself repeats twice
    path, failed = alpaca.generate(target, asked, tmp_path, quiet=True, at_once=1)
    assert len(failed) == 1
    assert "500" in failed[0]["error"]
    assert len(read_rows(path)) == 2
    calls = len(together.calls)
    path, failed = alpaca.generate(target, asked, tmp_path, quiet=True)
    assert not failed
    assert len(read_rows(path)) == 3
    assert len(together.calls) == calls + 1


def test_small_run_is_extended_without_asking_twice(together, tmp_path):
    asked = [{"instruction": f"question {i}"} for i in range(10)]
    target = load_target("together:alpha")
    alpaca.generate(target, asked, tmp_path, limit=4, quiet=True)
    path, _ = alpaca.generate(target, asked, tmp_path, quiet=True)
    assert len(together.calls) == 10
    assert len(read_rows(path)) == 10


def test_answers_of_another_configuration_are_not_mixed_in(together, tmp_path):
    asked = [{"instruction": "question"}]
    alpaca.generate(load_target("together:alpha"), asked, tmp_path, quiet=True)
    with pytest.raises(EvalError, match="other settings"):
        alpaca.generate(load_target("together:beta"), asked, tmp_path, quiet=True)


class JudgeAnswers(BaseHTTPRequestHandler):
    """OpenAI's endpoint for the judge: prefers m by 0.9, and counts."""

    asked: list[str] = []
    status = 200
    says = "m"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).asked.append(body["messages"][-1]["content"])
        top = [
            {"token": t, "logprob": p, "bytes": None}
            for t, p in ((self.says, -0.105), (self.says.upper(), -2.3))
        ]
        content = [{"token": self.says, "logprob": -0.105, "bytes": None, "top_logprobs": top}]
        data = json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "length",
                        "message": {"role": "assistant", "content": "m"},
                        "logprobs": {"content": content},
                    }
                ],
                "usage": {"prompt_tokens": 10, "completion_tokens": 1, "total_tokens": 11},
            }
        ).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def judge_server(monkeypatch, alpaca_eval):
    import alpaca_eval.constants as constants
    import alpaca_eval.decoders.openai as decoder

    service = ThreadingHTTPServer(("127.0.0.1", 0), JudgeAnswers)
    Thread(target=service.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", "sk-0123456789")
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{service.server_port}/v1")
    # The package reads the key when it is imported.
    defaults = list(decoder._openai_completion_helper.__defaults__)
    monkeypatch.setattr(constants, "OPENAI_API_KEYS", ["sk-0123456789"])
    monkeypatch.setattr(
        decoder._openai_completion_helper,
        "__defaults__",
        tuple(["sk-0123456789"] if d is None and i == 5 else d for i, d in enumerate(defaults)),
    )
    JudgeAnswers.asked = []
    JudgeAnswers.status = 200
    JudgeAnswers.says = "m"
    yield JudgeAnswers
    service.shutdown()


def pairs(n):
    outputs = [{"instruction": f"q{i}", "output": f"a{i}", "generator": "x"} for i in range(n)]
    base = [{"instruction": f"q{i}", "output": f"b{i}", "generator": "base"} for i in range(n)]
    return outputs, base


def test_judge_goes_through_the_package_and_is_not_asked_twice(judge_server, tmp_path):
    outputs, base = pairs(12)
    found = alpaca.judge(outputs, base, tmp_path, quiet=True)
    assert len(judge_server.asked) == 12
    assert all("model_identifier" in text for text in judge_server.asked)
    # The package swaps the order at random, and turns the preference back.
    assert {round(row["preference"], 1) for row in found} == {1.1, 1.9}
    assert alpaca.judge(outputs, base, tmp_path, quiet=True)
    assert len(judge_server.asked) == 12
    assert len(json.loads((tmp_path / "annotations.json").read_text())) == 12
    assert alpaca.metrics(found)["n_total"] == 12


def test_judgments_that_fail_are_asked_again(judge_server, tmp_path):
    outputs, base = pairs(4)
    judge_server.status = 400
    with pytest.raises(EvalFailed, match="failed"):
        alpaca.judge(outputs, base, tmp_path, quiet=True)
    judge_server.status = 200
    assert len(alpaca.judge(outputs, base, tmp_path, quiet=True)) == 4


def test_a_failed_judgment_of_an_answer_that_has_changed_since_is_no_failure(
    judge_server, tmp_path
):
    outputs, base = pairs(2)
    judge_server.status = 400
    with pytest.raises(EvalFailed, match="all failed"):
        alpaca.judge(outputs, base, tmp_path, quiet=True)
    judge_server.status = 200
    outputs[0]["output"] = "another answer"
    assert len(alpaca.judge(outputs, base, tmp_path, quiet=True)) == 2


def test_a_judgment_without_a_preference_is_asked_again(judge_server, tmp_path):
    outputs, base = pairs(2)
    judge_server.says = "x"
    with pytest.raises(EvalFailed, match="the reply of the judge has no preference"):
        alpaca.judge(outputs, base, tmp_path, quiet=True)
    judge_server.says = "m"
    assert len(alpaca.judge(outputs, base, tmp_path, quiet=True)) == 2
    assert len(judge_server.asked) == 4


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"preference": float("inf")}, "must be a number"),
        ({"preference": 1.5, "output_2": 7}, "`output_2` must be a string, not 7"),
    ],
)
def test_odd_annotations_are_refused(row, said):
    with pytest.raises(EvalError, match=said):
        alpaca.metrics([{"preference": 2.0}, row])


def test_annotations_of_several_models_are_told(data):
    rows = [
        row
        for model in ("claude-2.1", "gemma-7b-it")
        for row in read_rows(data / f"alpaca_eval/{model}.annotations.json.gz")
    ]
    one, two = alpaca_report.doubts(rows)
    assert "annotations of 2 models, counted together: ['claude-2.1', 'gemma-7b-it']" in one
    assert two.startswith("805 instructions are annotated more than once")
    assert alpaca_report.doubts(rows[:805]) == []


def test_a_leaderboard_with_cells_too_many_is_read(tmp_path):
    (tmp_path / "l.csv").write_text("name,win_rate\nm,1.5,extra\n")
    assert alpaca_report.leaderboard(tmp_path / "l.csv") == {"m": {"win_rate": 1.5}}


def test_judge_is_checked_before_anything_is_paid_for(tmp_path):
    outputs, base = pairs(2)
    with pytest.raises(EvalError, match="needs an API key: set OPENAI_API_KEY"):
        alpaca.judge(outputs, base, tmp_path)
    with pytest.raises(EvalError, match="no annotator 'nobody'"):
        alpaca.check_judge("nobody")
    with pytest.raises(EvalError, match="The baseline has no output for 1 of 2"):
        alpaca.judge(outputs, base[:1], tmp_path)


def test_report_stands_beside_the_leaderboard():
    board = alpaca_report.leaderboard()
    found = {**board["Together-MoA"], "n_total": 805, "length_controlled_winrate": None}
    text = alpaca_report.report("mine", found, board)
    lines = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("|")]
    assert "**mine**" in lines
    assert {"Together-MoA", "Together-MoA-Lite", "gpt4_1106_preview"} <= set(lines)


def test_wrong_leaderboard_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(EvalError, match="not a leaderboard"):
        alpaca_report.leaderboard(tmp_path / "x.csv")


def test_instructions_need_their_field(tmp_path):
    write_json(tmp_path / "i.json", [{"text": "x"}])
    with pytest.raises(EvalError, match="has no field 'instruction'"):
        alpaca.load_instructions(tmp_path / "i.json")
