"""Answer many prompts, in this process or in the actors of Ray Data.

    answers = answer_prompts("prompts.jsonl", "together", "answers")

Each answer is saved when it arrives, so a killed job can continue where it stopped. Several
processes need `moa-graph[batch]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from moa_graph.batch import actors as ray_actors
from moa_graph.batch.answers import Answers, answered_in, mend
from moa_graph.batch.asking import answer_here
from moa_graph.batch.rows import Keys, Row, is_remote, rows_of
from moa_graph.building.compiled import MoAGraph
from moa_graph.context import MoAContext
from moa_graph.presets import load_preset
from moa_graph.presets.configuration import Configuration
from moa_graph.strategies.checks import check_whole

if TYPE_CHECKING:
    from ray.data import Dataset

__all__ = ["Answers", "MixtureLike", "answer_prompts"]

MixtureLike: TypeAlias = str | Path | Configuration | Callable[[], MoAGraph]
"""A preset's name, a configuration file, a configuration, or a function that builds the graph."""

RAY_FROM = 3000
"""Number of prompts from which two actors are faster than one process, Ray's start included.

Measured on two CPUs, with calls of 0.1 s (`tests/benchmarks/batch.py`): Ray needs about 25 s to
start, and two actors save about 10 ms of each prompt.
"""

_ACTORS = 2


def answer_prompts(
    prompts: Dataset | str | Path | Sequence[Row],
    mixture: MixtureLike,
    folder: str | Path,
    *,
    column: str = "prompt",
    processes: int | None = None,
    actors: int | None = None,
    at_once: int = 32,
    context: MoAContext | None = None,
    retry_failed: bool = False,
    **ray_options: Any,
) -> Dataset | Answers:
    """Answer every prompt with a Mixture-of-Agents.

    Each answer is written to a file in the folder before it counts as done. A call with the same
    folder only runs the prompts without an answer there. After a process is killed, only the
    prompts that were in flight are run again. A job may continue with another number of processes.

    Inside a running event loop, the call blocks the loop; `asyncio.to_thread` runs it beside it.

    Args:
        prompts: JSON Lines (a file, a folder or a pattern), a list of rows, or a Ray dataset.
        mixture: The mixture. It is built once in each process.
        folder: Folder for the answers. All processes must have access to it (on a cluster, use a
            shared file system).
        column: Column with the prompt: a string, or a conversation as a list of messages.
        processes: Number of processes. 1 is this process, without Ray; more are Ray actors. With
            None, it is this process unless Ray is faster: two actors if Ray is installed and at
            least 3,000 prompts have no answer. They are also used if `prompts` is a Ray dataset or
            at a remote address, or options of Ray are given.
        actors: Number of Ray actors, at least 1; to be given instead of `processes`.
        at_once: Maximum number of prompts in flight in each process.
        context: Settings of every run.
        retry_failed: Whether to run prompts again that failed in an earlier call. Their failed rows
            are removed from the folder.
        **ray_options: Options of `ray.data.Dataset.map_batches` for the actors, such as
            `num_cpus` (by default 0.5, because actors mostly wait).

    Returns:
        All answers in the folder: `Answers` of this process, in the order of the prompts; or of
        actors a Ray dataset, in no order. Each row has the columns of its prompt, and
        `answer` (a string, or None if the run failed), `error` (a string, or None if it did not
        fail), `proposals` (every `Proposal`) and `usage` (tokens of all calls). Duplicate rows
        are each answered.

    Raises:
        ImportError: If Ray is needed and not installed.
        FileNotFoundError: If there is no such file of prompts.
        TypeError: If a number is not an integer, or a row is not a mapping.
        ValueError: If the mixture or a number is not valid, arguments contradict each other, or a
            row does not have the column.
        OSError: If an answer cannot be written.
    """
    check_whole("at_once", at_once)
    number = _actors_asked_for(prompts, processes, actors, ray_options)
    if isinstance(mixture, str | Path):
        mixture = load_preset(mixture)  # load it here: actors may not have the file
    elif isinstance(mixture, Configuration):
        mixture.create()  # raises configuration errors before the job starts
    if not (isinstance(prompts, str | Path | Sequence) or _is_dataset(prompts)):
        prompts = list(prompts)  # they are read twice
    folder = Path(folder).absolute()
    mend(folder, retry_failed=retry_failed)
    if not number:
        answered = answered_in(folder)
        order = [key for key, _ in Keys(column).of(rows_of(prompts))]
        new = sum(key not in answered for key in order)
        if number == 0 or new < RAY_FROM or not ray_actors.is_installed():
            if new:
                rows = Keys(column).of(rows_of(prompts))
                unanswered = ((key, row) for key, row in rows if key not in answered)
                answer_here(mixture, folder, column, unanswered, at_once=at_once, context=context)
            return Answers(folder, order)
    return ray_actors.answer_in_actors(
        prompts,
        mixture,
        folder,
        column,
        actors=number or _ACTORS,
        at_once=at_once,
        context=context,
        options=ray_options,
    )


def _actors_asked_for(
    prompts: object, processes: int | None, actors: int | None, options: Mapping[str, Any]
) -> int | None:
    """Return the number of actors: 0 for this process, None for whichever is faster."""
    if processes is not None and actors is not None:
        raise ValueError(f"Give processes={processes} or actors={actors}, not both.")
    for name, value in (("processes", processes), ("actors", actors)):
        if value is not None:
            check_whole(name, value)
    if actors is not None:
        return actors
    needs = [f"{name}=…" for name in options] + ([str(prompts)] if is_remote(prompts) else [])
    if processes == 1:
        if needs:
            raise ValueError(
                f"{needs[0]} needs Ray, which processes=1 does not use: leave out one of them."
            )
        return 0
    return processes or (_ACTORS if needs or _is_dataset(prompts) else None)


def _is_dataset(prompts: object) -> bool:
    return hasattr(prompts, "map_batches")
