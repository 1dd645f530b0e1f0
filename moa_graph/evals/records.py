"""Read recorded answers in any known form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moa_graph.evals.files import EvalError
from moa_graph.evals.inspect_logs import is_log, read_logs
from moa_graph.evals.verifiable import RecordedSet, read_set


def read_records(paths: Sequence[Path]) -> list[RecordedSet]:
    """Read recorded answers to questions with one right answer.

    Args:
        paths: Folders for `read_set`; logs of Inspect, or folders with such logs. Logs of one task
            make one set, with a model for each log.

    Raises:
        EvalError: If a path has neither form, or a file is damaged.
    """
    found, logs = [], []
    for path in paths:
        if not path.exists():
            raise EvalError(f"There is no file or folder {path}.")
        if path.is_dir() and any(path.glob("*.eval")):
            logs += sorted(path.glob("*.eval"))
        elif path.is_dir():
            found.append(read_set(path))
        elif is_log(path):
            logs.append(path)
        else:
            raise EvalError(
                f"{path} is a file, but must be a folder of recorded answers, or a log of Inspect."
            )
    return [*found, *read_logs(logs)]
