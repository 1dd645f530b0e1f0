"""Answer many prompts on many machines with Ray Data actors. Needs `moa-graph[batch]`.

    answers = answer_prompts("prompts.jsonl", "together", "answers")

Each answer is saved when it arrives, so a killed job can continue where it stopped.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from moa_graph.building.compiled import MoAGraph
from moa_graph.context import MoAContext
from moa_graph.errors import explain
from moa_graph.presets import load_preset
from moa_graph.presets.configuration import Configuration
from moa_graph.state import total_usage

if TYPE_CHECKING:
    from ray.data import Dataset

MixtureLike: TypeAlias = str | Path | Configuration | Callable[[], MoAGraph]
"""A preset's name, a configuration file, a configuration, or a function that builds the graph."""

_ROWS_AT_ONCE = 1024  # rows per batch when keys are assigned
_BATCHES_OF_A_BLOCK = 4  # the number of batches that Ray Data gives an actor at once
_PARTS = "part-*.jsonl"


def answer_prompts(
    prompts: Dataset | str | Path,
    mixture: MixtureLike,
    folder: str | Path,
    *,
    column: str = "prompt",
    actors: int = 2,
    at_once: int = 32,
    context: MoAContext | None = None,
    retry_failed: bool = False,
    **ray_options: Any,
) -> Dataset:
    """Answer every prompt of a dataset with a Mixture-of-Agents.

    Each answer is written to a file in the folder before it counts as done. A call with the same
    folder only runs the prompts without an answer there. After a process is killed, only the
    prompts that were in flight are run again.

    Args:
        prompts: A Ray dataset, or JSON Lines (a file, a folder or a pattern).
        mixture: The mixture. It is built once in each actor.
        folder: Folder for the answers. All actors must have access to it (on a cluster, use a
            shared file system).
        column: Column with the prompt: a string, or a conversation as a list of messages.
        actors: Number of actors. Each is a process with its own event loop.
        at_once: Maximum number of prompts in flight in each actor.
        context: Settings of every run.
        retry_failed: Whether to run prompts again that failed in an earlier call.
        **ray_options: Options of `ray.data.Dataset.map_batches` for the actors, such as
            `num_cpus` (by default 0.5, because actors mostly wait).

    Returns:
        The dataset of all answers in the folder. Each row has the columns of its prompt, and
        `answer` (a string, or None if the run failed), `error` (a string, or None if it did not
        fail), `proposals` (every `Proposal`) and `usage` (tokens of all calls). Duplicate rows
        are each answered. The order of the rows is not kept.

    Raises:
        ImportError: If Ray is not installed.
        ValueError: If the mixture is not valid, or a row does not have the column.
    """
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise ImportError("moa_graph.batch needs Ray: pip install 'moa-graph[batch]'") from error
    if isinstance(mixture, str | Path):
        mixture = load_preset(mixture)  # load it here: actors may not have the file
    elif isinstance(mixture, Configuration):
        mixture.create()  # raises configuration errors before the job starts
    if isinstance(prompts, str | Path):
        prompts = ray.data.read_text(str(prompts)).map(lambda line: json.loads(line["text"]))
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(_PARTS):
        _drop_torn_line(part)
    asked = prompts.map_batches(
        _Unanswered,
        fn_constructor_args=(folder, column, retry_failed),
        batch_size=_ROWS_AT_ONCE,
        batch_format="pandas",
        compute=ray.data.ActorPoolStrategy(size=1),  # one actor, because it counts duplicates
        num_cpus=0,
    )
    # Small blocks, so that every actor gets some rows.
    blocks = asked.repartition(target_num_rows_per_block=_BATCHES_OF_A_BLOCK * at_once)
    answered = blocks.map_batches(
        _Answering,
        fn_constructor_args=(mixture, folder, column, at_once, context),
        batch_size=at_once,
        compute=ray.data.ActorPoolStrategy(size=actors),
        **{"num_cpus": 0.5, **ray_options},
    )
    answered.count()  # runs the whole pipeline
    return ray.data.read_text(str(folder), file_extensions=["jsonl"]).map(
        lambda line: json.loads(line["text"])["row"]
    )


class _Unanswered:
    """Filter of rows without an answer; returns each row as JSON with a key."""

    def __init__(self, folder: Path, column: str, retry_failed: bool) -> None:
        self._column = column
        self._seen: Counter[str] = Counter()
        self._answered: set[str] = set()
        for part in folder.glob(_PARTS):
            self._answered |= set(_answered(part, retry_failed=retry_failed))

    def __call__(self, batch: Any) -> dict[str, list[str]]:
        rows: dict[str, str] = {}
        for row in batch.to_dict("records"):
            if self._column not in row:
                known = ", ".join(map(str, row))
                raise ValueError(f"A row has no column {self._column!r}; it has: {known}.")
            text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=_plain)
            digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
            key = f"{digest}-{self._seen[digest]}"
            self._seen[digest] += 1
            if key not in self._answered:
                rows[key] = text
        return {"key": list(rows), "row": list(rows.values())}


class _Answering:
    """An actor that builds the graph and runs many prompts concurrently."""

    def __init__(
        self,
        mixture: Configuration | Callable[[], MoAGraph],
        folder: Path,
        column: str,
        at_once: int,
        context: MoAContext | None,
    ) -> None:
        self._graph = mixture.create() if isinstance(mixture, Configuration) else mixture()
        self._column = column
        self._context = context
        self._at_once = asyncio.Semaphore(at_once)
        # One file per actor, so that lines are not mixed.
        self._file = (folder / f"part-{uuid.uuid4().hex}.jsonl").open("ab", buffering=0)

    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, list[str]]]:
        keys = list(batch["key"])
        await asyncio.gather(*map(self._answer, keys, batch["row"]))
        yield {"key": keys}

    async def _answer(self, key: str, row: str) -> None:
        columns = json.loads(row)
        async with self._at_once:
            answer = await self._ask(columns[self._column])
        line = json.dumps({"key": key, "row": {**columns, **answer}}, default=_plain)
        self._file.write(
            line.encode() + b"\n"
        )  # one write, so that a line is complete or missing its end

    async def _ask(self, prompt: Any) -> dict[str, Any]:
        try:
            state = await self._graph.ainvoke({"messages": prompt}, context=self._context)
        except Exception as error:  # noqa: BLE001 - one failed prompt must not stop the others
            proposals = getattr(error, "proposals", [])
            return _answer_of(None, explain(error), proposals)
        message = state["messages"][-1]
        return _answer_of(message.text, None, state["proposals"], message.usage_metadata)


def _answer_of(
    text: str | None, error: str | None, proposals: list[Any], *more_usage: Any
) -> dict[str, Any]:
    usage = total_usage([*(proposal["usage"] for proposal in proposals), *more_usage])
    return {"answer": text, "error": error, "proposals": proposals, "usage": usage}


def _answered(part: Path, *, retry_failed: bool) -> Iterator[str]:
    with part.open() as lines:
        for line in lines:
            said = json.loads(line)
            if not (retry_failed and said["row"]["error"]):
                yield said["key"]


def _drop_torn_line(part: Path) -> None:
    """Remove an incomplete last line, which a killed process leaves."""
    with part.open("rb+") as file:
        data = file.read()
        file.truncate(data.rfind(b"\n") + 1)


def _plain(value: Any) -> Any:
    """Convert a value of Arrow or NumPy to a JSON value."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)
