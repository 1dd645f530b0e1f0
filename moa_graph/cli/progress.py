"""One line for each proposer of a run, and one for each decision."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.cells import cell_len
from rich.text import Text

from moa_graph.cli.lines import counted, cut, one_line, padded
from moa_graph.state import Decision

_STYLES = {
    "ok": "green",
    "failed": "red",
    "timed out": "red",
    "abandoned": "yellow",
    "stopped": "yellow",
    "writing": "cyan",
}
_SHORTEST_NAME, _LONGEST_NAME = 8, 40
_GAP, _STATE, _SECONDS, _TOKENS, _LAST = 2, 9, 8, 14, 18  # cells of columns
_WIDE = 50


@dataclass
class Row:
    """Progress of one proposer."""

    layer: int
    name: str
    model: str
    state: str = "writing"
    tokens: int | None = None
    seconds: float | None = None
    error: str | None = None
    started: float = field(default_factory=time.monotonic)

    @property
    def fields(self) -> list[str]:
        """The texts of its columns."""
        seconds = time.monotonic() - self.started if self.seconds is None else self.seconds
        tokens = "" if self.tokens is None else counted(self.tokens, "token")
        error = one_line(self.error or "")
        return [
            f"layer {self.layer}",
            one_line(self.name),
            self.state,
            f"{seconds:.1f} s",
            tokens,
            error,
        ]

    def plain(self) -> Text:
        """Return the line for a file: as long as necessary."""
        return Text("  ".join(filter(None, self.fields)))

    def line(self, width: int, names: int, *, layers: bool = True) -> Text:
        """Return the line for a terminal, cut where it is too long.

        Args:
            width: Cells of the line.
            names: Cells of the widest name of the run.
            layers: Whether the run has several layers of proposers.
        """
        layer, name, state, seconds, tokens, error = self.fields
        before = f"{layer}  " if layers and width >= _WIDE else ""
        others = len(before) + _GAP + _STATE + _SECONDS
        shown = min(names, _LONGEST_NAME, max(_SHORTEST_NAME, width - others - _LAST))
        line = Text(before, style="dim")
        line.append(padded(name, shown), style="not dim")
        line.append(f"  {padded(state, _STATE)}", style=f"not dim {_STYLES.get(state, '')}")
        if others + shown <= width:
            line.append(seconds.rjust(_SECONDS), style="not dim")
        room = width - line.cell_len - _GAP
        if error and room > 0:
            line.append(f"  {cut(error, room)}", style="not dim red")
        elif tokens and room + _GAP >= _TOKENS:
            line.append(tokens.rjust(_TOKENS), style="not dim")
        line.truncate(width, overflow="ellipsis")
        line.rstrip()
        return line


def words_of(status: str) -> str:
    """Return the status of a proposal in words."""
    return status.replace("_", " ")


_BASES = {
    "judge": "a judge's verdict",
    "agreement": "the proposals' similarity",
    "votes": "their answers",
    "tie: first": "a tie, the first of them",
    "similarity": "their similarity",
    "change": "what is new in it",
    "samples": "its samples",
    "peers": "the proposers' scores of each other",
    "all": "no scores",
    "diversity": "how they differ",
    "shuffle": "a random order",
    "residual": "what is new in them",
}


def decision_lines(decision: Decision, width: int | None) -> list[str]:
    """Return a decision as one line: what was decided, by what, and what was left out.

    Args:
        decision: The decision.
        width: Cells of a line; None for a file. If the line is wider, each of its parts is one
            that is cut where it is too long.
    """
    parts = _parts(decision)
    line = "; ".join(parts)
    if width is None or cell_len(line) <= width:
        return [line]
    return [cut(part, width) for part in parts]


def _parts(decision: Decision) -> list[str]:
    layer, outcome = decision["layer"], decision["outcome"]
    kept = _list(decision["kept"])
    known = {
        "alone": "the first pass answers alone",
        "mixture": "the first pass is not sure: the proposers are asked",
        "go_on": f"the proposals of layer {layer} differ: the next layer is asked",
        "exit": f"the proposals of layer {layer} agree: no other layer is asked",
        "answer": f"the proposals of layer {layer} agree: {kept} is the answer",
        "chosen": f"chosen: {kept}",
    }
    words = known.get(outcome) or (f"kept of layer {layer}: {kept}" if kept else outcome)
    if decision["step"] == "analysis":
        words = f"layer {layer} was analysed for the aggregator"
    if decision["by"]:
        words += f" (by {_BASES.get(decision['by'], decision['by'])})"
    left = [f"{name} ({why})" if why else name for name, why in decision["left_out"].items()]
    parts = [words, f"left out: {_list(left)}" if left else "", decision["error"] or ""]
    return [one_line(part) for part in parts if part]


def _list(names: Sequence[str]) -> str:
    return (
        ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + (names[-1] if names else "")
    )
