"""The builder of mixtures on the live page."""

from __future__ import annotations

import json
import tomllib

import pytest
from langgraph_sdk import get_client
from playwright.async_api import expect

from moa_graph.presets.configuration import Configuration
from tests.integration.pages import answered, ask, card, open_panel

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


async def test_what_the_server_refuses_is_told_in_the_builder(open_page, assistant):
    page = await open_page(await assistant("openai:a"), fails=("422",))
    await page.get_by_role("button", name="Build").click()
    builder = page.locator("#builder")
    await builder.get_by_label("Model 1").fill("huggingface:../../etc/passwd")
    await builder.get_by_role("button", name="Save as an assistant").click()
    await expect(builder.locator("p.note")).to_contain_text("does not allow the model")
    await expect(builder).to_be_visible()


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
