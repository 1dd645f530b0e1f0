"""The command `moa eval pool`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from moa_graph.cli.benchmarks import app
from moa_graph.cli.eval_options import (
    OUT,
    AtOnceOption,
    JsonOption,
    OutOption,
    PricesOption,
    QuestionFieldOption,
    ReferenceFieldOption,
    ScorerOption,
    SeedOption,
    SizeOption,
    evaluating,
    folder_for,
    load_prices,
    print_found,
)
from moa_graph.cli.terminal import say
from moa_graph.evals.files import EvalError


@app.command()
def pool(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Recorded answers (folders, or logs of Inspect), or models to ask as "
            "'provider:model'.",
        ),
    ],
    models: Annotated[
        str | None,
        typer.Option(help="Only these models of the records, separated by commas."),
    ] = None,
    largest: Annotated[int, typer.Option(min=2, help="Maximum number of models in a pool.")] = 5,
    dataset: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            "-d",
            help="What models are asked: a JSON or JSONL file, langsmith:NAME, or "
            "reasoning-gym:TASK.",
        ),
    ] = None,
    scorer: ScorerOption = None,
    writer: Annotated[
        str | None,
        typer.Option(help="A model that ranks and synthesizes, as 'provider:model'."),
    ] = None,
    samples: Annotated[
        bool,
        typer.Option(
            "--samples/--no-samples",
            help="Ask the best model several times, for its self-consistency at equal tokens.",
        ),
    ] = True,
    served: Annotated[
        list[str] | None,
        typer.Option(
            "--served", help="Who serves a recorded model: NAME=provider:model; repeatable."
        ),
    ] = None,
    provider: Annotated[
        str, typer.Option(help="Who serves the other recorded models.")
    ] = "together",
    question_field: QuestionFieldOption = None,
    reference_field: ReferenceFieldOption = None,
    size: SizeOption = None,
    seed: SeedOption = 42,
    out: OutOption = None,
    at_once: AtOnceOption = 8,
    prices: PricesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which models to mix, how, and what that gains; or not to mix.

    From recorded answers, no model is called. Models to ask need --dataset. Writes pool.toml,
    which `moa ask --config` runs, a report and a plot.
    """
    with evaluating():
        names = [name.strip() for name in models.split(",")] if models else None
        serving = _served(served)
        recorded = [source for source in sources if Path(source).exists()]
        if recorded and len(recorded) < len(sources):
            other = next(source for source in sources if source not in recorded)
            raise EvalError(
                f"Give recorded answers or models, not both: there is no file {other!r}."
            )
        if recorded and (dataset or writer):
            raise EvalError("--dataset and --writer are for models to ask, not for records.")
        if recorded and scorer:
            raise EvalError("--scorer is for models to ask; records have their own verdicts.")
        if not recorded and names:
            raise EvalError("--models is for records; leave out the models that are not asked.")
        folder = folder_for(out or OUT / "pool")
        if recorded:
            found = [
                {**one, "parse": "number" if records.numbers else "text", "asks": True}
                for records, one in _of_records(recorded, names, largest, size)
            ]
        else:
            found = [
                _asked(
                    sources,
                    dataset,
                    folder,
                    {"question": question_field, "reference": reference_field, "scorer": scorer},
                    largest=largest,
                    writer=writer,
                    samples=samples,
                    size=size,
                    seed=seed,
                    prices=prices,
                    at_once=at_once,
                )
            ]
        texts = [
            _write(one, folder, serving, provider, writer, several=len(found) > 1)
            for one in _distinct(found)
        ]
        print_found({"sets": found}, lambda: "\n\n".join(texts), as_json=as_json)


def _distinct(found: list[Any]) -> list[Any]:
    """Return the studies with unique names of sets, which are names of files."""
    seen: dict[str, int] = {}
    for one in found:
        number = seen[one["set"]] = seen.get(one["set"], 0) + 1
        one["set"] += f"-{number}" if number > 1 else ""
    return found


def _served(given: Sequence[str] | None) -> dict[str, str]:
    pairs = [one.partition("=") for one in given or ()]
    for name, sign, model in pairs:
        if not (name and sign and ":" in model):
            raise EvalError(f"--served must be NAME=provider:model, not {name + sign + model!r}.")
    return {name: model for name, _, model in pairs}


def _of_records(
    sources: Sequence[str], names: Sequence[str] | None, largest: int, limit: int | None
) -> list[tuple[Any, Any]]:
    from moa_graph.evals.pools.answers import answers_of  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.pools.study import study  # noqa: PLC0415
    from moa_graph.evals.records import read_records  # noqa: PLC0415

    return [
        (records, study(answers_of(records, names, limit=limit), largest=largest))
        for records in read_records([Path(source) for source in sources])
    ]


def _asked(
    specs: Sequence[str],
    dataset: str | None,
    folder: Path,
    fields: dict[str, Any],
    *,
    largest: int,
    writer: str | None,
    samples: bool,
    size: int | None,
    seed: int,
    prices: Path | None,
    at_once: int,
) -> Any:
    from moa_graph.evals.datasets import load_dataset  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.pools import asking  # noqa: PLC0415
    from moa_graph.evals.pools.answers import answers_of  # noqa: PLC0415
    from moa_graph.evals.pools.study import study  # noqa: PLC0415

    if dataset is None:
        raise EvalError(
            f"There is no file {specs[0]!r}. Give recorded answers, or models to ask as "
            "'provider:model' with --dataset."
        )
    targets = asking.models_of(specs, load_prices(prices))
    writing = asking.models_of([writer], load_prices(prices))[0] if writer else None
    asked = load_dataset(dataset, size=size, seed=seed, **fields)
    recorded = asking.ask_models(targets, asked, folder, scorer=fields["scorer"], at_once=at_once)
    if left := len(asked.items) - len(recorded.questions):
        say(f"{left} of {len(asked.items)} questions are left out until all models answer them.")
    answers = answers_of(recorded)
    if writing:
        answers = asking.ask_strategies(
            answers, recorded, asked, writing, folder, largest=largest, at_once=at_once
        )
    if samples:
        by_name = {target.name: target for target in targets}
        answers = asking.ask_samples(
            answers, recorded, asked, by_name, folder, largest=largest, at_once=at_once
        )
    parse = "number" if fields["scorer"] == "number" else "text"
    return {**study(answers, largest=largest), "parse": parse, "asks": False}


def _write(
    found: Any,
    folder: Path,
    served: dict[str, str],
    provider: str,
    writer: str | None,
    *,
    several: bool,
) -> str:
    """Write the files of a study, and return its report."""
    from moa_graph.evals import plots  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.files import file_name, replace, write_json  # noqa: PLC0415
    from moa_graph.evals.pools.configure import configuration  # noqa: PLC0415
    from moa_graph.evals.pools.report import figure, report  # noqa: PLC0415

    parse, asks = found.pop("parse"), found.pop("asks")
    unknown = [name for name in served if name not in {row["model"] for row in found["models"]}]
    if unknown:
        raise EvalError(f"--served names {unknown[0]!r}, which is not a model of {found['set']}.")
    stem = f"pool-{file_name(found['set'])}" if several else "pool"
    path = folder / f"{stem}.toml"
    made = configuration(
        found["recommendation"],
        served=served,
        provider=provider,
        parse=parse,
        writer=writer,
        asks=asks,
    )
    made.save(path)
    text = report(found)
    write_json(folder / f"{stem}.json", found)
    replace(folder / f"{stem}.md", f"{text}\n\n![]({stem}.png)\n")
    plots.save(figure(found), folder / f"{stem}.png")
    say(f"{folder}: {stem}.toml (moa ask --config {path}), {stem}.md, {stem}.json, {stem}.png")
    return text
