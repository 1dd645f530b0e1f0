"""AlpacaEval 2.0: 805 instructions; a judge compares each answer with a baseline answer.

Dubois et al., "Length-Controlled AlpacaEval" (arXiv 2404.04475). Prompts, parsing and metrics come
from the package `alpaca_eval`. This module generates answers, stores every paid result, and
compares the result with the published leaderboard.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from langchain_core.messages import HumanMessage

from moa_graph.calling.sync import run
from moa_graph.evals.alpaca_report import ANNOTATOR, package_of
from moa_graph.evals.files import (
    EvalError,
    EvalFailed,
    Journal,
    Row,
    digest,
    is_text,
    read_rows,
    write_json,
)
from moa_graph.evals.hub import download, is_available
from moa_graph.evals.targets import AnswerFailed, Target
from moa_graph.evals.workers import do_all

REPOSITORY = "tatsu-lab/alpaca_eval"
N_INSTRUCTIONS = 805
_SHOWN = ("win_rate", "standard_error", "length_controlled_winrate", "lc_standard_error")
_COLUMNS = ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total")


def load_instructions(path: Path | None = None) -> list[Row]:
    """Return the instructions of the benchmark.

    Args:
        path: A JSON or JSON Lines file with `instruction` (and optionally `dataset` and the
            baseline's `output`). By default, the 805 instructions of AlpacaEval with the baseline
            outputs are downloaded from the hub.

    Raises:
        EvalError: If the file cannot be read or downloaded, or a row has no instruction.
    """
    if path is None:
        path = download(
            REPOSITORY,
            "alpaca_eval_gpt4_baseline.json",
            instead="Give the instructions as a file: --instructions FILE.",
        )
    rows = read_rows(path, ["instruction"])
    for i, row in enumerate(rows, 1):
        if not is_text(row["instruction"]):
            raise EvalError(f"{path}, row {i}: `instruction` must be a string, and not blank.")
    return rows


def generate(
    target: Target,
    instructions: Sequence[Row],
    folder: Path,
    *,
    limit: int | None = None,
    at_once: int = 8,
    quiet: bool = False,
) -> tuple[Path, list[Row]]:
    """Answer every instruction, and write the input file of the package `alpaca_eval`.

    Args:
        target: The target to evaluate.
        instructions: The result of `load_instructions`.
        folder: Output folder for `model_outputs.json` and `answers.jsonl`, the journal from which
            an interrupted run continues.
        limit: Maximum number of instructions to use, from the start; all by default.
        at_once: Maximum number of instructions answered at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        The path of `model_outputs.json`, and the rows that failed. Failed rows are not in that
        file, and the next run tries them again.
    """
    asked = instructions[:limit]
    texts = [row["instruction"] for row in instructions]
    about = {
        "benchmark": "alpaca",
        "target": target.name,
        "configuration": target.digest,
        "instructions": digest(texts),
    }
    keys = {str(i): row for i, row in enumerate(asked)}

    async def answer(row: Row) -> Row:
        return await target.ask([HumanMessage(row["instruction"])])

    with Journal(folder / "answers.jsonl", about) as journal:
        run(do_all(keys, answer, journal, title=target.name, at_once=at_once, quiet=quiet))
        outputs = [
            {
                **({"dataset": row["dataset"]} if "dataset" in row else {}),
                "instruction": row["instruction"],
                "output": found["answer"],
                "generator": target.name,
            }
            for key, row in keys.items()
            if (found := journal.result(key))
        ]
        failed = [
            {"instruction": row["instruction"], "error": found["error"]}
            for key, row in keys.items()
            if (found := journal.rows.get(key)) and found.get("error")
        ]
    path = folder / "model_outputs.json"
    write_json(path, outputs)
    return path, failed


def check_judge(annotator: str = ANNOTATOR) -> None:
    """Check that the judge can be called, before any paid request.

    Raises:
        EvalError: If the package does not know the judge, or its API key is missing.
    """
    with package_of() as alpaca_eval:
        configs = Path(alpaca_eval.constants.EVALUATORS_CONFIG_DIR)
        known = sorted(folder.name for folder in configs.iterdir() if folder.is_dir())
        client_config = Path(str(alpaca_eval.constants.OPENAI_CLIENT_CONFIG_PATH))
        if annotator not in known:
            raise EvalError(
                f"alpaca_eval has no annotator {annotator!r}. It has: {', '.join(known)}."
            )
        try:
            evaluator = alpaca_eval.annotators.pairwise_evaluator
            evaluator.PairwiseAnnotatorLocal(annotators_config=annotator)
        except ImportError as error:
            raise EvalError(
                f"The judge {annotator} needs another package: pip install {error.name}."
            ) from None
    keys = any(os.environ.get(name) for name in ("OPENAI_API_KEY", "OPENAI_API_KEYS"))
    if "openai_completions" in (configs / annotator / "configs.yaml").read_text() and not (
        keys or client_config.is_file()
    ):
        raise EvalError(
            f"The judge {annotator} needs an API key: set OPENAI_API_KEY. Without one, leave out "
            "--judge: the answers are generated all the same."
        )


def check_baseline(instructions: Sequence[str], baseline: Sequence[Row]) -> None:
    """Check that the baseline has an output for every instruction.

    Raises:
        EvalError: If outputs are missing; the message gives their number.
    """
    known = {row["instruction"] for row in baseline if is_text(row.get("output"))}
    if lacking := [text for text in instructions if text not in known]:
        raise EvalError(
            f"The baseline has no output for {len(lacking)} of {len(instructions)} instructions, "
            f"such as {lacking[0][:60]!r}. Give its file: --baseline FILE."
        )


def judge(
    outputs: Sequence[Row],
    baseline: Sequence[Row],
    folder: Path,
    *,
    annotator: str = ANNOTATOR,
    model: str | None = None,
    at_once: int = 5,
    quiet: bool = False,
) -> list[Row]:
    """Compare each output with the baseline output, using the judge of the package.

    Args:
        outputs: Rows with `instruction`, `output` and `generator`.
        baseline: Rows of the baseline, with the same fields.
        folder: Output folder for `judgments.jsonl`, the journal of the requests to the judge, and
            `annotations.json`.
        annotator: Name of the judge's configuration in the package.
        model: Model to use instead of the configured one, with the same prompt.
        at_once: Maximum number of judgments at the same time.
        quiet: Whether to hide the progress bar.

    Returns:
        The annotations in the format of the package.

    Raises:
        EvalError: If the baseline lacks an instruction, or judgments failed. Finished judgments
            are kept, and the next run requests the missing ones.
    """
    check_baseline([row["instruction"] for row in outputs], baseline)
    check_judge(annotator)
    kept = ("dataset", "instruction", "output", "generator")
    about = {"annotator": annotator, "model": model}
    progress = sys.stderr
    asked: set[str] = set()
    with package_of() as alpaca_eval, Journal(folder / "judgments.jsonl", about) as journal:
        package = alpaca_eval.annotators.pairwise_evaluator.PairwiseAnnotatorLocal(
            annotators_config=annotator
        )
        for single in package.annotators.values():
            if model:
                single.completions_kwargs = {**single.completions_kwargs, "model_name": model}
            single.fn_completions = _journalled(
                single,
                journal,
                asked,
                title="judge",
                at_once=at_once,
                quiet=quiet,
                progress=progress,
            )
        annotations: list[Row] = package.annotate_head2head(
            outputs_1=[{k: row[k] for k in kept if k in row} for row in baseline],
            outputs_2=[{k: row[k] for k in kept if k in row} for row in outputs],
            chunksize=None,
        )
        # Ignore failures of old prompts: an answer that has changed since has a new prompt.
        failed = {key: row for key, row in journal.failed.items() if key in asked}
    write_json(folder / "annotations.json", [_plain(row) for row in annotations])
    if failed:
        reasons = {row["error"] for row in failed.values()}
        raise EvalFailed(
            f"{len(failed)} of {len(outputs)} judgments failed ({'; '.join(sorted(reasons)[:3])}). "
            "The others are stored: run the same command again to repeat the failed ones, or "
            f"report the others alone: --from-annotations {folder / 'annotations.json'}."
        )
    return annotations


def _journalled(
    single: Any,
    journal: Journal,
    asked: set[str],
    *,
    title: str,
    at_once: int,
    quiet: bool,
    progress: Any,
) -> Callable[..., dict[str, list[Any]]]:
    """Wrap a judge's completion function: send one prompt at a time, and store each result.

    The journal keys of the prompts are added to `asked`.
    """
    completions: Callable[..., Mapping[str, list[Any]]] = single.fn_completions

    def complete(prompts: Sequence[str], **kwargs: Any) -> dict[str, list[Any]]:
        async def ask(prompt: str) -> Row:
            found = await asyncio.to_thread(completions, [prompt], num_procs=1, **kwargs)
            row = {name: values[0] for name, values in found.items()}
            if not row["completions_all"].get("message"):
                raise EvalFailed("the judge returned no reply")
            price = row.get("price_per_example")
            known = isinstance(price, int | float) and math.isfinite(price)
            row["cost"] = float(price) if known else None  # type: ignore[arg-type]
            if not _has_preference(single, row[single.completion_key]):
                raise AnswerFailed("the reply of the judge has no preference", row)
            return row

        keys = [digest(prompt) for prompt in prompts]
        asked.update(keys)
        items = dict(zip(keys, prompts, strict=True))
        run(
            do_all(
                items, ask, journal, title=title, at_once=at_once, quiet=quiet, progress=progress
            )
        )
        empty = {"completions": "", "completions_all": {}}
        rows = [journal.result(key) or empty for key in keys]
        return {
            name: [row.get(name, math.nan) for row in rows]
            for name in (
                "completions",
                "price_per_example",
                "time_per_example",
                "completions_all",
            )
        }

    return complete


def _has_preference(single: Any, completion: Any) -> bool:
    try:
        found = list(single.fn_completion_parser(completion))
    except Exception:  # noqa: BLE001 - parsers raise many types on unexpected text
        return False
    return any(preference is not None and not math.isnan(preference) for preference in found)


def metrics(annotations: Sequence[Row]) -> Row:
    """Compute the leaderboard metrics of a model from the judge's preferences.

    Args:
        annotations: Rows with `preference` (1: the baseline's answer is better, 2: the model's
            answer is better, in between: weighted by probability) and `output_2`, and for length
            control `output_1`.

    Returns:
        The columns of the leaderboard. `length_controlled_winrate` is None if the data of the
        regression are not available; `length_controlled_note` then gives the reason.

    Raises:
        EvalError: If no annotation has a valid preference.
    """
    import pandas as pd  # noqa: PLC0415 - needs [evals]

    frame = pd.DataFrame([_for_metrics(row) for row in annotations])
    if not frame["preference"].between(1, 2).any():
        raise EvalError("The annotations have no preference from 1 to 2.")
    with package_of() as alpaca_eval:
        found = alpaca_eval.metrics.get_winrate(frame)
        result = {name: _number(found[name]) for name in (*_COLUMNS, "discrete_win_rate")}
        lengths = frame["output_2"].str.len()
        result["avg_length"] = int(lengths.mean()) if lengths.notna().any() else None
        result["avg_length_of"] = int(lengths.count())
        result |= _length_controlled(alpaca_eval, frame)
    return result


def _for_metrics(row: Row) -> Row:
    if "preference" not in row:
        raise EvalError(f"An annotation has no `preference`; it has: {', '.join(row)}.")
    named = {"annotator": "unknown", "generator_1": "baseline", "generator_2": "model"}
    texts = {name: row.get(name) for name in ("instruction", "output_1", "output_2")}
    named = {name: row.get(name) or default for name, default in named.items()}
    preference = row["preference"]
    if preference is not None and (
        not isinstance(preference, int | float) or math.isinf(preference)
    ):
        raise EvalError(f"An annotation's `preference` is {preference!r}; it must be a number.")
    for name, text in texts.items():
        if not isinstance(text, str | None):
            raise EvalError(f"An annotation's `{name}` must be a string, not {text!r}.")
    return {**texts, **named, "preference": math.nan if preference is None else float(preference)}


def _length_controlled(alpaca_eval: Any, frame: Any) -> Row:
    none = {"length_controlled_winrate": None, "lc_standard_error": None}
    if len(frame) != N_INSTRUCTIONS or frame[["output_1", "output_2"]].isna().any().any():
        why = f"not available: it needs the outputs to all {N_INSTRUCTIONS} instructions"
        return {**none, "length_controlled_note": why}
    from sklearn import config_context  # noqa: PLC0415 - needs [evals]

    try:
        if not is_available(REPOSITORY, "df_gamed.csv"):
            raise ConnectionError  # noqa: TRY301
        with config_context():  # the package changes process-wide options
            found = alpaca_eval.metrics.get_length_controlled_winrate(
                frame, save_weights_dir=None, is_add_glm_preference_inplace=False
            )
    except Exception as error:  # noqa: BLE001 - the hub client raises many types
        why = (
            "not available offline: the regression needs df_gamed.csv of tatsu-lab/alpaca_eval "
            f"from the Hugging Face hub ({type(error).__name__})"
        )
        return {**none, "length_controlled_note": why}
    names = ("length_controlled_winrate", "lc_standard_error")
    return {name: _number(found[name]) for name in names}


def _plain(row: Row) -> Row:
    return {name: _number(value) for name, value in row.items()}


def _number(value: Any) -> Any:
    """Convert a number for JSON; return None for NaN and infinity."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
