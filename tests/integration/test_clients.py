"""Real clients with the features of a mixture: `python -m tests.integration.clients` for the table."""

from __future__ import annotations

import pytest

from tests.integration.clients.checks import FEATURES
from tests.integration.clients.clients import CLIENTS
from tests.integration.clients.driver import NOT_OFFERED, drive, guarded_server, markdown

pytestmark = pytest.mark.services


async def test_every_client_has_every_feature_or_a_reason(server, tmp_path):
    with guarded_server(server, tmp_path) as guarded:
        table = await drive(CLIENTS, server, guarded.url)
    assert len(table) >= 15
    assert all(row.keys() == FEATURES.keys() for _, row in table)
    cells = {cell for _, row in table for cell in row.values()}
    assert cells <= {"", NOT_OFFERED}, markdown(table)
