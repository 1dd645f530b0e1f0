"""The reference page is that of the docstrings."""

from __future__ import annotations

from tests.reference import FILE, reference


def test_the_reference_is_up_to_date():
    assert FILE.read_text() == reference(), "run: python -m tests.reference"
