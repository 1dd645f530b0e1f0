"""Prints the table of faults with what did happen, after its tests."""

from __future__ import annotations

import pytest

from tests.faults.table import MODES, PLACES, TABLE, expected

HAPPENED = pytest.StashKey[dict[tuple[str, str, str], str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[HAPPENED] = {}


@pytest.fixture
def happened(request: pytest.FixtureRequest) -> dict[tuple[str, str, str], str]:
    """What did happen, by fault, place and mode."""
    return request.config.stash[HAPPENED]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    happened = terminalreporter.config.stash[HAPPENED]
    if not happened:
        return
    terminalreporter.section("faults: what did happen (requests to the faulty model)")
    terminalreporter.write_line(f"{'':30}" + "".join(f"{place:34}" for place in PLACES))
    for fault in TABLE:
        cells = [_cell(happened, fault, place) for place in PLACES]
        terminalreporter.write_line(f"{fault:30}" + "".join(f"{cell:34}" for cell in cells))


def _cell(happened: dict[tuple[str, str, str], str], fault: str, place: str) -> str:
    """One outcome where all modes agree; a mark where it is not what must happen."""
    outcomes: dict[str, list[str]] = {}
    for mode in MODES:
        if (outcome := happened.get((fault, place, mode))) is not None:
            wrong = "" if outcome == str(expected(fault, place, mode)) else " !"
            outcomes.setdefault(outcome + wrong, []).append(mode)
    if len(outcomes) == 1:
        return next(iter(outcomes))
    return "; ".join(f"{outcome} {'/'.join(modes)}" for outcome, modes in outcomes.items())
