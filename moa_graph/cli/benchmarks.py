"""Published benchmarks of `moa eval`: AlpacaEval, MT-Bench and FLASK."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer

from moa_graph.cli.eval_options import (
    OUT,
    AloneOption,
    AtOnceOption,
    JsonOption,
    JudgeOption,
    LimitOption,
    OutOption,
    PresetOption,
    PricesOption,
    ReferencesOption,
    TargetArgument,
    check_covered,
    evaluating,
    folder_for,
    load_all,
    load_for,
    load_judge,
    load_recorded,
    one_of,
    print_found,
)
from moa_graph.cli.terminal import print_json, say
from moa_graph.evals.files import EvalError, EvalFailed, Row, name_of

app = typer.Typer(help="Benchmarks and comparisons.", no_args_is_help=True)


@app.command()
def alpaca(
    target: TargetArgument = None,
    preset: PresetOption = None,
    instructions: Annotated[
        Path | None, typer.Option(help="What is asked, JSON; by default the 805, from the hub.")
    ] = None,
    references: ReferencesOption = None,
    judge: Annotated[
        bool, typer.Option("--judge", help="Judge the answers too; needs OPENAI_API_KEY.")
    ] = False,
    annotator: Annotated[
        str | None, typer.Option(help="The judge's configuration in the package alpaca_eval.")
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="Another model with that configuration's prompt.")
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option(help="The baseline's outputs; by default with the instructions.")
    ] = None,
    from_annotations: Annotated[
        Path | None, typer.Option(help="Only compute the metrics of recorded annotations.")
    ] = None,
    leaderboard: Annotated[
        Path | None, typer.Option(help="A leaderboard, CSV; by default the package's.")
    ] = None,
    out: OutOption = None,
    limit: LimitOption = None,
    at_once: AtOnceOption = 8,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run AlpacaEval 2.0: answer 805 instructions, judge the answers, compare with the leaderboard.

    Write model_outputs.json, which the package alpaca_eval can read.
    """
    with evaluating():
        from moa_graph.evals import alpaca as bench  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals import alpaca_report as told  # noqa: PLC0415
        from moa_graph.evals.files import read_rows, write_json  # noqa: PLC0415

        annotator = annotator or told.ANNOTATOR
        published = told.leaderboard(leaderboard) if judge or from_annotations else {}
        if from_annotations:
            rows = read_rows(from_annotations, ["preference"])[:limit]
            for sentence in told.doubts(rows):
                say(sentence)
            name = str(rows[0].get("generator_2") or name_of(from_annotations))
            found = bench.metrics(rows)
            print_found(found, lambda: told.report(name, found, published), as_json=as_json)
            if out:
                write_json(folder_for(out) / "report.json", found)
            return
        if judge:
            bench.check_judge(annotator)
        recorded = load_recorded(references, None)
        it, folder = load_for("alpaca", one_of(target, preset), recorded, out, prices)
        asked = bench.load_instructions(instructions)
        check_covered(recorded, [(str(row["instruction"]),) for row in asked[:limit]])
        base = read_rows(baseline, ["instruction", "output"]) if baseline else asked
        if judge:
            bench.check_baseline([str(row["instruction"]) for row in asked[:limit]], base)
        it.check()
        path, failed = bench.generate(it, asked, folder, limit=limit, at_once=at_once)
        n = len(asked[:limit])
        say(f"{path}: {n - len(failed)} of {n} answers.")
        if failed:
            raise EvalFailed(
                f"{len(failed)} of {n} answers failed, such as: {failed[0]['error']}. Run the "
                "same command again: only those are asked."
            )
        if not judge:
            say("Not judged; --judge does, through the package alpaca_eval.")
            if as_json:
                print_json({"model_outputs": str(path), "answers": n})
            return
        annotations = bench.judge(
            read_rows(path),
            base,
            folder,
            annotator=annotator,
            model=judge_model,
            at_once=at_once,
        )
        found = bench.metrics(annotations)
        write_json(folder / "report.json", found)
        print_found(found, lambda: told.report(it.name, found, published), as_json=as_json)


@app.command("mt-bench")
def mt_bench(
    target: TargetArgument = None,
    preset: PresetOption = None,
    judge: JudgeOption = None,
    questions: Annotated[
        Path | None, typer.Option(help="FastChat's question.jsonl; by default from the hub.")
    ] = None,
    reference_answers: Annotated[
        Path | None, typer.Option(help="FastChat's gpt-4.jsonl; by default from the hub.")
    ] = None,
    references: ReferencesOption = None,
    from_judgments: Annotated[
        list[Path] | None,
        typer.Option(
            "--from-judgments",
            "--from-gradings",
            help="Only compute the scores of recorded gradings; repeatable.",
        ),
    ] = None,
    alone: AloneOption = False,
    out: OutOption = None,
    limit: LimitOption = None,
    at_once: AtOnceOption = 8,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run MT-Bench: 80 two-turn questions, graded by a judge; scores and a radar plot."""
    with evaluating():
        from moa_graph.evals import mt_bench as bench  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals import mt_bench_scores as told  # noqa: PLC0415

        if from_judgments:
            categories = None
            if questions:
                categories = _categories(bench.load_questions(questions))
            rows = [row for path in from_judgments for row in told.read_gradings(path)][:limit]
            found = told.scores(rows, categories)
            _scores_report(
                found, told.report, bench.TITLE, "categories", (0, 10), out, as_json=as_json
            )
            return
        judging = load_judge(judge, prices)
        asked = bench.load_questions(questions)[:limit]
        graded_by = bench.load_references(reference_answers)
        for question in asked:  # report a missing reference before any paid call
            for turn in bench.TURNS[: len(question["turns"])]:
                bench.case(question, ["", ""], graded_by, turn)
        recorded = load_recorded(references, bench.turns_by_id(asked))
        rows = []
        spec = one_of(target, preset)
        all_of_them = load_all("mt-bench", spec, recorded, out, prices, alone=alone)
        for it, folder in all_of_them:
            turns = [tuple(q["turns"][: i + 1]) for q in asked for i in range(len(q["turns"]))]
            check_covered(recorded, turns)
            answers = bench.generate(it, asked, folder, at_once=at_once)
            rows += bench.judge(
                judging, it.name, asked, answers, graded_by, folder, at_once=at_once
            )
        found = told.scores(rows, _categories(asked))
        out = out or OUT / "mt-bench"
        _scores_report(found, told.report, bench.TITLE, "categories", (0, 10), out, as_json=as_json)


def _categories(questions: Sequence[Row]) -> dict[str, str]:
    return {str(q["question_id"]): str(q["category"]) for q in questions}


def _scores_report(
    found: dict[str, Row],
    report: Callable[[dict[str, Row]], str],
    title: str,
    by: str,
    scale: tuple[float, float],
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print scores; with `out`, also write them and a radar plot."""
    from moa_graph.evals import plots  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.files import write_json  # noqa: PLC0415

    print_found(found, lambda: report(found), as_json=as_json)
    if out:
        write_json(folder_for(out) / "report.json", found)
        scores = {name: row[by] for name, row in found.items()}
        if any(scores.values()):
            figure = plots.radar(scores, lowest=scale[0], highest=scale[1], title=title)
            say(str(plots.save(figure, out / "radar.png")))


@app.command()
def flask(
    target: TargetArgument = None,
    preset: PresetOption = None,
    judge: JudgeOption = None,
    data: Annotated[
        Path | None, typer.Option(help="A copy of the repository kaistAI/FLASK, or its files.")
    ] = None,
    hard: Annotated[bool, typer.Option("--hard", help="The hard subset of 89.")] = False,
    references: ReferencesOption = None,
    from_reviews: Annotated[
        list[Path] | None,
        typer.Option(help="Only compute the scores of recorded reviews; one file per model."),
    ] = None,
    alone: AloneOption = False,
    out: OutOption = None,
    limit: LimitOption = None,
    at_once: AtOnceOption = 8,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run FLASK: a judge reviews the answers by skill; scores and a radar plot."""
    with evaluating():
        from dataclasses import replace  # noqa: PLC0415

        from moa_graph.evals import flask as bench  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals import flask_reviews as told  # noqa: PLC0415

        found: dict[str, Row] = {}
        if from_reviews:
            questions = bench.load(data, hard=hard).questions if data else ()
            for path in from_reviews:
                name = name_of(path)
                found[name if name not in found else str(path)] = bench.scores(
                    told.read_reviews(path), questions
                )
            _scores_report(found, bench.report, bench.TITLE, "skills", (1, 5), out, as_json=as_json)
            return
        if data is None:
            raise EvalError(
                "FLASK's questions and prompt are not part of this package, as they have no "
                "licence: git clone https://github.com/kaistAI/FLASK, and give it: --data FLASK."
            )
        judging = load_judge(judge, prices)
        whole = bench.load(data, hard=hard)
        whole = replace(whole, questions=whole.questions[:limit])
        by_id = {str(q["idx"]): [str(q["instruction"])] for q in whole.questions}
        recorded = load_recorded(references, by_id)
        spec = one_of(target, preset)
        for it, folder in load_all("flask", spec, recorded, out, prices, alone=alone):
            check_covered(recorded, [tuple(turns) for turns in by_id.values()])
            answers = bench.generate(it, whole, folder, at_once=at_once)
            rows = bench.review(judging, it.name, whole, answers, folder, at_once=at_once)
            found[it.name] = bench.scores(rows, whole.questions)
        _scores_report(
            found,
            bench.report,
            bench.TITLE,
            "skills",
            (1, 5),
            out or OUT / "flask",
            as_json=as_json,
        )
