"""Options of the `moa eval` commands, with their validation and loading."""

from __future__ import annotations

import json
import math
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from moa_graph.cli.terminal import FAILED, WRONG_CALL, print_json, say
from moa_graph.errors import MoAError
from moa_graph.evals.files import EvalError, EvalFailed, read_text

OUT = Path("moa-eval")

TargetArgument = Annotated[
    str | None,
    typer.Argument(help="A preset, a configuration file, or one model as 'provider:model'."),
]
PresetOption = Annotated[
    str | None, typer.Option("--preset", "-p", help="The target, as an option.", show_default=False)
]
ReferencesOption = Annotated[
    list[Path] | None,
    typer.Option("--references", help="Recorded answers in place of the proposers; repeatable."),
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The folder of results; the same one goes on from there."),
]
AtOnceOption = Annotated[int, typer.Option(min=1, help="Maximum number of concurrent requests.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Use only the first N items.")]
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
SeedOption = Annotated[int, typer.Option(help="Seed of generated tasks.")]


@contextmanager
def evaluating() -> Iterator[None]:
    """Print an error as one line and exit with its exit code."""
    try:
        yield
    except ImportError as error:
        say(f"This needs more packages ({error.name}): pip install 'moa-graph[evals]'")
        raise typer.Exit(WRONG_CALL) from None
    except EvalFailed as error:
        say(str(error))
        raise typer.Exit(FAILED) from None
    except MoAError as error:
        say(str(error))
        raise typer.Exit(WRONG_CALL) from None
    except (OSError, sqlite3.Error) as error:
        say(f"The results cannot be read or written: {error}.")
        raise typer.Exit(WRONG_CALL) from None


def one_of(target: str | None, preset: str | None) -> str | None:
    """Return the target to evaluate, given as an argument or as `--preset`.

    Raises:
        EvalError: If both are given and differ.
    """
    if target and preset and target != preset:
        raise EvalError(f"Give {target!r} or --preset {preset!r}, not both.")
    return target or preset


def folder_for(out: Path) -> Path:
    """Create the folder for results and check that it is writable, before any paid call.

    Raises:
        OSError: If the folder is not writable.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=out):
        return out


def load_for(
    benchmark: str, spec: str | None, recorded: Sequence[Any], out: Path | None, prices: Path | None
) -> tuple[Any, Path]:
    """Return the target of a benchmark and the folder for its results.

    Raises:
        EvalError: If no target is given.
    """
    from moa_graph.evals.files import file_name  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.targets import load_target  # noqa: PLC0415

    if spec is None:
        raise EvalError(
            "Say what to evaluate: a preset (see `moa presets`), a configuration file, or one "
            "model as 'provider:model'."
        )

    def folder(name: str) -> Path:
        return out or OUT / benchmark / file_name(name)

    it = load_target(
        spec,
        prices=load_prices(prices),
        recorded=recorded,
        cache=lambda name: proposal_cache(folder(name), "proposals"),
    )
    return it, folder(it.name)


def load_all(
    benchmark: str,
    spec: str | None,
    recorded: Sequence[Any],
    out: Path | None,
    prices: Path | None,
    *,
    alone: bool,
) -> list[tuple[Any, Path]]:
    """Return the checked target of a benchmark, and with `alone` its aggregator, with folders."""
    from moa_graph.evals.targets import aggregator_alone  # noqa: PLC0415 - needs [evals]

    it, folder = load_for(benchmark, spec, recorded, out, prices)
    found = [(it, folder)]
    if alone:
        assert spec is not None
        found.append((aggregator_alone(spec, load_prices(prices)), folder / "alone"))
    for it, _ in found:
        it.check()
    return found


def proposal_cache(folder: Path, name: str) -> Any:
    """Return a cache for proposals, so that an interrupted evaluation can use them again."""
    from langgraph.cache.sqlite import SqliteCache  # noqa: PLC0415 - needs [evals]

    from moa_graph.evals.files import file_name  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    return SqliteCache(path=str(folder / f"{file_name(name)}.sqlite"))


def load_judge(judge: str | None, prices: Path | None) -> Any:
    """Return the judge after checking it.

    Raises:
        EvalError: If no judge is given, or it cannot be used.
    """
    from moa_graph.evals import pairwise  # noqa: PLC0415 - needs [evals]
    from moa_graph.evals.targets import load_target  # noqa: PLC0415

    if judge is None:
        raise EvalError("A judge is needed: --judge provider:model, such as openai:gpt-4-turbo.")
    found = load_target(judge, prices=load_prices(prices))
    pairwise.check(found)
    return found


def load_prices(path: Path | None) -> dict[str, Any]:
    """Load prices from a file: dollars per million input and output tokens, by model.

    Raises:
        EvalError: If the file has another format.
    """
    if path is None:
        return {}
    form = 'it must be like {"model": [0.5, 1.5]}, in dollars per million tokens in and out.'
    try:
        read = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise EvalError(f"{path} holds no prices ({error}); {form}") from None
    if not isinstance(read, dict):
        raise EvalError(f"{path} holds no prices; {form}")
    for name, of in read.items():
        if not (isinstance(of, list) and len(of) == 2 and all(map(_is_price, of))):  # noqa: PLR2004
            raise EvalError(f"{path}: the price of {name!r} is {of!r}; {form}")
    return {name: (float(of[0]), float(of[1])) for name, of in read.items()}


def _is_price(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value) and value >= 0  # type: ignore[arg-type, operator]


def load_recorded(paths: Sequence[Path] | None, questions: Any) -> list[Any]:
    """Load recorded answers from files."""
    from moa_graph.evals.recorded import RecordedProposals  # noqa: PLC0415 - needs [evals]

    return [RecordedProposals.read(path, questions) for path in paths or ()]


def check_covered(recorded: Sequence[Any], questions: Sequence[tuple[str, ...]]) -> None:
    """Check that recorded answers cover all questions, before any paid call.

    Raises:
        EvalError: If a question has no recorded answer.
    """
    for proposals in recorded:
        if missing := proposals.missing(questions):
            raise EvalError(
                f"{proposals.name} has no recorded answer to {len(missing)} of {len(questions)} "
                f"questions, such as {missing[0][-1][:60]!r}."
            )


def print_found(found: Any, report: Callable[[], str], *, as_json: bool) -> None:
    """Print the result as a report or as one JSON object."""
    if as_json:
        print_json(found)
    else:
        typer.echo(report())
