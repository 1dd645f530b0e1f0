"""Several tabs and other clients of the live page ask in one thread."""

from __future__ import annotations

import pytest
from langgraph_sdk import get_client
from playwright.async_api import expect

from tests.integration.pages import answered, ask

pytestmark = pytest.mark.services


async def shows(page, *questions: str) -> None:
    """Each turn has its question and the answer to it."""
    await expect(page.locator(".turn .question")).to_have_text(list(questions))
    answers = [f"agg: {question}" for question in questions]
    await expect(page.locator(".turn .answer .markdown")).to_have_text(answers)


async def second_tab(page):
    other = await page.context.new_page()
    await other.goto(page.url)
    return other


async def test_two_tabs_ask_in_one_thread(open_page, assistant, server):
    page = await open_page(await assistant("openai:a"))
    await ask(page, "one?")
    await answered(page)
    other = await second_tab(page)
    await expect(other.locator(".turn")).to_have_count(1)
    await ask(other, "two?")
    await answered(other)
    await ask(page, "three?")
    await answered(page)
    await shows(page, "one?", "three?")
    asked = [m["content"] for m in server.of("agg")[-1].messages if m["role"] == "user"]
    assert asked == ["one?", "three?"]
    await page.reload()
    branches = page.locator(".turn").nth(1).locator(".branches")
    await expect(branches).to_contain_text("2/2")
    await shows(page, "one?", "three?")
    await branches.get_by_role("button", name="Earlier version").click()
    await expect(branches).to_contain_text("1/2")
    await shows(page, "one?", "two?")

    # The first question is edited in the tab that does not know of the third.
    await other.locator(".turn").first.get_by_role("button", name="Edit").click()
    await other.get_by_role("textbox", name="Edited question").fill("edited?")
    await other.keyboard.press("Enter")
    await answered(other)
    await other.reload()
    await expect(other.locator(".turn .branches").first).to_contain_text("2/2")
    await shows(other, "edited?")


async def test_a_failed_turn_is_retried_after_another_tab_has_asked(open_page, assistant, server):
    which = await assistant("openai:a", aggregator="openai:agg?status=400&times=1")
    page = await open_page(which)
    await ask(page, "one?")
    await expect(page.locator(".problem")).to_contain_text("the server said 400")
    other = await second_tab(page)
    await expect(other.locator(".problem")).to_contain_text("the server said 400")
    await ask(other, "two?")
    await answered(other)
    await page.locator(".problem").get_by_role("button", name="Retry").click()
    await expect(page.locator(".answer .markdown")).to_have_text("agg: one?")
    await answered(page)
    assert len([call for call in server.of("a") if "two?" not in str(call.messages)]) == 1
    for _ in range(2):  # as it was made, and as it is read again
        await expect(page.locator(".problem")).to_be_hidden()
        await shows(page, "one?")
        await page.reload()
        await expect(page.locator(".turn")).to_have_count(1)
    # Where it is shown as failed still, there is nothing to retry, and its answer is shown.
    asked = len(server.calls)
    await other.locator(".problem").get_by_role("button", name="Retry").click()
    await shows(other, "one?", "two?")
    await expect(other.locator(".problem:visible")).to_have_count(0)
    assert len(server.calls) == asked


async def test_the_messages_of_a_thread_say_whose_answers_they_are(
    open_page, assistant, langgraph_server
):
    which = await assistant("openai:a")
    page = await open_page(which)
    async with get_client(url=langgraph_server.url) as client:

        async def told(thread: str, question: str, node: str = "", parent: str = "") -> None:
            message = {"role": "user", "content": question}
            metadata = {}
            if node:
                message["id"] = f"moa-{node}"
                metadata = {"moa_node": node, "moa_parent": parent, "moa_kind": "ask"}
            await client.runs.wait(thread, which, input={"messages": [message]}, metadata=metadata)

        async def read(thread: str, *questions: str) -> None:
            await page.goto(f"{langgraph_server.url}/moa?assistant={which}&thread={thread}")
            await shows(page, *questions)

        # Tabs and another client asked without knowing of the turns before.
        thread = (await client.threads.create())["thread_id"]
        await told(thread, "zero?")
        await told(thread, "one?", "n1")
        await told(thread, "two?", "n2", "n1")
        await told(thread, "three?")
        await told(thread, "four?", "n4", "n1")
        await read(thread, "zero?", "one?", "two?", "three?", "four?")

        # Messages without a run are between two turns of the page.
        messages = [
            {"role": "human", "content": "added?"},
            {"role": "ai", "content": "agg: added?"},
        ]
        await client.threads.update_state(thread, {"messages": messages}, as_node="aggregator")
        await read(thread, "zero?", "one?", "two?", "three?", "four?", "added?")
        await ask(page, "last?")
        await answered(page)
        await read(thread, "zero?", "one?", "two?", "three?", "four?", "added?", "last?")
