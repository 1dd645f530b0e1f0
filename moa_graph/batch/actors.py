"""Answer rows in the actors of Ray Data. Needs `moa-graph[batch]`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moa_graph.batch.answers import Part, answered_in
from moa_graph.batch.asking import Asking, Built
from moa_graph.batch.rows import Keys, as_row
from moa_graph.context import MoAContext

if TYPE_CHECKING:
    from ray.data import Dataset

_ROWS_AT_ONCE = 1024  # rows per batch when keys are assigned
_BATCHES_OF_A_BLOCK = 4  # the number of batches that Ray Data gives an actor at once
_LINE = "text"  # the column of Ray's `read_text`


def is_installed() -> bool:
    """Return whether Ray is installed."""
    return find_spec("ray") is not None


def answer_in_actors(
    prompts: Any,
    mixture: Built,
    folder: Path,
    column: str,
    *,
    actors: int,
    at_once: int,
    context: MoAContext | None,
    options: Mapping[str, Any],
) -> Dataset:
    """Answer the rows that have no answer in the folder; return the dataset of all answers.

    Raises:
        ImportError: If Ray is not installed.
    """
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            "Several processes need Ray: pip install 'moa-graph[batch]'. Without it, "
            "answer_prompts(processes=1) answers in this process."
        ) from error
    lines = isinstance(prompts, str | Path)
    if lines:
        prompts = ray.data.read_text(str(prompts))
    elif not isinstance(prompts, ray.data.Dataset):
        # As lines, because a column of a dataset has one type.
        prompts = ray.data.from_items([{_LINE: text} for _, text in Keys(column).of(prompts)])
        lines = True
    asked = prompts.map_batches(
        Unanswered,
        fn_constructor_args=(folder, column, lines),
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
        **{"num_cpus": 0.5, **options},
    )
    answered.count()  # runs the whole pipeline
    return ray.data.read_text(str(folder), file_extensions=["jsonl"]).map(
        lambda line: json.loads(line["text"])["row"]
    )


class Unanswered:
    """Filter of rows without an answer; returns each row as JSON with a key."""

    def __init__(self, folder: Path, column: str, lines: bool) -> None:
        self._lines = lines
        self._keys = Keys(column)
        self._answered = answered_in(folder)

    def __call__(self, batch: Any) -> dict[str, list[str]]:
        """Return the rows of a batch of Ray Data that have no answer."""
        if self._lines:
            rows = [as_row(line, "A line of the prompts") for line in batch[_LINE] if line.strip()]
        else:
            rows = batch.to_dict("records")
        new = {key: text for key, text in self._keys.of(rows) if key not in self._answered}
        return {"key": list(new), "row": list(new.values())}


class _Answering:
    """An actor that builds the graph and runs many prompts concurrently."""

    def __init__(
        self,
        mixture: Built,
        folder: Path,
        column: str,
        at_once: int,
        context: MoAContext | None,
    ) -> None:
        # One file per actor, so that lines are not mixed.
        self._asking = Asking(mixture, Part(folder), column, context)
        self._at_once = asyncio.Semaphore(at_once)

    async def __call__(self, batch: dict[str, Any]) -> AsyncIterator[dict[str, list[str]]]:
        keys = list(batch["key"])
        await asyncio.gather(*map(self._answer, keys, batch["row"]))
        yield {"key": keys}

    async def _answer(self, key: str, row: str) -> None:
        async with self._at_once:
            await self._asking.answer(key, row)
