from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from moa_graph.presets import PRESETS
from moa_graph.server.settings import Keys, Settings

ALICE, BOB = "alice-0123456789abcdef", "bob-0123456789abcdef"


def test_keys_have_owners_and_are_not_kept():
    keys = Keys(f"alice={ALICE}, bob={BOB},alice=second-0123456789abcdef,")
    assert keys.owner_of(ALICE) == keys.owner_of("second-0123456789abcdef") == "alice"
    assert keys.owner_of(BOB) == "bob"
    for wrong in ("", ALICE[:-1], ALICE + "x", "alice", "\udcff", "é" * 20):
        assert keys.owner_of(wrong) is None
    assert ALICE not in repr(vars(keys))
    assert not Keys("")
    assert not Keys(" , ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (ALICE, "entry 1 is not NAME=KEY"),
        (f"bob={BOB},={ALICE}", "entry 2 is not NAME=KEY"),
        ("alice=short", "fewer than 16 characters"),
        (f"local={ALICE}", "users of a server without keys"),
    ],
)
def test_keys_that_are_none_are_told_without_being_quoted(monkeypatch, text, says):
    monkeypatch.setenv("MOA_API_KEYS", text)
    with pytest.raises(ValidationError, match=says) as error:
        Settings()
    assert ALICE not in str(error.value)


def test_a_setting_out_of_range_is_told(monkeypatch):
    monkeypatch.setenv("MOA_MAX_PROPOSERS", "0")
    with pytest.raises(ValidationError, match="max_proposers"):
        Settings()


def test_an_empty_variable_is_none(monkeypatch):
    monkeypatch.setenv("MOA_API_KEYS", "")
    monkeypatch.setenv("MOA_MAX_LAYERS", "")
    assert not Settings().keys
    assert Settings().max_layers == 10


def test_which_models_are_allowed(monkeypatch):
    assert Settings().allows("openai:anything")
    assert not Settings().allows("huggingface:/srv/weights")
    monkeypatch.setenv("MOA_API_KEYS", f"alice={ALICE}")
    named = {model for preset in PRESETS.values() for model in preset.models()}
    assert all(Settings().allows(model) for model in named)
    assert not Settings().allows("openai:anything")
    monkeypatch.setenv("MOA_ALLOWED_MODELS", "openai:gpt-*, ollama:*")
    for model in ("openai:gpt-5.2", "OpenAI :gpt-5.2", "ollama:llama3.2"):
        assert Settings().allows(model)
    for model in (
        "openai:o9",
        "together:gpt-5.2",
        "openai",
        "openai:GPT-5.2",
        *named - {"openai:gpt-4o"},
    ):
        assert not Settings().allows(model)


def test_the_guide_has_a_row_for_each_setting():
    guide = (Path(__file__).parent.parent.parent / "notebooks" / "server.md").read_text()
    rows = [line for line in guide.splitlines() if line.startswith("| `MOA_")]
    told = {name for row in rows for name in re.findall(r"`(MOA_\w+)`", row.split("|")[1])}
    assert told == {f"MOA_{name.upper()}" for name in Settings.model_fields}
