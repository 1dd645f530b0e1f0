"""Files of evaluations: datasets, recorded answers, and the journal of a long run."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from moa_graph.errors import MoAError, nearest

_LONGEST_NAME = 80

Row: TypeAlias = dict[str, Any]
"""A JSON object."""


class EvalError(MoAError):
    """The evaluation cannot run; the message gives the cause and the fix."""


class EvalFailed(EvalError):
    """Models failed during the run. Finished answers are kept, and the next run continues there."""


def read_rows(path: str | Path, needs: Sequence[str] = ()) -> list[Row]:
    """Read the objects of a JSON array or JSON Lines file, with or without gzip.

    Args:
        path: The file.
        needs: Fields required in every object.

    Raises:
        EvalError: If the file is missing, empty, truncated or not JSON, or an object lacks a
            required field; the message names the line or the object.
    """
    path = Path(path)
    text = read_text(path)
    if not text.strip():
        raise EvalError(f"{path} is empty.")
    rows = _array(path, text) if text.lstrip().startswith("[") else _lines(path, text)
    for place, row in rows:
        if not isinstance(row, dict):
            raise EvalError(f"{path}, {place}: must be a JSON object, not {type(row).__name__}.")
        for field in needs:
            if field not in row:
                raise EvalError(
                    f"{path}, {place}: has no field {field!r}.{nearest(field, row)} "
                    f"It has: {', '.join(row) or 'nothing'}."
                )
    if not rows:
        raise EvalError(f"{path} has no rows.")
    return [row for _, row in rows]


def read_results(path: str | Path) -> list[Row]:
    """Read the rows of a results file, which may be a `Journal`.

    In a journal, the last row of each key counts.

    Raises:
        EvalError: As for `read_rows`.
    """
    rows = read_rows(path)
    if rows[0].keys() != {"about"}:
        return rows  # not a journal: `key` may have another meaning
    rows = [row for row in rows if row.keys() != {"about"}]
    last = {row["key"]: row for row in rows if isinstance(row.get("key"), str)}
    if not rows:
        raise EvalError(f"{path} has no results yet.")
    return [*(row for row in rows if row.get("key") not in last), *last.values()]


def is_text(value: object) -> bool:
    """Return whether the value is a string that is not blank."""
    return isinstance(value, str) and bool(value.strip())


def name_of(path: Path) -> str:
    """Return the default name of a results file: the file name without its extensions."""
    return re.sub(r"(\.jsonl?)?(\.gz)?$", "", path.name)


def file_name(name: str) -> str:
    """Convert the name of a target to a file name."""
    plain = re.sub(r"[^\w.@-]+", "_", name)
    return plain if len(plain) <= _LONGEST_NAME else f"{plain[:_LONGEST_NAME]}-{digest(name)}"


def read_text(path: Path) -> str:
    """Read the text of a file, with or without gzip.

    Raises:
        EvalError: If the file is missing, truncated, or not UTF-8.
    """
    if path.is_dir():
        raise EvalError(f"{path} is a folder, but must be a file.")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise EvalError(f"There is no file {path}.") from None
    except OSError as error:
        raise EvalError(f"{path} cannot be read: {error.strerror}.") from None
    try:
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        text = data.decode("utf-8-sig")
        return text.replace("\r\n", "\n").replace("\r", "\n")
    except EOFError:
        raise EvalError(f"{path} is truncated: the compressed data ends too early.") from None
    except (OSError, ValueError, zlib.error) as error:
        raise EvalError(f"{path} cannot be read: {error}.") from None


def _array(path: Path, text: str) -> list[tuple[str, Any]]:
    try:
        rows = _parsed(text)
    except json.JSONDecodeError as error:
        cut = "Unterminated" in error.msg or error.pos >= len(text.rstrip()) - 1
        raise _broken(f"{path}, line {error.lineno}:", error, cut=cut) from None
    except (ValueError, RecursionError) as error:
        raise _broken(str(path), error) from None
    return [(f"object {i}", row) for i, row in enumerate(rows, 1)]


def _lines(path: Path, text: str) -> list[tuple[str, Any]]:
    rows = []
    lines = text.split("\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append((f"line {number}", _parsed(line)))
        except (ValueError, RecursionError) as error:
            # A complete last line would end with a newline.
            cut = number == len(lines)
            raise _broken(f"{path}, line {number}:", error, cut=cut) from None
    return rows


def _parsed(text: str) -> Any:
    return json.loads(text, parse_int=_integer)


def _integer(digits: str) -> int:
    """Return an integer that a float can hold, or else raise `ValueError`."""
    if len(digits) > sys.float_info.max_10_exp:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _broken(where: str, error: ValueError | RecursionError, *, cut: bool = False) -> EvalError:
    if isinstance(error, RecursionError):
        return EvalError(f"{where} is not JSON (too deep).")
    if not isinstance(error, json.JSONDecodeError):  # an integer with thousands of digits
        return EvalError(f"{where} cannot be read: {error}.")
    if cut:
        return EvalError(f"{where} is cut in the middle; the file is incomplete.")
    return EvalError(f"{where} is not JSON ({error.msg}, character {error.colno}).")


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically."""
    replace(path, json.dumps(data, ensure_ascii=False, indent=2) + "\n")


def replace(path: Path, text: str) -> None:
    """Write a text file atomically."""
    draft = path.with_name(path.name + ".part")
    draft.write_bytes(text.encode("utf-8", "replace"))
    draft.replace(path)


class Journal:
    """Append-only file of the results of a long run; an interrupted run continues from it.

    Each row has a `key`; the last row of a key counts. A truncated last line is removed. Only one
    process at a time can use a journal.

    Args:
        path: The JSON Lines file.
        about: The settings that the results depend on. A journal with other settings is an error.

    Raises:
        EvalError: If the journal has other settings, is used by another process, or is damaged.
    """

    def __init__(self, path: Path, about: Row) -> None:
        from filelock import FileLock, Timeout  # noqa: PLC0415 - needs [evals]

        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = FileLock(str(path) + ".lock")
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise EvalError(
                f"{path} is in use by another process. Wait until it ends, or use another "
                "folder (--out)."
            ) from None
        try:
            self._rows = self._recover(json.loads(json.dumps(about)))
            self._file = path.open("ab", buffering=0)
            if not self._size:
                self._write({"about": about})
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._lock.release()

    @property
    def rows(self) -> dict[str, Row]:
        """Last row of each key."""
        return self._rows

    @property
    def done(self) -> dict[str, Row]:
        """Rows without `error`."""
        return {key: row for key, row in self._rows.items() if not row.get("error")}

    @property
    def failed(self) -> dict[str, Row]:
        """Rows with an `error`; the next run tries them again."""
        return {key: row for key, row in self._rows.items() if row.get("error")}

    def result(self, key: str) -> Row | None:
        """Return the row of a key; None if it is missing or has an `error`."""
        row = self._rows.get(key)
        return None if row is None or row.get("error") else row

    def add(self, key: str, row: Row) -> None:
        """Append a result, and sync the file to disk."""
        row = {"key": key, **row}
        self._write(row)
        self._rows[key] = row

    def _write(self, row: Row) -> None:
        self._file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n")
        os.fsync(self._file.fileno())

    def _recover(self, about: Row) -> dict[str, Row]:
        data = self.path.read_bytes() if self.path.exists() else b""
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))
        self._size = len(whole)
        rows: dict[str, Row] = {}
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                if number > 1:
                    rows[row["key"]] = row
                    continue
                found = row["about"]
            except (ValueError, KeyError, TypeError):
                raise EvalError(
                    f"{self.path}, line {number}: is damaged. Repair or remove that line, or give "
                    "another folder (--out)."
                ) from None
            if found != about:
                raise EvalError(_differs(self.path, found, about))
        return rows


def _differs(path: Path, found: Row, about: Row) -> str:
    fields = [name for name in {**found, **about} if found.get(name) != about.get(name)]
    told = "; ".join(
        f"{name} was {short(found.get(name))}, and is {short(about.get(name))}"
        for name in fields[:3]
    )
    return (
        f"{path} has the results of other settings ({told}). Give another folder (--out), or "
        "remove that file."
    )


def short(value: Any) -> str:
    """Return a value as JSON of at most 60 characters, for an error."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"  # noqa: PLR2004 - length of a line


def digest(data: Any) -> str:
    """Return a short hash of the data."""
    text = json.dumps(data, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def by_key(rows: Iterable[Row], key: Callable[[Row], str], what: str) -> dict[str, Row]:
    """Return rows by key.

    Raises:
        EvalError: If two rows have the same key.
    """
    found: dict[str, Row] = {}
    for row in rows:
        if (name := key(row)) in found:
            raise EvalError(f"{what} has {name!r} twice.")
        found[name] = row
    return found
