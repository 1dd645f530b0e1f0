"""The builder of mixtures on the live page."""

from __future__ import annotations

import json
import tomllib
from dataclasses import fields

import pytest
from langgraph_sdk import get_client
from playwright.async_api import expect

from moa_graph.layers import Layer, Proposer, References
from moa_graph.limits import RunLimits
from moa_graph.presets import PRESETS
from moa_graph.presets.configuration import Configuration
from moa_graph.server.assistants import AssistantContext
from tests.integration.pages import answered, ask, card, open_panel
from tests.server.test_page_routes import MIXTURES

pytestmark = pytest.mark.services


async def test_a_mixture_is_built_saved_asked_and_exported(
    open_page, assistant, server, langgraph_server
):
    server.answers["judge"] = "2"
    page = await open_page(await assistant("openai:a"))
    await page.get_by_role("button", name="Build").click()
    builder = page.locator("#builder")
    await builder.get_by_label("Start from").select_option("-")
    await builder.get_by_label("Name", exact=True).first.fill("Panel of two")
    drawing = builder.locator("svg")
    await expect(drawing).to_have_attribute(
        "aria-label", "The mixture. layer 1: 3 proposers; then the aggregator."
    )
    await builder.get_by_role("button", name="TOML").click()
    await expect(builder.locator("p.note")).to_have_text("Layer 1 has no model.")

    await builder.get_by_role("button", name="Remove proposer 3").click()
    await builder.get_by_label("Model 1").fill("openai:a")
    await builder.get_by_label("Model 2").fill("openai:b")
    second = builder.get_by_role("group", name="Proposer 2")
    await second.locator("summary").click()
    await second.get_by_label("Name").fill("critic")
    await second.get_by_label("Role").fill("Look for errors.")
    await builder.get_by_role("group", name="Proposer 1").get_by_label("Samples").fill("2")
    await builder.get_by_text("Waiting, selection, early exit").click()
    await builder.get_by_label("Quorum").fill("3")
    await builder.get_by_label("Timeout, seconds").fill("30")
    await builder.get_by_label("Made by").select_option("rank")
    await builder.get_by_label("judge", exact=True).fill("openai:judge")
    await builder.get_by_label("Most tokens").fill("50000")
    await expect(drawing).to_contain_text("critic")
    await expect(drawing).to_contain_text("rank")

    await builder.get_by_role("button", name="TOML").click()
    toml = await builder.locator("pre").inner_text()
    data = tomllib.loads(toml)
    assert data["limits"] == {"tokens": 50000}
    assert data["proposers"]["quorum"] == 3
    await builder.get_by_role("button", name="Python").click()
    await expect(builder.locator("pre")).to_contain_text("create_moa")
    code = await builder.locator("pre").inner_text()
    made: dict = {}
    exec(compile(code.partition("\nprint(")[0], "mixture.py", "exec"), made)
    assert Configuration.of(made["moa"]).aggregator["strategy"] == "rank"

    await builder.get_by_role("button", name="Save as an assistant").click()
    await expect(builder).to_be_hidden()
    await expect(page.locator("#assistant option:checked")).to_have_text("Panel of two")
    await ask(page, "Well?")
    await answered(page)
    await open_panel(page)
    await expect(card(page, "critic")).to_contain_text("b: Well?")
    await expect(page.locator(".turn .card")).to_have_count(3)
    assert "Look for errors." in server.of("b")[0].system

    # What is saved is opened again, and changed.
    await page.get_by_role("button", name="Build").click()
    await expect(builder.get_by_label("Model 2")).to_have_value("openai:b")
    await expect(builder.get_by_label("Made by")).to_have_value("rank")
    await builder.get_by_label("Made by").select_option("")
    await builder.get_by_label("Aggregator", exact=True).fill("openai:agg")
    await builder.get_by_role("button", name="Save the changes").click()
    await expect(builder).to_be_hidden()
    async with get_client(url=langgraph_server.url) as client:
        (saved,) = await client.assistants.search(name="Panel of two")
    assert saved["context"]["aggregator"] == "openai:agg"
    assert json.dumps(saved["context"]).count("critic") == 1


def _some(kind: type) -> dict[str, str]:
    """A value for every argument of a class: the page keeps what it does not know."""
    return {field.name: f"some {field.name}" for field in fields(kind) if field.init}


EVERY_MEMBER = {**_some(Proposer), "params": {"top_p": 0.5}}
EVERY_LAYER = {
    **_some(Layer),
    "proposers": [EVERY_MEMBER, "openai:b", {"model": "openai:c"}],
    "select": [
        {"strategy": "top_k", "k": 2, "judge": {"model": "openai:j", "max_tokens": 9}},
        {"strategy": "diverse", "k": 1, "embeddings": "openai:e"},
        "shuffle",
    ],
    "until": {"strategy": "agree", "parse": "number", "then": "answer", "unknown": [1]},
    "reserve": ["openai:d", EVERY_MEMBER],
}
EVERY = {
    **{name: f"some {name}" for name in AssistantContext.model_fields},
    "proposers": [EVERY_LAYER, ["openai:a"]],
    "aggregator": {**EVERY_MEMBER, "name": "agg"},
    "layers": 3,
    "route": {"model": {"model": "openai:a", "temperature": 0}, "samples": 3, "share": 0.5},
    "limits": _some(RunLimits),
    "references": _some(References),
}
CONTEXTS = {
    **MIXTURES,
    "every field": EVERY,
    "one layer for several": {**EVERY, "proposers": EVERY_LAYER, "layers": 4},
    "a list of one layer": {"proposers": [["openai:a"]], "aggregator": "most_central"},
    "nulls": {
        "proposers": [{"model": "openai:a", "name": None, "samples": 1, "temperature": 0}],
        "aggregator": {"strategy": "vote", "weights": {"a": 2}, "tie": None},
        "layers": None, "route": None, "limits": None, "references": None,
    },
    "selections": {
        "proposers": {"proposers": ["openai:a"], "select": "shuffle", "until": None, "reserve": []},
        "aggregator": {"strategy": "rank", "judge": {"model": "openai:j", "temperature": 1}},
        "progressive": {"first": 8},
        "route": {"strategy": "of_the_operator", "depth": 3},
    },
}  # fmt: skip
RECIPES = """async (contexts) => {
  const { recipeOf, contextOf } = await import("/moa/recipe.js");
  const { strategies } = await (await fetch("/moa/offer")).json();
  const made = {};
  for (const [name, context] of Object.entries(contexts)) {
    made[name] = contextOf(recipeOf(context), strategies);
  }
  return made;
}"""
EDITED = """async (context) => {
  const { recipeOf, contextOf } = await import("/moa/recipe.js");
  const { strategies } = await (await fetch("/moa/offer")).json();
  const recipe = recipeOf(context);
  const [layer] = recipe.layers;
  Object.assign(recipe, { model: "openai:new", tokens: "" });
  recipe.route.arguments.model = "openai:new";
  layer.members[0].samples = "7";
  layer.members[1].temperature = "0";
  layer.quorum = "2";
  layer.timeout = "";
  layer.select.arguments.judge = "openai:new";
  layer.until.arguments.then = "";
  return contextOf(recipe, strategies);
}"""


async def test_settings_that_the_builder_does_not_show_are_kept(open_page, assistant):
    page = await open_page(await assistant("openai:a"))
    made = await page.evaluate(RECIPES, CONTEXTS)
    for name, context in CONTEXTS.items():
        assert made[name] == context, name

    edited = await page.evaluate(EDITED, EVERY)
    expected = json.loads(json.dumps(EVERY))
    expected["aggregator"]["model"] = expected["route"]["model"]["model"] = "openai:new"
    del expected["limits"]["tokens"]
    layer = expected["proposers"][0]
    layer["proposers"][0]["samples"] = 7
    layer["proposers"][1] = {"model": "openai:b", "temperature": 0}
    layer["quorum"] = 2
    del layer["timeout"], layer["until"]["then"]
    layer["select"][0]["judge"]["model"] = "openai:new"
    assert edited == expected

    # A layer that differs from the others is written on its own.
    different = await page.evaluate(EDITED, {**EVERY, "proposers": EVERY_LAYER, "layers": 4})
    assert different["proposers"] == [layer, EVERY_LAYER, EVERY_LAYER]
    assert different["layers"] == 4


EXPORTED = """async () => {
  const { recipeOf, contextOf } = await import("/moa/recipe.js");
  const { offer, exported } = await import("/moa/api.js");
  const { presets, strategies } = await offer();
  const made = {};
  for (const [name, preset] of Object.entries(presets)) {
    made[name] = (await exported(name, contextOf(recipeOf(preset), strategies))).toml;
  }
  return made;
}"""


async def test_a_mixture_that_starts_from_a_preset_has_its_settings(open_page, assistant):
    page = await open_page(await assistant("openai:a"))
    made = await page.evaluate(EXPORTED)
    assert made.keys() == PRESETS.keys()
    for name, toml in made.items():
        preset = PRESETS[name].model_copy(update={"description": ""})
        assert Configuration(**tomllib.loads(toml)).data() == preset.data(), name

    await page.get_by_role("button", name="Build").click()
    builder = page.locator("#builder")
    await builder.get_by_label("Start from").select_option("moa-lite")
    await builder.get_by_role("button", name="Add a proposer").click()
    added = builder.get_by_role("group", name="Proposer 7")
    await added.get_by_label("Model 7").fill("openai:added")
    await expect(added.get_by_label("Longest answer, tokens")).to_have_value("2048")
    # The mixture that was opened is there still, with what was edited, and can be saved again.
    await builder.get_by_label("Start from").select_option("-")
    await expect(builder.get_by_label("Model 1")).to_have_value("")
    await expect(builder.get_by_role("button", name="Save the changes")).to_be_hidden()
    await builder.get_by_label("Start from").select_option("")
    await expect(builder.get_by_label("Model 1")).to_have_value("openai:a")
    await expect(builder.get_by_role("button", name="Save the changes")).to_be_visible()


async def test_an_assistant_is_saved_as_it_was(open_page, assistant, langgraph_server):
    context = {
        "proposers": [
            {"proposers": [{"model": "openai:a", "max_tokens": 50}, "openai:b"], "hedge": "2x"}
        ],
        "aggregator": {"model": "openai:agg", "max_tokens": 77},
        "references": {"fenced": True},
    }
    which = await assistant(
        *context["proposers"], aggregator=context["aggregator"], references=context["references"]
    )
    page = await open_page(which)
    await page.get_by_role("button", name="Build").click()
    builder = page.locator("#builder")
    await expect(builder).to_contain_text("Also set, and kept: hedge.")
    await builder.get_by_role("button", name="Save the changes").click()
    await expect(builder).to_be_hidden()
    async with get_client(url=langgraph_server.url) as client:
        saved = await client.assistants.get(which)
    assert saved["context"] == context


async def test_what_the_server_refuses_is_told_in_the_builder(open_page, assistant):
    page = await open_page(await assistant("openai:a"), fails=("422", "400"))
    await page.get_by_role("button", name="Build").click()
    builder = page.locator("#builder")
    await builder.get_by_label("Model 1").fill("huggingface:../../etc/passwd")
    await builder.get_by_role("button", name="Save as an assistant").click()
    note = builder.locator("p.note")
    await expect(note).to_contain_text("does not allow the model")
    await expect(builder).to_be_visible()

    # Only code has the arguments that the server's messages name.
    await builder.get_by_label("Model 1").fill("openai:a")
    await builder.get_by_text("Waiting, selection, early exit").click()
    for label, value, words in (
        ("Quorum", "9", "Quorum 9 must be between 1"),
        ("Timeout, seconds", "-1", "Timeout -1 must be above 0."),
        ("Most tokens", "0", "Most tokens: Input should be greater than or equal to 1."),
        ("Most dollars", "1", "“Most dollars” needs the price of every model"),
    ):
        field = builder.get_by_label(label)
        await field.fill(value)
        await builder.get_by_role("button", name="TOML").click()
        await expect(note).to_contain_text(words)
        await field.fill("")
    await builder.get_by_label("Most dollars").fill("1")
    await builder.get_by_role("button", name="Save the changes").click()
    await expect(builder).to_be_hidden()
    await ask(page)
    await expect(page.locator(".problem")).to_contain_text("set “Most tokens” instead")


WIDER = """() => [...document.querySelectorAll("#builder .drawing .box")].filter((box) => {
  const edge = box.querySelector("rect").getBoundingClientRect();
  return [...box.querySelectorAll("text")].some((text) => {
    const { left, right } = text.getBoundingClientRect();
    return left < edge.left || right > edge.right;
  });
}).length"""


async def test_names_of_any_width_stay_in_their_boxes(open_page, assistant):
    names = ["W" * 40, "i" * 40, "漢字" * 20, "🐈" * 24, "a-very-long-model-name-0123456789"]
    members = [{"model": "openai:a", "name": name, "samples": 2} for name in names[1:]]
    page = await open_page(await assistant(f"openai:{names[0]}", *members))
    await page.get_by_role("button", name="Build").click()
    await expect(page.locator("#builder .drawing .box")).to_have_count(len(names) + 2)
    assert await page.evaluate(WIDER) == 0
