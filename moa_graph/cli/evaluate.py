"""The command `moa eval`. What it runs is imported when it is run: it needs `moa-graph[evals]`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from moa_graph.cli.eval_options import (
    OUT,
    AloneOption,
    AtOnceOption,
    DatasetOption,
    JsonOption,
    JudgeOption,
    LimitOption,
    OutOption,
    PresetOption,
    PricesOption,
    QuestionFieldOption,
    ReferenceFieldOption,
    ReferencesOption,
    ScorerOption,
    SeedOption,
    SizeOption,
    TargetArgument,
    check_covered,
    evaluating,
    folder_for,
    load_all,
    load_for,
    load_judge,
    load_prices,
    load_recorded,
    one_of,
    print_found,
    proposal_cache,
)
from moa_graph.cli.terminal import print_json, say
from moa_graph.evals.files import EvalError, EvalFailed, Row, name_of

app = typer.Typer(help="Does it help? Benchmarks and comparisons.", no_args_is_help=True)


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
    """AlpacaEval 2.0: answer the 805 instructions, judge them, and see the leaderboard.

    Writes model_outputs.json, which the package alpaca_eval reads.
    """
    with evaluating():
        from moa_graph.evals import alpaca as bench  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals.files import read_rows, write_json  # noqa: PLC0415

        annotator = annotator or bench.ANNOTATOR
        published = bench.leaderboard(leaderboard) if judge or from_annotations else {}
        if from_annotations:
            rows = read_rows(from_annotations, ["preference"])[:limit]
            for sentence in bench.doubts(rows):
                say(sentence)
            name = str(rows[0].get("generator_2") or name_of(from_annotations))
            found = bench.metrics(rows)
            print_found(found, lambda: bench.report(name, found, published), as_json=as_json)
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
        print_found(found, lambda: bench.report(it.name, found, published), as_json=as_json)


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
    """MT-Bench: 80 questions of two turns, graded by a judge; scores and a radar plot."""
    with evaluating():
        from moa_graph.evals import mt_bench as bench  # noqa: PLC0415 - needs [evals]

        if from_judgments:
            categories = None
            if questions:
                categories = _categories(bench.load_questions(questions))
            rows = [row for path in from_judgments for row in bench.read_gradings(path)][:limit]
            found = bench.scores(rows, categories)
            _scores_report(bench, found, "categories", (0, 10), out, as_json=as_json)
            return
        judging = load_judge(judge, prices)
        asked = bench.load_questions(questions)[:limit]
        graded_by = bench.load_references(reference_answers)
        for question in asked:  # a missing reference is told before anything is paid for
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
        found = bench.scores(rows, _categories(asked))
        out = out or OUT / "mt-bench"
        _scores_report(bench, found, "categories", (0, 10), out, as_json=as_json)


def _categories(questions: Sequence[Row]) -> dict[str, str]:
    return {str(q["question_id"]): str(q["category"]) for q in questions}


def _scores_report(
    bench: Any,
    found: dict[str, Row],
    by: str,
    scale: tuple[float, float],
    out: Path | None,
    *,
    as_json: bool,
) -> None:
    """Print scores, and where there is a folder write them and their radar plot."""
    from moa_graph.evals import plots  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.files import write_json  # noqa: PLC0415

    print_found(found, lambda: bench.report(found), as_json=as_json)
    if out:
        write_json(folder_for(out) / "report.json", found)
        scores = {name: row[by] for name, row in found.items()}
        if any(scores.values()):
            figure = plots.radar(scores, lowest=scale[0], highest=scale[1], title=bench.TITLE)
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
        typer.Option(help="Only compute the scores of recorded reviews; a file a model."),
    ] = None,
    alone: AloneOption = False,
    out: OutOption = None,
    limit: LimitOption = None,
    at_once: AtOnceOption = 8,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> None:
    """FLASK: instructions reviewed skill by skill; scores and a radar plot."""
    with evaluating():
        from dataclasses import replace  # noqa: PLC0415

        from moa_graph.evals import flask as bench  # noqa: PLC0415 - needs [evals]

        found: dict[str, Row] = {}
        if from_reviews:
            questions = bench.load(data, hard=hard).questions if data else ()
            for path in from_reviews:
                name = name_of(path)
                found[name if name not in found else str(path)] = bench.scores(
                    bench.read_reviews(path), questions
                )
            _scores_report(bench, found, "skills", (1, 5), out, as_json=as_json)
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
        _scores_report(bench, found, "skills", (1, 5), out or OUT / "flask", as_json=as_json)


@app.command()
def compare(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Two or more: presets, configuration files, models as 'provider:model'."
        ),
    ],
    dataset: DatasetOption,
    judge: JudgeOption = None,
    scorer: ScorerOption = None,
    baseline: Annotated[
        str | None, typer.Option(help="What the others are compared with; the first by default.")
    ] = None,
    question_field: QuestionFieldOption = None,
    reference_field: ReferenceFieldOption = None,
    size: SizeOption = None,
    seed: SeedOption = 42,
    references: ReferencesOption = None,
    out: OutOption = None,
    at_once: AtOnceOption = 8,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Two or more configurations on the same questions: quality, cost and delay.

    A judge compares answers in both orders; verifiable tasks have a scorer instead. Through
    langsmith.evaluate where LangSmith is configured.
    """
    with evaluating():
        from moa_graph.evals.compare import file_name  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals.targets import load_target  # noqa: PLC0415

        recorded = load_recorded(references, None)
        folder, known = out or OUT / "compare" / file_name(dataset), load_prices(prices)
        for spec in targets:  # before a folder is made for what does not exist
            load_target(spec, recorded=recorded)
        loaded = [
            load_target(
                spec,
                prices=known,
                recorded=recorded,
                cache=lambda name: proposal_cache(folder, name),
            )
            for spec in targets
        ]
        baseline = next(
            (it.name for spec, it in zip(targets, loaded, strict=True) if spec == baseline),
            baseline,
        )
        _compare(
            loaded,
            dataset,
            folder,
            {"question": question_field, "reference": reference_field, "scorer": scorer},
            size=size,
            seed=seed,
            judge=judge,
            prices=prices,
            baseline=baseline,
            recorded=recorded,
            at_once=at_once,
            as_json=as_json,
        )


@app.command()
def ablations(
    models: Annotated[list[str], typer.Argument(help="The proposers, as 'provider:model'.")],
    dataset: DatasetOption,
    aggregator: Annotated[
        str | None, typer.Option(help="Who aggregates; the first of them by default.")
    ] = None,
    study: Annotated[
        list[str] | None,
        typer.Option(help="proposers, layers, roles, ranker; repeatable, all by default."),
    ] = None,
    judge: JudgeOption = None,
    scorer: ScorerOption = None,
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.7,
    max_tokens: Annotated[int, typer.Option(min=1)] = 2048,
    question_field: QuestionFieldOption = None,
    reference_field: ReferenceFieldOption = None,
    size: SizeOption = None,
    seed: SeedOption = 42,
    out: OutOption = None,
    at_once: AtOnceOption = 8,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> None:
    """The paper's ablations: number and kind of proposers, layers, roles, the ranker.

    Configurations share the proposals of their first layer, which so are paid for once; the delays
    in the report are no measurement then.
    """
    with evaluating():
        from moa_graph.evals.ablations import STUDIES, configurations  # noqa: PLC0415
        from moa_graph.evals.compare import file_name  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals.targets import of_graph  # noqa: PLC0415

        folder, known = out or OUT / "ablations" / file_name(dataset), load_prices(prices)
        shared = proposal_cache(folder, "proposals")
        try:
            made = configurations(
                models,
                aggregator,
                study or STUDIES,  # type: ignore[arg-type]
                temperature=temperature,
                max_tokens=max_tokens,
            )
            loaded = [of_graph(c.name, c.create(cache=shared), c.data(), known) for c in made]
        except (ValueError, TypeError) as error:
            raise EvalError(str(error)) from None
        _compare(
            loaded,
            dataset,
            folder,
            {"question": question_field, "reference": reference_field, "scorer": scorer},
            size=size,
            seed=seed,
            judge=judge,
            prices=prices,
            baseline=None,
            recorded=[],
            at_once=at_once,
            as_json=as_json,
        )


def _compare(
    targets: Sequence[Any],
    dataset: str,
    folder: Path,
    fields: dict[str, Any],
    *,
    size: int | None,
    seed: int,
    judge: str | None,
    prices: Path | None,
    baseline: str | None,
    recorded: Sequence[Any],
    at_once: int,
    as_json: bool,
) -> None:
    from moa_graph.evals import experiment  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.compare import compare, report  # noqa: PLC0415
    from moa_graph.evals.datasets import load_dataset  # noqa: PLC0415

    asked = load_dataset(dataset, size=size, seed=seed, **fields)
    check_covered(recorded, [item.turns for item in asked.items])
    judging = load_judge(judge, prices) if judge else None
    found = compare(
        targets,
        asked,
        folder,
        judging=judging,
        baseline=baseline,
        experiment=experiment.Experiment() if experiment.is_configured() else None,
        at_once=at_once,
    )
    print_found(found, lambda: report(found), as_json=as_json)
    say(f"{folder}: report.md, report.json, quality.png, pareto.png")


@app.command()
def replay(
    folders: Annotated[
        list[Path], typer.Argument(help="Recorded answers: ZeroEval's, or in that form.")
    ],
    pool: Annotated[
        list[str] | None,
        typer.Option(help="Models of a pool, separated by commas; repeatable."),
    ] = None,
    limit: LimitOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Strategies over recorded, verifiable answers: where does voting win, and where lose?

    Calls no model. Without --pool three pools are shown: similar models, strong with weak, all.
    """
    with evaluating():
        from moa_graph.evals import replay as bench  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals.files import replace, write_json  # noqa: PLC0415
        from moa_graph.evals.verifiable import read_set  # noqa: PLC0415

        if out:
            folder_for(out)
        found, texts = [], []
        sets = [read_set(folder) for folder in folders]
        pools_of = [
            {p: [name.strip() for name in p.split(",")] for p in pool}
            if pool
            else bench.default_pools(recorded)
            for recorded in sets
        ]
        for recorded, pools in zip(sets, pools_of, strict=True):
            models = bench.accuracies(recorded)
            rows = {
                name: bench.replay(recorded, names, limit=limit, title=f"{recorded.name}, {name}")
                for name, names in pools.items()
            }
            texts.append(bench.report(recorded, models, rows))
            found.append({"set": recorded.name, "models": models, "pools": bench.summary(rows)})
        print_found({"sets": found}, lambda: "\n\n".join(texts), as_json=as_json)
        if out:
            write_json(out / "report.json", found)
            replace(out / "report.md", "\n\n".join(texts) + "\n")


@app.command()
def similarity(
    aggregate: Annotated[Path, typer.Argument(help="The aggregator's recorded answers.")],
    proposals: Annotated[list[Path], typer.Argument(help="Those of each proposer.")],
    annotations: Annotated[
        list[Path] | None,
        typer.Option(help="A judge's preferences of the proposers; repeatable."),
    ] = None,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> None:
    """How much of each proposal is in the aggregate: BLEU, TF-IDF and Levenshtein.

    Files are AlpacaEval's outputs (instruction, output, generator). Calls no model.
    """
    with evaluating():
        from moa_graph.evals import alpaca, similarity_study  # noqa: PLC0415 - needs [evals]

        rates = {
            name: row["length_controlled_winrate"]
            for name, row in alpaca.leaderboard().items()
            if row.get("length_controlled_winrate") is not None
        }
        found = similarity_study.study(
            aggregate,
            proposals,
            win_rates=rates,  # type: ignore[arg-type]
            annotations=annotations or (),
            limit=limit,
        )
        print_found(found, lambda: similarity_study.report(found), as_json=as_json)
