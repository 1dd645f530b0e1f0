"""What the tests of evaluations share."""

from __future__ import annotations

from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def data() -> Path:
    """Recorded public data."""
    if not DATA.is_dir():
        pytest.skip("needs the recorded public data in ../shared/data")
    return DATA


@pytest.fixture
def together(server, monkeypatch):
    """The fake server's models as `together:NAME`."""
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp-0123456789")
    monkeypatch.setenv("TOGETHER_API_BASE", server.url)
    return server
