"""Commands of `moa eval`. They import `moa_graph.evals` late: it needs `moa-graph[evals]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache as memoized
from pathlib import Path
from typing import Annotated, Any

import typer

from moa_graph.cli.benchmarks import app
from moa_graph.cli.eval_options import (
    OUT,
    AtOnceOption,
    DatasetOption,
    JsonOption,
    JudgeOption,
    LimitOption,
    OutOption,
    PricesOption,
    QuestionFieldOption,
    ReferenceFieldOption,
    ReferencesOption,
    ScorerOption,
    SeedOption,
    SizeOption,
    check_covered,
    evaluating,
    folder_for,
    load_judge,
    load_prices,
    load_recorded,
    print_found,
    proposal_cache,
)
from moa_graph.cli.terminal import say
from moa_graph.evals.files import EvalError


@app.command()
def compare(
    targets: Annotated[
        list[str],
        typer.Argument(
            help="Presets, configuration files, models as 'provider:model'; one mixture is enough."
        ),
    ],
    dataset: DatasetOption,
    controls: Annotated[
        bool,
        typer.Option(
            help="Compare the first mixture with a chosen proposal, and with the best single "
            "model, alone and at as many tokens."
        ),
    ] = True,
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
    """Compare configurations on the same questions: quality, cost and latency.

    A judge compares answers in both orders; verifiable tasks use a scorer instead. If LangSmith
    is configured, this runs through langsmith.evaluate.
    """
    with evaluating():
        from moa_graph.evals.controls import first_synthesis  # noqa: PLC0415
        from moa_graph.evals.files import file_name  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals.targets import load_target  # noqa: PLC0415

        recorded = load_recorded(references, None)
        folder, known = out or OUT / "compare" / file_name(dataset), load_prices(prices)
        for spec in targets:  # check all targets before a folder is created
            load_target(spec, recorded=recorded)

        @memoized
        def cache(name: str) -> Any:
            return proposal_cache(folder, name)

        loaded = [
            load_target(spec, prices=known, recorded=recorded, cache=cache) for spec in targets
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
            mixture=first_synthesis(targets, loaded) if controls else None,
            cache=cache,
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
    """Run the paper's ablations: number and kind of proposers, layers, roles, ranker.

    Configurations share the proposals of their first layer to save cost, so the latencies in the
    report are not meaningful.
    """
    with evaluating():
        from moa_graph.evals.ablations import STUDIES, configurations  # noqa: PLC0415
        from moa_graph.evals.files import file_name  # noqa: PLC0415 - needs [evals]
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
    mixture: Any = None,
    cache: Callable[[str], Any] | None = None,
) -> None:
    from moa_graph.evals import controls, experiment  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.compare import check, compare  # noqa: PLC0415
    from moa_graph.evals.comparison_report import report  # noqa: PLC0415
    from moa_graph.evals.datasets import load_dataset  # noqa: PLC0415

    asked = load_dataset(dataset, size=size, seed=seed, **fields)
    check_covered(recorded, [item.turns for item in asked.items])
    judging = load_judge(judge, prices) if judge else None
    first = baseline or targets[0].name
    check(targets, asked, judging, first, fewest=1 if mixture else 2)
    traced = experiment.Experiment() if experiment.is_configured() else None
    together = None
    if mixture:
        targets, together = controls.with_controls(
            mixture,
            targets,
            asked,
            folder,
            prices=load_prices(prices),
            cache=cache or (lambda name: proposal_cache(folder, name)),
            scorer=fields["scorer"],
            experiment=traced,
            at_once=at_once,
        )
    found = compare(
        targets,
        asked,
        folder,
        judging=judging,
        baseline=first,
        controls=together,
        experiment=traced,
        at_once=at_once,
    )
    print_found(found, lambda: report(found), as_json=as_json)
    say(f"{folder}: report.md, report.json, quality.png, pareto.png")


@app.command()
def replay(
    folders: Annotated[
        list[Path],
        typer.Argument(help="Recorded answers: ZeroEval's, or in that form, or logs of Inspect."),
    ],
    pool: Annotated[
        list[str] | None,
        typer.Option(help="Models of a pool, separated by commas; repeatable."),
    ] = None,
    limit: LimitOption = None,
    out: OutOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare strategies on recorded, verifiable answers, without model calls.

    Without --pool there are three pools: similar models, strong with weak models, all models.
    """
    with evaluating():
        from moa_graph.evals import replay as bench  # noqa: PLC0415 - needs [evals]
        from moa_graph.evals.files import replace, write_json  # noqa: PLC0415
        from moa_graph.evals.records import read_records  # noqa: PLC0415

        if out:
            folder_for(out)
        found, texts = [], []
        sets = read_records(folders)
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
    """Measure the similarity of each proposal to the aggregate: BLEU, TF-IDF, Levenshtein.

    Files have AlpacaEval's output format (instruction, output, generator). No model is called.
    """
    with evaluating():
        from moa_graph.evals import alpaca_report, similarity_study  # noqa: PLC0415 - needs [evals]

        rates = {
            name: row["length_controlled_winrate"]
            for name, row in alpaca_report.leaderboard().items()
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
