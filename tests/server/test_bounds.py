from __future__ import annotations

import pytest
from langchain_core.messages import HumanMessage

from moa_graph.presets import PRESETS, Configuration
from moa_graph.server.assistants import check_given, mixture
from moa_graph.server.checks import bounds
from moa_graph.server.checks.bounds import TooLarge, check_bounds, check_question, check_state
from moa_graph.server.settings import Settings

SMALL = Settings(
    max_layers=3,
    max_proposers=4,
    max_samples=2,
    max_tokens=1000,
    max_messages=5,
    allowed_models="openai:*",
)


def given(proposers, aggregator="openai:x", **more):
    return Configuration(proposers=proposers, aggregator=aggregator, **more)


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(bounds, "SETTINGS", SMALL)


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("configuration", "says"),
    [
        (given(["openai:a"], layers=4), "4 layers .* 3 .*MOA_MAX_LAYERS"),
        (given([["openai:a"]] * 3), "4 layers .* 3 .*MOA_MAX_LAYERS"),
        (given(["openai:a"] * 5), "5 proposers .* 4 .*MOA_MAX_PROPOSERS"),
        (given([{"model": "openai:a", "samples": 3}]), "3 samples .* 2 .*MOA_MAX_SAMPLES"),
        (
            given([["openai:a"], [{"model": "openai:a", "samples": 2}] * 3]),
            "6 proposers .* 4 .*MOA_MAX_PROPOSERS",
        ),
        (given([{"model": "openai:a", "max_tokens": 1001}]), "1001 tokens .*MOA_MAX_TOKENS"),
        (
            given(["openai:a"], {"model": "openai:a", "max_tokens": 9999}),
            "9999 tokens .*MOA_MAX_TOKENS",
        ),
        (given(["together:a"]), "does not allow the model 'together:a'"),
        (given(["openai:a"], "local:qwen2.5-coder-0.5b"), "does not allow"),
    ],
)
def test_what_exceeds_a_bound_is_refused_and_says_which(configuration, says):
    with pytest.raises(ValueError, match=says):
        check_bounds(configuration)


@pytest.mark.usefixtures("_small")
def test_what_is_within_is_not():
    check_bounds(given([[{"model": "openai:a", "samples": 2}] * 2, ["openai:b"]]))


def test_every_preset_is_within_the_bounds_that_nobody_changed():
    for preset in PRESETS.values():
        check_bounds(preset)


@pytest.mark.parametrize(
    "context",
    [
        {"base_url": "http://evil"},
        {"api_key": "sk-mine"},
        {"proposers": [{"model": "openai:a", "base_url": "http://evil"}]},
        {"proposers": [{"model": "openai:a", "params": {"api_key": "x"}}]},
        {"aggregator": {"model": "openai:a", "model_provider": "os.system"}},
        {"proposers": ["local:/etc/passwd.gguf"]},
        {"aggregator": "local:../weights.gguf"},
        {"aggregator": "huggingface:/srv/weights"},
        {"aggregator_options": {"extra_headers": {"Authorization": "x"}}},
        {"aggregator_options": {"base_url": "http://evil"}},
        {"layers": 11},
        {"token_budget": 10**9},
        {"proposer_max_tokens": 10**9},
    ],
)
def test_a_client_cannot_say_where_a_model_is_or_exceed_a_bound(context):
    with pytest.raises(ValueError, match=r"context|allow"):
        check_given(context)


async def test_a_part_of_a_context_is_judged_by_itself():
    check_given({"quorum": 9})
    check_given({})
    layer = {"proposers": ["openai:a"], "min_proposals": 9}
    with pytest.raises(ValueError, match="min_proposals=9"):
        await mixture({"configurable": {"proposers": layer}})
    with pytest.raises(
        ValueError, match="min_proposals cannot be set for an assistant: it is a field of"
    ):
        check_given({"proposers": ["openai:a"], "min_proposals": 1})


TEXT = {"type": "text", "text": "y" * 2500}


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize(
    ("state", "says"),
    [
        ({"messages": [HumanMessage("hi")] * 6}, "6 messages.* 5 .*MOA_MAX_MESSAGES.* new thread"),
        ({"messages": [HumanMessage("y" * 2500)] * 2}, "1250 tokens of the conversation"),
        ({"messages": [HumanMessage([TEXT, TEXT])]}, "1252 tokens of the conversation"),
        (
            {"messages": [HumanMessage("hi")], "proposals": [{"content": "y" * 5000}] * 2},
            "1250 tokens of the proposals .*MOA_MAX_TOKENS",
        ),
    ],
)
def test_a_state_that_exceeds_a_bound_is_refused(state, says):
    with pytest.raises(ValueError, match=says):
        check_state(state)


@pytest.mark.usefixtures("_small")
def test_a_state_within_is_not():
    proposals = [{"content": "y" * 900, "layer": 1}] * 8
    check_state({"messages": [HumanMessage("y" * 900)] * 4, "proposals": proposals})
    check_state({"messages": []})


@pytest.mark.parametrize("layers", [1, 30])
def test_lists_of_messages_are_found_at_any_depth_in_linear_time(layers):
    given = many = {"messages": [1] * 501}
    for _ in range(layers):
        given = ["a", ["messages", given]]
    with pytest.raises(TooLarge, match="501 messages"):
        check_question(given)
    with pytest.raises(TooLarge, match="501 messages"):
        check_question([["messages", many["messages"]], ["other", 1]])
