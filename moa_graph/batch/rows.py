"""Read prompts from files or lists, and give each row a key that does not depend on its place."""

from __future__ import annotations

import glob
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

Row: TypeAlias = Mapping[str, Any]


def is_remote(prompts: object) -> bool:
    """Return whether prompts are at an address such as `s3://…`, which only Ray reads."""
    return isinstance(prompts, str) and "://" in prompts


def rows_of(prompts: str | Path | Sequence[Row] | Any) -> Iterator[Row]:
    """Return the rows one by one, in order; a file is read while they are used.

    Args:
        prompts: JSON Lines (a file, a folder or a pattern), a list of rows, or a Ray dataset.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a line is not a JSON object.
    """
    if isinstance(prompts, str | Path):
        for file in _files(str(prompts)):
            yield from _rows_in(file)
    elif hasattr(prompts, "iter_rows"):
        yield from prompts.iter_rows()
    else:
        yield from prompts


def as_row(line: str, where: str) -> Row:
    """Return the row of a line of JSON Lines.

    Args:
        line: The line.
        where: Place of the line, which begins the error.

    Raises:
        ValueError: If the line is not a JSON object.
    """
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is not JSON: {error}.") from None
    if not isinstance(row, dict):
        raise ValueError(
            f'{where} must be a JSON object such as {{"prompt": "…"}}, not {line[:80].strip()}.'
        )
    return row


class Keys:
    """Gives rows their keys: the hash of the row, and a number for equal rows."""

    def __init__(self, column: str) -> None:
        self._column = column
        self._seen: Counter[str] = Counter()

    def of(self, rows: Iterable[Row]) -> Iterator[tuple[str, str]]:
        """Return the key and the JSON of each row.

        Raises:
            TypeError: If a row is not a mapping.
            ValueError: If a row does not have the column.
        """
        for row in rows:
            if not isinstance(row, Mapping):
                raise TypeError(
                    f"A row must be a mapping such as {{{self._column!r}: '…'}}, not {row!r:.80}."
                )
            if self._column not in row:
                known = ", ".join(map(str, row))
                raise ValueError(f"A row has no column {self._column!r}; it has: {known}.")
            text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=plain)
            digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
            yield f"{digest}-{self._seen[digest]}", text
            self._seen[digest] += 1


def plain(value: Any) -> Any:
    """Convert a value of Arrow or NumPy to a JSON value."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return str(value)


def _files(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.is_file() and p.name[0] not in "._")
    elif path.is_file():
        found = [path]
    else:
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True))  # noqa: PTH207 - absolute, too
        found = [file for file in found if file.is_file()]
    if not found:
        raise FileNotFoundError(f"There is no file {place} with prompts.")
    return found


def _rows_in(file: Path) -> Iterator[Row]:
    with file.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield as_row(line, f"Line {number} of {file}")
