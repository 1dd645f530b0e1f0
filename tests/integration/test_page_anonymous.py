"""Anonymous mode of the live page: no name is shown before the reader's vote."""

from __future__ import annotations

import pytest
from playwright.async_api import expect

from moa_graph.evals.records import read_records
from tests.integration.pages import answered, ask, open_panel

pytestmark = pytest.mark.services

NAMES = ("alpha", "beta", "gamma")


async def exports(page, folder) -> dict[str, str]:
    """What each export has, by its button."""
    made = {}
    for name in ("Save as Markdown", "Save as JSON", "Save as a page to share"):
        await page.locator(".menu summary").click()
        async with page.expect_download() as download:
            await page.get_by_role("button", name=name).click()
        await (await download.value).save_as(folder / name)
        made[name] = (folder / name).read_text()
    await page.locator(".menu summary").click()
    await page.get_by_role("button", name="Copy as Markdown").click()
    made["Copy as Markdown"] = await page.evaluate("navigator.clipboard.readText()")
    return made


async def test_anonymous_proposals_get_a_vote_that_moa_eval_pool_reads(
    open_page, assistant, server, langgraph_server, tmp_path
):
    server.answers |= {name: f"Text {place}" for place, name in enumerate(NAMES)}
    server.answers["judge"] = "1"
    which = await assistant(
        *[f"openai:{name}" for name in NAMES[:2]],
        "openai:gamma?status=400",
        aggregator={"strategy": "rank", "judge": "openai:judge"},
    )
    page = await open_page(which, permissions=["clipboard-read", "clipboard-write"])
    await page.get_by_role("checkbox", name="Anonymous").check()
    await page.evaluate(HEARD)
    await ask(page, "Which is best?")
    await answered(page)
    heard = await page.evaluate("window.heard.join()")
    assert "gave no answer" in heard
    assert not any(name in heard for name in NAMES)

    for _ in range(2):  # as it was made, and as it is read again
        await open_panel(page)
        names = page.locator(".turn .card .name")
        await expect(names).to_have_count(3)
        assert sorted(await names.all_inner_texts()) == [f"Proposer {x}" for x in "ABC"]
        await expect(page.locator(".turn .by")).to_contain_text("Proposer ")
        places = await page.evaluate(PLACES)
        assert [name for _, name in sorted(places)] == [f"Proposer {x}" for x in "ABC"]
        shown = await page.locator("main").inner_text()
        assert not any(name in shown for name in NAMES)
        await page.reload()
        await expect(page.get_by_role("checkbox", name="Anonymous")).to_be_checked()
        await expect(page.locator(".turn .decisions")).to_contain_text("Left out: Proposer")
    for kind, text in (await exports(page, tmp_path)).items():
        assert "Proposer A" in text, kind
        assert not any(name in text for name in NAMES), kind

    await open_panel(page)
    await page.get_by_role("button", name="Compare layer 1").click()
    columns = page.locator("#compare .column")
    await expect(columns).to_have_count(3)
    await expect(columns.first.locator("h3")).to_have_text("Proposer A")
    column = columns.filter(has=page.locator(".vote")).first
    said = (await column.locator(".column-text").inner_text()).strip()
    await column.locator(".vote").click()
    note = page.locator("#compare-note")
    await expect(note).to_have_text("Thank you: your vote is kept on the server.")
    await expect(page.locator("#compare .vote")).to_have_count(0)
    heads = await columns.locator("h3").all_inner_texts()
    assert sorted(heads) == ["alpha", "beta", "gamma?status=400"]
    await page.keyboard.press("Escape")
    for kind, text in (await exports(page, tmp_path)).items():
        assert all(name in text for name in NAMES), kind
    await page.reload()
    await open_panel(page)
    await expect(page.locator(".turn .card .name").first).to_have_text("alpha")

    (votes,) = read_records([langgraph_server.log_file.parent / "moa-votes"])
    chosen = NAMES[int(said[-1])]
    assert list(votes.questions.values()) == ["Which is best?"]
    assert {name: model.accuracy for name, model in votes.models.items()} == {
        name: float(name == chosen) for name in NAMES[:2]
    }


HEARD = """() => {
  // What a screen reader is told.
  window.heard = [];
  const status = document.getElementById("status");
  new MutationObserver(() => window.heard.push(status.textContent))
    .observe(status, { childList: true, characterData: true, subtree: true });
}"""
PLACES = """() => [...document.querySelectorAll(".turn .card")].map((card) => [
  card.getBoundingClientRect().top, card.querySelector(".name").textContent,
])"""
