"""Hashes of large files, computed once for each state of a file and kept between processes."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

_KEPT = 64  # hashes in a record; the oldest are dropped


def sha256_of(path: Path, record: Path) -> str:
    """Return the sha256 of a file; hash it only if it changed since the last call.

    The state of a file is its size, inode, and the times of its last change. A record that cannot
    be read or written is ignored, and the file is hashed.

    Args:
        path: The file.
        record: JSON file in which hashes are kept; created if necessary.

    Returns:
        The hash as hexadecimal digits.

    Raises:
        OSError: If the file cannot be read.
    """
    key, state = str(path.absolute()), _state(path)
    known = _read(record)
    entry = known.get(key)
    kept = entry.get("sha256") if isinstance(entry, dict) and entry.get("state") == state else None
    if isinstance(kept, str):
        return kept
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if _state(path) == state:  # it did not change while it was read
        known.pop(key, None)
        known[key] = {"state": state, "sha256": digest}
        _write(record, dict(list(known.items())[-_KEPT:]))
    return digest


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns]


def _read(record: Path) -> dict[str, Any]:
    try:
        known = json.loads(record.read_bytes())
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def _write(record: Path, known: dict[str, Any]) -> None:
    # Another process may read or write the record at the same time: replace it as a whole.
    with suppress(OSError):
        with NamedTemporaryFile(
            "w", dir=record.parent, prefix=record.name, suffix=".tmp", delete=False
        ) as file:
            json.dump(known, file)
        try:
            os.replace(file.name, record)  # noqa: PTH105 - the name is a string
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
