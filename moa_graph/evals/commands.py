"""The command `moa eval`. What it runs is imported when it is run: it needs `moa-graph[evals]`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from moa_graph.errors import MoAError
from moa_graph.evals.files import EvalError, EvalFailed, Row

FAILED, WRONG_CALL = 1, 2
_OUT = Path("moa-eval")

app = typer.Typer(help="Does it help? Benchmarks and comparisons.", no_args_is_help=True)

TargetArgument = Annotated[
    str | None,
    typer.Argument(help="A preset, a configuration file, or one model as 'provider:model'."),
]
PresetOption = Annotated[
    str | None, typer.Option("--preset", "-p", help="The same, as an option.", show_default=False)
]
ReferencesOption = Annotated[
    list[Path] | None,
    typer.Option("--references", help="Recorded answers in place of the proposers; repeatable."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The folder of results; the same one goes on from there."),
]
AtOnceOption = Annotated[int, typer.Option(min=1, help="How many at the same time.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Only the first so many.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
PricesOption = Annotated[
    Path | None,
    typer.Option(help='Prices of your own, JSON: {"model": [dollars per million in, out]}.'),
]
JudgeOption = Annotated[
    str | None, typer.Option("--judge", help="The judge, a model as 'provider:model'.")
]
AloneOption = Annotated[
    bool, typer.Option("--alone", help="Evaluate the aggregator alone too, and plot it beside.")
]


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
    with _evaluating():
        from moa_graph.evals import alpaca as bench  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals.files import read_rows, write_json  # noqa: PLC0415

        annotator = annotator or bench.ANNOTATOR
        if from_annotations:
            published = bench.leaderboard(leaderboard)
            rows = read_rows(from_annotations, ["preference"])
            name = str(rows[0].get("generator_2") or from_annotations.name.partition(".")[0])
            found = bench.metrics(rows)
            _print(found, lambda: bench.report(name, found, published), as_json=as_json)
            return
        if judge:
            bench.check_judge(annotator)
        recorded = _recorded(references, None)
        it, folder = _target("alpaca", target or preset, recorded, out, prices)
        asked = bench.load_instructions(instructions)
        _covered(recorded, [(str(row["instruction"]),) for row in asked[:limit]])
        it.check()
        _fetch(it)
        path, failed = bench.generate(it, asked, folder, limit=limit, at_once=at_once)
        n = len(asked[:limit])
        _tell(f"{path}: {n - len(failed)} of {n} answers.")
        if failed:
            raise EvalFailed(
                f"{len(failed)} of {n} answers failed, such as: {failed[0]['error']}. Run the "
                "same command again: only those are asked."
            )
        if not judge:
            _tell("Not judged; --judge does, through the package alpaca_eval.")
            return
        base = read_rows(baseline, ["instruction", "output"]) if baseline else asked
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
        published = bench.leaderboard(leaderboard)
        _print(found, lambda: bench.report(it.name, found, published), as_json=as_json)


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
    with _evaluating():
        from moa_graph.evals import mt_bench as bench  # noqa: PLC0415 - needs [evals]

        if from_judgments:
            categories = None
            if questions:
                categories = _categories(bench.load_questions(questions))
            rows = [row for path in from_judgments for row in bench.read_gradings(path)]
            _radar_report(bench, bench.scores(rows, categories), out, as_json=as_json)
            return
        judging = _judging(judge, prices)
        asked = bench.load_questions(questions)[:limit]
        graded_by = bench.load_references(reference_answers)
        for question in asked:  # a missing reference is told before anything is paid for
            for turn in bench.TURNS[: len(question["turns"])]:
                bench.case(question, ["", ""], graded_by, turn)
        recorded = _recorded(references, bench.turns_by_id(asked))
        rows = []
        for it, folder in _targets(
            "mt-bench", target or preset, recorded, out, prices, alone=alone
        ):
            turns = [tuple(q["turns"][: i + 1]) for q in asked for i in range(len(q["turns"]))]
            _covered(recorded, turns)
            answers = bench.generate(it, asked, folder, at_once=at_once)
            _all_answered(answers, len(asked))
            rows += bench.judge(
                judging, it.name, asked, answers, graded_by, folder, at_once=at_once
            )
        found = bench.scores(rows, _categories(asked))
        _radar_report(bench, found, out or _OUT / "mt-bench", as_json=as_json)


def _categories(questions: Sequence[Row]) -> dict[str, str]:
    return {str(q["question_id"]): str(q["category"]) for q in questions}


def _radar_report(bench: Any, found: dict[str, Row], out: Path | None, *, as_json: bool) -> None:
    from moa_graph.evals import plots  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.files import write_json  # noqa: PLC0415

    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "report.json", found)
        by_category = {name: row["categories"] for name, row in found.items()}
        if any(by_category.values()):
            figure = plots.radar(by_category, lowest=0, highest=10, title="MT-Bench")
            _tell(str(plots.save(figure, out / "radar.png")))
    _print(found, lambda: bench.report(found), as_json=as_json)


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
    with _evaluating():
        from dataclasses import replace  # noqa: PLC0415

        from moa_graph.evals import flask as bench  # noqa: PLC0415 - needs [evals]

        found: dict[str, Row] = {}
        if from_reviews:
            questions = bench.load(data, hard=hard).questions if data else ()
            for path in from_reviews:
                name = path.name.partition(".")[0]
                found[name if name not in found else str(path)] = bench.scores(
                    bench.read_reviews(path), questions
                )
            _flask_report(bench, found, out, as_json=as_json)
            return
        if data is None:
            raise EvalError(
                "FLASK's questions and prompt are not part of this package, as they have no "
                "licence: git clone https://github.com/kaistAI/FLASK, and give it: --data FLASK."
            )
        judging = _judging(judge, prices)
        whole = bench.load(data, hard=hard)
        whole = replace(whole, questions=whole.questions[:limit])
        by_id = {str(q["idx"]): [str(q["instruction"])] for q in whole.questions}
        recorded = _recorded(references, by_id)
        for it, folder in _targets("flask", target or preset, recorded, out, prices, alone=alone):
            _covered(recorded, [tuple(turns) for turns in by_id.values()])
            answers = bench.generate(it, whole, folder, at_once=at_once)
            _all_answered(answers, len(whole.questions))
            rows = bench.review(judging, it.name, whole, answers, folder, at_once=at_once)
            found[it.name] = bench.scores(rows, whole.questions)
        _flask_report(bench, found, out or _OUT / "flask", as_json=as_json)


def _flask_report(bench: Any, found: dict[str, Row], out: Path | None, *, as_json: bool) -> None:
    from moa_graph.evals import plots  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.files import write_json  # noqa: PLC0415

    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_json(out / "report.json", found)
        by_skill = {name: row["skills"] for name, row in found.items()}
        if any(by_skill.values()):
            figure = plots.radar(by_skill, lowest=1, highest=5, title="FLASK")
            _tell(str(plots.save(figure, out / "radar.png")))
    _print(found, lambda: bench.report(found), as_json=as_json)


DatasetOption = Annotated[
    str,
    typer.Option(
        "--dataset",
        "-d",
        help="A JSON or JSONL file, langsmith:NAME, or reasoning-gym:TASK.",
        show_default=False,
    ),
]
ScorerOption = Annotated[
    str | None, typer.Option(help="How an answer is right: exact, number or contains.")
]
QuestionFieldOption = Annotated[str | None, typer.Option(help="The field with the question.")]
ReferenceFieldOption = Annotated[str | None, typer.Option(help="The field with the right answer.")]
SizeOption = Annotated[
    int | None, typer.Option("--size", "--limit", min=1, help="How many questions.")
]
SeedOption = Annotated[int, typer.Option(help="Of generated tasks.")]


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
    with _evaluating():
        from moa_graph.evals.targets import load_target  # noqa: PLC0415 - needs [evals]

        recorded = _recorded(references, None)
        folder, known = out or _OUT / "compare", _prices(prices)
        loaded = [
            load_target(spec, prices=known, recorded=recorded, cache=_cache(folder, spec))
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
    with _evaluating():
        from moa_graph.evals.ablations import STUDIES, configurations  # noqa: PLC0415
        from moa_graph.evals.targets import of_graph  # noqa: PLC0415 - needs [evals]

        folder, known = out or _OUT / "ablations", _prices(prices)
        shared = _cache(folder, "proposals")
        try:
            made = configurations(
                models,
                aggregator,
                study or STUDIES,  # type: ignore[arg-type]
                temperature=temperature,
                max_tokens=max_tokens,
            )
            loaded = [
                of_graph(c.name, c.create(cache=shared), c.model_dump(mode="json"), known)
                for c in made
            ]
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
    _covered(
        recorded, [tuple(m.text for m in i.messages if m.type == "human") for i in asked.items]
    )
    judging = _judging(judge, prices) if judge else None
    for it in targets:
        it.check()
        _fetch(it)
    found = compare(
        targets,
        asked,
        folder,
        judging=judging,
        baseline=baseline,
        experiment=experiment.Experiment() if experiment.is_configured() else None,
        at_once=at_once,
    )
    _print(found, lambda: report(found), as_json=as_json)
    _tell(f"{folder}: report.md, report.json, quality.png, pareto.png")


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
    with _evaluating():
        from moa_graph.evals import replay as bench  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals.files import replace, write_json  # noqa: PLC0415
        from moa_graph.evals.verifiable import read_set  # noqa: PLC0415

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
        if out:
            out.mkdir(parents=True, exist_ok=True)
            write_json(out / "report.json", found)
            replace(out / "report.md", "\n\n".join(texts) + "\n")
        _print({"sets": found}, lambda: "\n\n".join(texts), as_json=as_json)


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
    with _evaluating():
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
        _print(found, lambda: similarity_study.report(found), as_json=as_json)


@contextmanager
def _evaluating() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        _tell(f"This needs more packages ({error.name}): pip install 'moa-graph[evals]'")
        raise typer.Exit(WRONG_CALL) from None
    except EvalFailed as error:
        _tell(str(error))
        raise typer.Exit(FAILED) from None
    except MoAError as error:
        _tell(str(error))
        raise typer.Exit(WRONG_CALL) from None


def _target(
    benchmark: str, spec: str | None, recorded: Sequence[Any], out: Path | None, prices: Path | None
) -> tuple[Any, Path]:
    from moa_graph.evals.compare import file_name  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.targets import load_target  # noqa: PLC0415

    if spec is None:
        raise EvalError(
            "Say what to evaluate: a preset (see `moa presets`), a configuration file, or one "
            "model as 'provider:model'."
        )
    checked = load_target(spec, recorded=recorded)
    folder = out or _OUT / benchmark / file_name(checked.name)
    cache = None if recorded else _cache(folder, "proposals")
    return load_target(spec, prices=_prices(prices), recorded=recorded, cache=cache), folder


def _targets(
    benchmark: str,
    spec: str | None,
    recorded: Sequence[Any],
    out: Path | None,
    prices: Path | None,
    *,
    alone: bool,
) -> list[tuple[Any, Path]]:
    from moa_graph.evals.targets import aggregator_alone  # noqa: PLC0415 - needs [evals]

    it, folder = _target(benchmark, spec, recorded, out, prices)
    found = [(it, folder)]
    if alone:
        assert spec is not None
        found.append(
            (aggregator_alone(spec, _prices(prices)), folder.with_name(folder.name + "-alone"))
        )
    for it, _ in found:
        it.check()
        _fetch(it)
    return found


def _cache(folder: Path, name: str) -> Any:
    """What keeps the proposals of a run that is interrupted before their answer is written."""
    from langgraph.cache.sqlite import SqliteCache  # noqa: PLC0415 - needs [evals]

    from moa_graph.evals.compare import file_name  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    return SqliteCache(path=str(folder / f"{file_name(name)}.sqlite"))


def _fetch(target: Any) -> None:
    from moa_graph import local  # noqa: PLC0415

    for model in target.models:
        if model.provider == "local" and local.is_installed():
            local.fetch(model.name)


def _judging(judge: str | None, prices: Path | None) -> Any:
    from moa_graph.evals import pairwise  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.targets import load_target  # noqa: PLC0415

    if judge is None:
        raise EvalError("Say who judges: --judge provider:model, such as openai:gpt-4-turbo.")
    found = load_target(judge, prices=_prices(prices))
    pairwise.check(found)
    return found


def _prices(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        return {name: (float(of[0]), float(of[1])) for name, of in read.items()}
    except (OSError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        raise EvalError(
            f'{path} holds no prices ({error}); it must be like {{"model": [0.5, 1.5]}}, in '
            "dollars per million tokens in and out."
        ) from None


def _recorded(paths: Sequence[Path] | None, questions: Any) -> list[Any]:
    from moa_graph.evals.recorded import RecordedProposals  # noqa: PLC0415 - needs [evals]

    return [RecordedProposals.read(path, questions) for path in paths or ()]


def _covered(recorded: Sequence[Any], questions: Sequence[tuple[str, ...]]) -> None:
    for proposals in recorded:
        if missing := proposals.missing(questions):
            raise EvalError(
                f"{proposals.name} has no recorded answer to {len(missing)} of {len(questions)} "
                f"questions, such as {missing[0][-1][:60]!r}."
            )


def _all_answered(answers: dict[str, Row], n: int) -> None:
    failed = [row["error"] for row in answers.values() if row.get("error")]
    if failed or len(answers) < n:
        raise EvalFailed(
            f"{n - len(answers) + len(failed)} of {n} answers failed, such as: "
            f"{failed[0] if failed else 'not asked'}. Run the same command again for those."
        )


def _print(found: Any, report: Callable[[], str], *, as_json: bool) -> None:
    typer.echo(json.dumps(found, ensure_ascii=False, indent=2) if as_json else report())


def _tell(text: str) -> None:
    typer.echo(text, err=True)
