"""Process items concurrently, store each result, and retry failed items in the next run."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import TextIO, TypeVar

from moa_graph.calling import sync
from moa_graph.errors import explain
from moa_graph.evals.files import EvalError, EvalFailed, Journal, Row

_Item = TypeVar("_Item")
_HOPELESS = 10  # stop after this many failures without a success


async def do_all(
    items: Mapping[str, _Item],
    do: Callable[[_Item], Awaitable[Row]],
    journal: Journal,
    *,
    title: str,
    at_once: int = 8,
    quiet: bool = False,
    progress: TextIO | None = None,
) -> None:
    """Process the items without a result, and append each result to the journal.

    A progress bar shows the rate, the time left, and the cost so far, including earlier
    interrupted runs. A failed item is recorded with its `error`, and the next run tries it again.

    Args:
        items: Items by key.
        do: Function that processes an item and returns its row; `cost` in a row is in US dollars.
            An exception is recorded as the `error` of the row.
        journal: Journal that stores the rows.
        title: Title of the progress bar.
        at_once: Maximum number of items at the same time; values below 1 count as 1.
        quiet: Whether to hide the progress bar.
        progress: Stream for the progress bar; standard error by default.

    Raises:
        EvalFailed: If the first ten items (or all, if there are fewer) fail and no item has ever
            succeeded. The remaining items are then skipped. The message has the last error.
    """
    from tqdm import tqdm  # noqa: PLC0415 - needs [evals]

    shown = progress or sys.stderr
    left = iter([(k, item) for k, item in items.items() if journal.result(k) is None])
    failures: list[str] = []
    n_done = sum(journal.result(key) is not None for key in items)
    succeeded = n_done > 0
    spent = _Spent(journal.rows[key] for key in items if key in journal.rows)
    bar = tqdm(
        total=len(items),
        initial=n_done,
        desc=title,
        file=shown,
        disable=quiet,
        mininterval=0.5 if shown.isatty() else 30,
        dynamic_ncols=True,
    )

    def told() -> str:
        failed = f", {len(failures)} failed" if failures else ""
        return f"{'at least ' if spent.unknown else ''}${spent.known:.4g}{failed}"

    async def work() -> None:
        nonlocal succeeded
        for key, item in left:
            if not succeeded and len(failures) >= _HOPELESS:
                return
            try:
                row = await do(item)
            except Exception as error:  # noqa: BLE001 - any error of a model is recorded
                said = str(error) if isinstance(error, EvalError) else explain(error)
                row = {"error": said, **getattr(error, "record", {})}
            if before := journal.rows.get(key):
                spent.count(before, -1)
            journal.add(key, row)
            spent.count(row)
            if row.get("error"):
                failures.append(str(row["error"]))
            else:
                succeeded = True
            bar.set_postfix_str(told(), refresh=False)
            bar.update()

    bar.set_postfix_str(told(), refresh=False)
    try:
        await sync.run_workers(work, max(1, at_once))
    finally:
        bar.close()
    if failures and not succeeded and len(failures) >= min(_HOPELESS, len(items)):
        raise EvalFailed(
            f"{title}: the first {len(failures)} items all failed, so no more were tried. "
            f"{failures[-1]}"
        )


class _Spent:
    """Total cost of rows in US dollars."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.known = 0.0
        self.unknown = 0
        for row in rows:
            self.count(row)

    def count(self, row: Row, sign: int = 1) -> None:
        """Add the cost of a row, or subtract it if `sign` is -1."""
        cost = row.get("cost", 0)
        if cost is None:
            self.unknown += sign
        else:
            self.known += sign * cost


def results(journal: Journal, keys: Iterable[str], what: str) -> list[Row]:
    """Return the rows of all items.

    Args:
        journal: Journal that stores the rows.
        keys: Keys of the items.
        what: Name of the items in the error message, such as `"gradings"`.

    Raises:
        EvalFailed: If some items failed; the message has their number and the first error.
    """
    keys = list(keys)
    failed = [journal.rows[key] for key in keys if journal.result(key) is None]
    if failed:
        raise EvalFailed(
            f"{len(failed)} of {len(keys)} {what} failed ({failed[0]['error']}). The others are "
            "kept: run the same command again for the rest."
        )
    return [journal.rows[key] for key in keys]
