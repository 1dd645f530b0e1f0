"""Labels of metrics: clients choose models, and each name is a time series."""

from __future__ import annotations

import pytest

from moa_graph.presets import PRESETS
from moa_graph.server import metrics
from moa_graph.server.settings import Settings


@pytest.fixture(autouse=True)
def _names(monkeypatch):
    monkeypatch.setattr(metrics, "_names", set())
    monkeypatch.setattr(metrics, "SETTINGS", Settings(allowed_models="openai:mine, openai:a*"))
    metrics._operators_models.cache_clear()
    yield
    metrics._operators_models.cache_clear()


def test_names_that_clients_invent_do_not_use_up_the_labels_of_the_operators_models():
    labels = {metrics._label(f"a{number}") for number in range(1000)}
    assert len(labels) == metrics._MOST_MODELS + 1
    assert "other" in labels
    for model in ("mine", "openai:mine", next(iter(PRESETS["moa"].models())).partition(":")[2]):
        assert metrics._label(model) == model
    assert metrics._label("a1000") == "other"
    assert metrics._label("a0") == "a0"


def test_the_operators_models_are_not_counted():
    for model in PRESETS["moa"].models():
        metrics._label(model)
    labels = {metrics._label(f"a{number}") for number in range(1000)}
    assert len(labels) == metrics._MOST_MODELS + 1
