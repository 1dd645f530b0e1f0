"""The folder of answers: one JSON line for each answered row, in files that only grow."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from moa_graph.batch.rows import plain

_PARTS = "part-*.jsonl"


class Answers(Sequence[dict[str, Any]]):
    """The answered rows of a folder, read from its files when they are used.

    Rows are in the order of the prompts; rows of other prompts in the folder follow. The methods
    `take`, `take_all`, `iter_rows` and `count` are those of a Ray dataset.
    """

    def __init__(self, folder: Path, order: Sequence[str]) -> None:
        """Find the rows.

        Args:
            folder: The folder.
            order: Keys of the prompts, in order.
        """
        self._folder = folder
        self._parts = sorted(folder.glob(_PARTS))
        found: dict[str, tuple[int, int]] = {}
        for number, part in enumerate(self._parts):
            found.update({key: (number, start) for key, _, start in _lines_of(part)})
        known = [key for key in order if key in found]
        others = found.keys() - set(known)
        self._places = [found[key] for key in known] + sorted(found[key] for key in others)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: Any) -> Any:
        chosen = self._places[index]
        if isinstance(chosen, list):
            return list(self._read(chosen))
        return next(self._read([chosen]))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._read(self._places)

    def __repr__(self) -> str:
        return f"Answers({len(self)} rows in {str(self._folder)!r})"

    def count(self, *value: Any) -> int:
        """Return the number of rows, or how many are equal to a value."""
        return super().count(*value) if value else len(self)

    def iter_rows(self) -> Iterator[dict[str, Any]]:
        """Return the rows one by one."""
        return iter(self)

    def take(self, limit: int = 20) -> list[dict[str, Any]]:
        """Return the first rows, at most `limit`."""
        return list(islice(self, limit))

    def take_all(self) -> list[dict[str, Any]]:
        """Return all rows."""
        return list(self)

    def _read(self, places: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
        with ExitStack() as stack:
            files: dict[int, BinaryIO] = {}
            for part, start in places:
                if part not in files:
                    files[part] = stack.enter_context(self._parts[part].open("rb"))
                files[part].seek(start)
                yield json.loads(files[part].readline())["row"]


class Part:
    """One of the folder's files, to which one process appends."""

    def __init__(self, folder: Path) -> None:
        self._file = (folder / f"part-{uuid.uuid4().hex}.jsonl").open("ab", buffering=0)

    def add(self, key: str, row: dict[str, Any]) -> None:
        """Append an answered row. If the process is killed, the last line may lack its end.

        Raises:
            OSError: If it cannot be written, such as on a full disk.
        """
        line = json.dumps({"key": key, "row": row}, default=plain).encode() + b"\n"
        while line:
            line = line[self._file.write(line) :]

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def answered_in(folder: Path) -> set[str]:
    """Return the keys of the rows that have a line in the folder."""
    return {key for part in folder.glob(_PARTS) for key, _, _ in _lines_of(part)}


def mend(folder: Path, *, retry_failed: bool = False) -> None:
    """Remove what is asked again: incomplete lines, which a killed process leaves, and failed rows.

    Args:
        folder: The folder; created if necessary.
        retry_failed: Whether rows with an error are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for part in folder.glob(_PARTS):
        if any(not key or (failed and retry_failed) for key, failed, _ in _all_lines_of(part)):
            _rewrite(part, retry_failed)


def _rewrite(part: Path, retry_failed: bool) -> None:
    mended = part.with_suffix(".mended")
    with part.open("rb") as old, mended.open("wb") as new:
        for line in old:
            key, failed = _read_line(line)
            if key and not (failed and retry_failed):
                new.write(line)
    mended.replace(part)


def _lines_of(part: Path) -> Iterator[tuple[str, bool, int]]:
    return ((key, failed, start) for key, failed, start in _all_lines_of(part) if key)


def _all_lines_of(part: Path) -> Iterator[tuple[str, bool, int]]:
    """Return key, failure and start of each line; an incomplete line has an empty key."""
    start = 0
    with part.open("rb") as lines:
        for line in lines:
            yield *_read_line(line), start
            start += len(line)


def _read_line(line: bytes) -> tuple[str, bool]:
    try:
        said = json.loads(line) if line.endswith(b"\n") else {}
        return said["key"], bool(said["row"]["error"])
    except (ValueError, KeyError, TypeError):
        return "", False
