"""Recorded replies to questions with one right answer, in the format of ZeroEval.

ZeroEval (WildEval) publishes JSON replies of dozens of models to GSM8K, MATH level 5 and others.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from moa_graph.evals.files import EvalError, Row, by_key, name_of, read_rows, read_text
from moa_graph.evals.parsing import final_answer, number_in

_NUMERIC = re.compile(r"-?\$?[\d,]*\.?\d+(/\d+)?")
_MARK = re.compile(r"^#+\s*")  # before the answers of GSM8K; other sets have # in answers
_CHOICE = re.compile(r"([A-Z])\)")
_MOST = 0.9
_SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")
_RENAMED = (  # names in the published tables (`eval_utils.py`)
    ("deepseek-chat", "deepseek-v2-chat-0628"),
    ("deepseek-coder", "deepseek-v2-coder-0614"),
    ("DeepSeek-Coder-V2-0724", "deepseek-v2-coder-0724"),
    ("Llama-3.1-405B-Inst-fp8", "Llama-3.1-405B-Inst-fp8@together"),
    ("Llama-3.1-405B-Instruct-Turbo", "Llama-3.1-405B-Inst-fp8@together"),
    ("Meta-Llama-3.1-405B-Instruct@hyperbolic", "Llama-3.1-405B-Inst@hyperbolic"),
    ("gemma-2-27b-it@together", "gemma-2-27b-it"),
    ("gemma-2-27b-it@nvidia", "gemma-2-27b-it"),
    ("gemma-2-9b-it@together", "gemma-2-9b-it"),
    ("gemma-2-9b-it@nvidia", "gemma-2-9b-it"),
)


@dataclass(frozen=True)
class RecordedAnswer:
    """Answer of one model to one question."""

    reply: str | None
    """Full reply; None if only the answer was recorded."""
    answer: Any
    """Parsed answer; None if the reply has no answer."""
    correct: bool
    tokens: int | None = None
    """Tokens of the question and the reply; None if they were not recorded."""


@dataclass(frozen=True)
class RecordedModel:
    """Answers of one model, by question."""

    name: str
    answers: Mapping[str, RecordedAnswer]
    published: float | None
    """Published accuracy in percent; None if unknown."""
    disagreeing: tuple[str, ...]
    """Questions for which the recorded verdict differs from the parsed reply."""
    has_verdicts: bool = False
    """Whether verdicts are recorded, from which the accuracy is computed."""

    @property
    def accuracy(self) -> float:
        """Share of right answers among the recorded answers."""
        return sum(a.correct for a in self.answers.values()) / max(1, len(self.answers))

    @property
    def has_replies(self) -> bool:
        """Whether all full replies are recorded."""
        return all(a.reply is not None for a in self.answers.values())


@dataclass(frozen=True)
class RecordedSet:
    """A benchmark with recorded answers of models."""

    name: str
    questions: Mapping[str, str]
    parse: Callable[[str], Any]
    """Function from a reply to its answer, normalized so that equal answers compare equal."""
    models: Mapping[str, RecordedModel]
    numbers: bool = False
    """Whether all answers are numbers."""

    def group(self, key: str) -> str:
        """Return the text of a question as recorded, equal for questions asked more than once."""
        return self.questions[key].removesuffix(_mark(key))


def read_set(folder: Path) -> RecordedSet:
    """Read a benchmark with recorded answers from a folder.

    Args:
        folder: Either a folder of ZeroEval (`result_dirs/gsm`) with one `MODEL.json` for each model
            (`id`, `question`, `output`, and `answer` or `choices` and `correct_answer`) and
            optionally `gsm.summary.md` next to the folder; or a folder with `questions.jsonl`
            (`id`, `question`, `gold`), `outputs/MODEL.jsonl` (`id`, `output`),
            `answers_all_models.jsonl` (`id`, `key` and `ok` by model) and `published_summary.md`.
            In the second format, only the questions and one kind of answers are required. Files
            may be compressed with gzip.

    Raises:
        EvalError: If the folder has another format, or a file is damaged; the message names the
            folder or the file.
    """
    if not folder.is_dir():
        raise EvalError(f"There is no folder {folder}.")
    questions = _file(folder, "questions")
    rows, replies = (
        (read_rows(questions, ["id", "question", "gold"]), _replies(folder / "outputs"))
        if questions
        else _zero_eval(folder)
    )
    asked = by_key(rows, lambda row: str(row["id"]), str(questions or folder))
    golds = {key: str(row["gold"]) for key, row in asked.items()}
    parse = _parser(golds.values())
    right = {key: parse(gold) for key, gold in golds.items()}
    verdicts = _verdicts(folder, asked, parse)
    published = _published(folder)
    names = sorted({*replies, *verdicts}, key=str.lower)
    if not names:
        raise EvalError(
            f"{folder} has no recorded answers: neither outputs/ nor answers_all_models.jsonl."
        )
    models = {}
    for name in names:
        if unknown := next((key for key in replies.get(name, ()) if key not in asked), None):
            raise EvalError(f"{folder}: {name} answers {unknown!r}, which is not a question.")
        parsed = {
            key: _recorded(reply, final_answer(reply, name), right[key], parse)
            for key, reply in replies.get(name, {}).items()
        }
        differ = []
        for key, verdict in verdicts.get(name, {}).items():  # published accuracies use these
            mine = parsed.get(key, verdict)
            if mine.correct != verdict.correct:
                differ.append(key)
            said = mine.answer if verdict.answer is None else verdict.answer
            parsed[key] = RecordedAnswer(mine.reply, said, verdict.correct)
        models[name] = RecordedModel(
            name, parsed, _published_of(name, published), tuple(differ), name in verdicts
        )
    texts = distinct({key: str(row["question"]) for key, row in asked.items()})
    name, numbers = folder.resolve().name, parse is number_in
    return RecordedSet(name, texts, partial(_answer, parse=parse), models, numbers)


def _answer(reply: str, parse: Callable[[str], Any]) -> Any:
    said = final_answer(reply)
    return None if said is None else parse(said)


def _recorded(
    reply: str, said: str | None, right: Any, parse: Callable[[str], Any]
) -> RecordedAnswer:
    answer = None if said is None else parse(said)
    if said is not None and parse is _choice:
        # ZeroEval accepts an answer that names several choices, if the right one is among them.
        return RecordedAnswer(reply, answer, said == right or f"{right})" in said)
    return RecordedAnswer(reply, answer, answer == right)


def _parser(golds: Iterable[str]) -> Callable[[str], Any]:
    texts = [gold.strip() for gold in golds]
    numbers = sum(bool(_NUMERIC.fullmatch(text)) for text in texts)
    if numbers >= _MOST * len(texts) and all(number_in(text) is not None for text in texts):
        return number_in  # MATH has a few like `1112112_3`; ZeroEval parses them as numbers
    if all(len(text) == 1 and text.isupper() for text in texts):
        return _choice
    return _plain


def _choice(text: str) -> str | None:
    """Return the letter of a choice, alone or before a parenthesis, as in ZeroEval."""
    if len(text) == 1 and text in string.ascii_uppercase:
        return text
    found = _CHOICE.search(text)
    return found[1] if found else None


def _plain(text: str) -> str:
    return text.strip("'\"").replace("\n", "\\n")


def _file(folder: Path, name: str) -> Path | None:
    return next((p for s in _SUFFIXES if (p := folder / f"{name}{s}").is_file()), None)


def _replies(folder: Path) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.name.endswith(_SUFFIXES):
            rows = by_key(read_rows(path, ["id", "output"]), lambda r: str(r["id"]), str(path))
            found[name_of(path)] = {k: _text(r) for k, r in rows.items()}
    return found


def _zero_eval(folder: Path) -> tuple[list[Row], dict[str, dict[str, str]]]:
    rows: dict[str, Row] = {}
    replies: dict[str, dict[str, str]] = {}
    for path in sorted([*folder.glob("*.json"), *folder.glob("*.json.gz")]):
        if ".summary" in path.name:
            continue
        items = read_rows(path, ["id", "question", "output"])
        by_id = by_key(items, lambda item: str(item["id"]), str(path))
        replies[name_of(path)] = {key: _text(item) for key, item in by_id.items()}
        for item in items:
            row = {"id": item["id"], "question": item["question"], "gold": _gold(path, item)}
            known = rows.setdefault(str(item["id"]), row)
            for field in ("question", "gold"):
                if known[field] != row[field]:
                    raise EvalError(
                        f"{path}: the {field} of {item['id']!r} is {row[field]!r:.60}, but another "
                        f"file has {known[field]!r:.60}."
                    )
    if not rows:
        raise EvalError(
            f"{folder} has neither questions.jsonl nor results of ZeroEval (MODEL.json)."
        )
    return list(rows.values()), replies


def _gold(path: Path, item: Row) -> str:
    choices = item.get("choices")
    if isinstance(choices, list) and item.get("correct_answer") in choices:
        place = choices.index(item["correct_answer"])
        if place >= len(string.ascii_uppercase):
            raise EvalError(f"{path}: {item['id']!r} has more choices than there are letters.")
        return string.ascii_uppercase[place]
    if item.get("answer") is None:
        raise EvalError(
            f"{path}: {item['id']!r} has neither `answer` nor a `correct_answer` among `choices`."
        )
    return _MARK.sub("", str(item["answer"]).strip())


def _text(row: Row) -> str:
    output = row["output"]
    return str(output[0] if isinstance(output, list) and output else output)


def _verdicts(
    folder: Path, asked: Mapping[str, Row], parse: Callable[[str], Any]
) -> dict[str, dict[str, RecordedAnswer]]:
    """Read recorded answers and verdicts, by model and question."""
    path = _file(folder, "answers_all_models")
    verdicts: dict[str, dict[str, RecordedAnswer]] = {}
    for row in read_rows(path, ["id", "ok"]) if path else ():
        if str(row["id"]) not in asked:
            raise EvalError(f"{path}: {row['id']!r} is not a question.")
        said = row.get("key") or {}
        if not isinstance(row["ok"], dict) or not isinstance(said, dict):
            raise EvalError(f"{path}: `ok` and `key` of {row['id']!r} must be objects, by model.")
        for name, ok in row["ok"].items():
            if ok not in (0, 1):
                raise EvalError(f"{path}: `ok` of {row['id']!r} and {name} must be 0 or 1.")
            answer = said.get(name)
            answer = parse(answer) if isinstance(answer, str) else answer
            verdicts.setdefault(name, {})[str(row["id"])] = RecordedAnswer(None, answer, bool(ok))
    return verdicts


def _published(folder: Path) -> dict[str, float]:
    beside = folder.resolve()
    paths = (folder / "published_summary.md", beside.parent / f"{beside.name}.summary.md")
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return {}
    found: dict[str, float] = {}
    accuracy, mode = 0, 0
    for line in read_text(path).splitlines():
        cells = [cell.strip(" *`") for cell in line.strip().strip("|").split("|")]
        if "Acc" in cells:
            accuracy = cells.index("Acc")
            mode = cells.index("Mode") if "Mode" in cells else accuracy
            continue
        if not 0 < accuracy < len(cells) or not re.fullmatch(r"\d+(\.\d+)?", cells[accuracy]):
            continue
        if cells[0] not in found or cells[mode] == "greedy":  # replies in the folder are greedy
            found[cells[0]] = float(cells[accuracy])
    return found


def _published_of(name: str, published: Mapping[str, float]) -> float | None:
    return published.get(name, published.get(dict(_RENAMED).get(name, name)))


def _mark(key: str) -> str:
    return f"\n({key})"


def distinct(texts: Mapping[str, str]) -> dict[str, str]:
    """Return unique texts of questions: add the key to repeated texts."""
    seen: set[str] = set()
    found = {}
    for key, text in texts.items():
        found[key] = f"{text}{_mark(key)}" if text in seen else text
        seen.add(text)
    return found
