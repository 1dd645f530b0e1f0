"""What a reader does on the live page: retry, edit, branch, search, export, share, vote."""

from __future__ import annotations

import json
import re

import pytest
from langgraph_sdk import get_client
from playwright.async_api import expect

from tests.fake_server import eventually
from tests.integration.pages import answered, ask, card, open_panel

pytestmark = pytest.mark.services


def turn(page, place: int = 0):
    return page.locator(".turn").nth(place)


def answer(page, place: int = 0):
    return turn(page, place).locator(".answer .markdown")


async def test_retry_edit_and_branches_of_a_thread(open_page, assistant, server):
    page = await open_page(await assistant("openai:a?varies", aggregator="openai:agg?varies"))
    await ask(page, "one?")
    await answered(page)
    await ask(page, "two?")
    await answered(page)
    await expect(answer(page, 1)).to_have_text("2: agg: two?")

    await turn(page, 1).get_by_role("button", name="Retry the aggregator").click()
    await expect(answer(page, 1)).to_have_text("3: agg: two?")
    await answered(page)
    assert len(server.of("a")) == 2  # its proposal is kept
    await open_panel(page)
    await expect(card(page, "a?varies")).to_contain_text("2: a: two?")
    await expect(turn(page, 1).locator(".branches")).to_contain_text("2/2")

    await turn(page, 1).get_by_role("button", name="Ask all again").click()
    await expect(answer(page, 1)).to_have_text("4: agg: two?")
    await answered(page)
    assert len(server.of("a")) == 3

    await turn(page, 0).get_by_role("button", name="Edit").click()
    await page.get_by_role("textbox", name="Edited question").fill("one, edited?")
    await page.keyboard.press("Enter")
    await expect(answer(page, 0)).to_have_text("5: agg: one, edited?")
    await answered(page)
    await expect(page.locator(".turn")).to_have_count(1)
    asked = [m["content"] for m in server.of("agg")[-1].messages if m["role"] == "user"]
    assert asked == ["one, edited?"]

    for _ in range(2):  # as it was made, and as it is read again
        await expect(turn(page).locator(".branches")).to_contain_text("2/2")
        await turn(page).get_by_role("button", name="Earlier version").click()
        await expect(page.locator(".turn")).to_have_count(2)
        await expect(answer(page, 0)).to_have_text("1: agg: one?")
        await expect(answer(page, 1)).to_have_text("4: agg: two?")
        await expect(turn(page, 1).locator(".branches")).to_contain_text("3/3")
        await turn(page, 1).get_by_role("button", name="Earlier version").click()
        await expect(answer(page, 1)).to_have_text("3: agg: two?")
        await page.reload()
        await expect(answer(page)).to_have_text("5: agg: one, edited?")

    # A question behind an earlier branch goes on from there.
    await turn(page).get_by_role("button", name="Earlier version").click()
    await expect(page.locator(".turn")).to_have_count(2)
    await ask(page, "three?")
    await expect(answer(page, 2)).to_have_text("6: agg: three?")
    asked = [m["content"] for m in server.of("agg")[-1].messages if m["role"] == "user"]
    assert asked == ["one?", "two?", "three?"]


async def test_a_failed_aggregator_is_retried_with_the_proposals_that_are_kept(
    open_page, assistant, server
):
    page = await open_page(await assistant("openai:a", aggregator="openai:agg?status=400&times=1"))
    await ask(page, "one?")
    problem = page.locator(".problem")
    await expect(problem).to_contain_text("The proposals are kept: Retry asks only the aggregator")
    await page.reload()
    await expect(problem).to_contain_text("the server said 400")
    await problem.get_by_role("button", name="Retry").click()
    await expect(answer(page)).to_have_text("agg: one?")
    await answered(page)
    await expect(problem).to_be_hidden()
    assert len(server.of("a")) == 1


async def test_a_run_that_never_began_has_no_answer_of_the_turn_before(
    open_page, assistant, langgraph_server
):
    which = await assistant("openai:a")
    page = await open_page(which, fails=("404", "422"))
    await ask(page, "one?")
    await answered(page)
    async with get_client(url=langgraph_server.url) as client:
        await client.assistants.delete(which)
    await ask(page, "two?")
    await expect(page.locator(".turn")).to_have_count(2)
    await expect(turn(page, 1).locator(".problem")).to_be_visible()
    await expect(turn(page, 1).locator(".answer")).to_be_hidden()
    await page.reload()
    await expect(answer(page)).to_have_text("agg: one?")


async def test_a_stopped_run_goes_on_and_keeps_what_there_is(open_page, assistant, server):
    page = await open_page(await assistant("openai:a", "openai:b?hang&times=1"))
    await ask(page, "one?")
    await expect(card(page, "a")).to_have_attribute("data-state", "ok")
    await page.keyboard.press("Escape")
    await expect(page.locator(".problem")).to_contain_text("Stopped before the answer.")
    await page.get_by_role("button", name="Go on").click()
    await expect(answer(page)).to_have_text("agg: one?")
    await eventually(lambda: len(server.of("b")) == 2)
    assert len(server.of("a")) == 1


async def test_a_lost_connection_is_joined_again(open_page, assistant):
    page = await open_page(
        await assistant("openai:a?tps=4", aggregator="openai:agg?tps=20"), fails=("ERR_",)
    )
    await ask(page, "a question of some words?")
    await expect(card(page, "a?tps=4").locator(".text")).not_to_be_empty()
    await page.context.set_offline(True)
    await page.wait_for_timeout(300)
    await page.context.set_offline(False)
    await answered(page)
    await expect(answer(page)).to_have_text("agg: a question of some words?")
    await expect(page.locator(".problem")).to_be_hidden()


async def test_the_page_follows_the_stream_until_the_reader_scrolls_up(
    open_page, assistant, server
):
    server.answers["agg"] = "\n\n".join(f"Paragraph {i}" for i in range(60))
    page = await open_page(
        await assistant("openai:a", aggregator="openai:agg?tps=60"),
        viewport={"width": 900, "height": 500},
    )
    await ask(page, "one?")
    await expect(answer(page)).to_contain_text("Paragraph 20")
    distance = "document.scrollingElement.scrollHeight - scrollY - innerHeight"
    assert await page.evaluate("scrollY") > 0
    await page.wait_for_function(f"{distance} < 80")
    await page.mouse.move(400, 200)
    await page.mouse.wheel(0, -400)
    await page.wait_for_timeout(300)  # scrolling is smooth
    read = page.get_by_text(await page.evaluate(IN_VIEW), exact=True)
    where = (await read.bounding_box())["y"]
    await answered(page)
    await expect(answer(page)).to_contain_text("Paragraph 59")
    assert abs((await read.bounding_box())["y"] - where) < 30
    await page.get_by_role("button", name="To the latest").click()
    assert await page.evaluate(distance) < 80


IN_VIEW = "document.elementFromPoint(200, 200).textContent"


async def test_history_is_searched_and_export_is_whole(
    open_page, assistant, server, browser, tmp_path
):
    hostile = "<script>window.ran = 1</script></script><img src=x onerror='window.ran = 2'>"
    server.answers |= {"agg": f"Half is $\\frac{{1}}{{2}}$. {hostile}", "a": hostile}
    page = await open_page(await assistant("openai:a", "openai:b?status=400"))
    await ask(page, "Which zebra sleeps?")
    await answered(page)
    await page.click("#new")
    await ask(page, "Something else")
    await answered(page)
    await page.get_by_role("button", name="History").click()
    await page.get_by_role("searchbox").fill("ZEBRA sleep")
    entry = page.locator("#history-list .entry")
    await expect(entry).to_have_count(1)
    await entry.click()
    await expect(page.locator(".question")).to_have_text("Which zebra sleeps?")
    await expect(page.locator(".card")).to_have_count(2)

    async def saved(name: str):
        await page.locator(".menu summary").click()
        async with page.expect_download() as download:
            await page.get_by_role("button", name=name).click()
        path = tmp_path / (await download.value).suggested_filename
        await (await download.value).save_as(path)
        return path

    data = json.loads((await saved("Save as JSON")).read_text())
    (made,) = data["turns"]
    assert made["question"] == "Which zebra sleeps?"
    assert made["answer"]["content"] == server.answers["agg"]
    assert [p["status"] for p in made["proposals"]] == ["ok", "failed"]
    markdown = (await saved("Save as Markdown")).read_text()
    assert "> Which zebra sleeps?" in markdown
    assert server.answers["agg"] in markdown

    shared = await saved("Save as a page to share")
    assert shared.name == "Which-zebra-sleeps.html"
    context = await browser.new_context(offline=True, java_script_enabled=False)
    offline = await context.new_page()
    loaded = []
    offline.on("request", lambda request: loaded.append(request.url))
    await offline.goto(shared.as_uri())
    await expect(offline.locator(".answer math mfrac")).to_have_count(1)
    await expect(offline.locator(".answer")).to_contain_text("<script>window.ran")
    await offline.locator(".panel > summary").click()
    await expect(offline.locator(".card")).to_have_count(2)
    await expect(offline.locator("img, script:not([type='application/json'])")).to_have_count(0)
    assert loaded == [shared.as_uri()]
    inside = await offline.locator("#thread").text_content()
    assert json.loads(inside) == data
    await context.close()


async def test_the_history_finds_every_question_however_it_is_written(open_page, assistant):
    page = await open_page(await assistant("openai:a"))
    await ask(page, "Cafe\u0301 in \u0130stanbul, Ἀθῆναι?")
    await answered(page)
    other = await page.context.new_page()
    await other.goto(page.url)
    await expect(other.locator(".turn")).to_have_count(1)
    await ask(page, "From the first tab?")
    await answered(page)
    await ask(other, "From the second tab?")
    await answered(other)
    await turn(other, 0).get_by_role("button", name="Edit").click()
    await other.get_by_role("textbox", name="Edited question").fill("Die Stra\u00dfe, ΟΔΟΣ?")
    await other.keyboard.press("Enter")
    await answered(other)
    await page.get_by_role("button", name="History").click()
    entry = page.locator('#history-list .entry[aria-current="true"]')
    for words in (
        "caf\u00e9", "cafe\u0301", "CAFE istanbul", "\u0131stanbul", "Αθηναι", "STRASSE", "stra\u00dfe",
        "οδος", "first tab", "second tab",
    ):  # fmt: skip
        await page.get_by_role("searchbox").fill(words)
        await expect(entry, words).to_have_count(1)
    await page.get_by_role("searchbox").fill("third tab")
    await expect(entry).to_have_count(0)


async def test_an_answer_has_its_price_and_is_copied_as_markdown(open_page, assistant, server):
    server.answers["gpt-4o"] = "**bold** $x$"
    page = await open_page(
        await assistant("openai:gpt-4o", aggregator="openai:gpt-4o"),
        permissions=["clipboard-read", "clipboard-write"],
    )
    await ask(page, "one?")
    await answered(page)
    await expect(page.locator(".footer")).to_contain_text(re.compile(r"tokens · \$0\.000\d+$"))
    await page.get_by_role("button", name="Copy answer").click()
    await expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert await page.evaluate("navigator.clipboard.readText()") == "**bold** $x$"
