"""The live page at /moa, in a real browser."""

from __future__ import annotations

import re

import pytest
from langgraph_sdk import get_client
from playwright.async_api import expect

from tests.fake_server import eventually
from tests.integration.langgraph_server import langgraph_dev
from tests.integration.pages import QUESTION, answered, ask, card, open_panel

pytestmark = pytest.mark.services

ANSWER = """# Three things

1. **Golden Gate**: [a map](https://example.org)
2. Museums

```python
print("hi")
```

The half is $\\frac{1}{2}$.

<script>window.ran = "script"</script>
<img src=x onerror="window.ran = 'onerror'">
![a picture](https://example.org/tracks.png)
[a trap](javascript:window.ran='link')
"""
TRAP = "<script>window.ran = 'card'</script><img src=x onerror=\"window.ran = 'card'\">"


async def test_four_proposers_stream_one_fails_and_the_answer_is_read(
    open_page, assistant, server, tmp_path
):
    server.answers |= {"agg": ANSWER, "a": "word " * 60, "d": TRAP}
    which = await assistant(
        "openai:a?tps=30", "openai:b?tps=4", "openai:c?status=401", "openai:d?tps=2",
        aggregator="openai:agg?tps=40",
    )  # fmt: skip
    page = await open_page(which)
    await ask(page)
    for name in ("a?tps=30", "b?tps=4", "d?tps=2"):
        await expect(card(page, name)).to_have_attribute("data-state", "writing")
        await expect(card(page, name).locator(".text")).not_to_be_empty()
    written = await card(page, "a?tps=30").locator(".text").inner_text()
    await expect(card(page, "a?tps=30").locator(".text")).not_to_have_text(written)
    failed = card(page, "c?status=401")
    await expect(failed).to_have_attribute("data-state", "failed")
    await expect(failed).to_contain_text("refused the API key")
    await page.screenshot(path=tmp_path / "streaming.png")

    await answered(page)
    await expect(card(page, "a?tps=30")).to_be_hidden()  # collapsed
    await open_panel(page)
    await expect(card(page, "a?tps=30")).to_have_attribute("data-state", "ok")
    await expect(card(page, "a?tps=30").locator(".facts")).to_have_text(
        re.compile(r"answered · \d+\.\d s · \d+ tokens")
    )
    answer = page.locator(".turn .answer .markdown")
    await expect(answer.locator("h1")).to_have_text("Three things")
    await expect(answer.locator("ol li")).to_have_count(2)
    await expect(answer.locator("strong")).to_have_text("Golden Gate")
    await expect(answer.locator("pre code")).to_have_text('print("hi")\n')
    await expect(answer.locator("pre .hl-s2")).to_have_text('"hi"')
    await expect(answer.locator("math mfrac")).to_have_count(1)
    await expect(page.locator(".turn .footer")).to_have_text(
        re.compile(r"\d models · \d+\.\d s · [\d,]+ tokens")
    )
    await expect(answer.locator("a").first).to_have_attribute("rel", re.compile("noopener"))
    # What models write is shown, and does nothing.
    await expect(answer).to_contain_text('<script>window.ran = "script"</script>')
    await expect(answer.locator("script, img, [onerror], a[href^=javascript]")).to_have_count(0)
    await expect(card(page, "d?tps=2")).to_contain_text("<script>")
    assert await page.evaluate("window.ran") is None

    await card(page, "d?tps=2").click()
    await expect(page.locator("#full")).to_be_visible()
    await expect(page.locator("#full-text")).to_have_text(TRAP)
    assert await page.evaluate("window.ran") is None
    await page.keyboard.press("Escape")
    await expect(page.locator("#full")).to_be_hidden()


async def test_a_thread_has_turns_and_a_reload_restores_it(open_page, assistant):
    page = await open_page(await assistant("openai:a", "openai:b?status=400", layers=3))
    await ask(page)
    await answered(page)
    await expect(page.locator(".answer")).to_contain_text(f"agg: {QUESTION}")
    await ask(page, "And at night?")
    await expect(page.locator(".answer").nth(1)).to_contain_text("agg: And at night?")
    await answered(page)

    async def shown() -> list[str]:
        texts = page.locator(".question, .card, .answer .markdown, .decisions")
        known = [re.sub(r" · \d+ tokens?", "", text) for text in await texts.all_text_contents()]
        return [text.strip() for text in known]

    before = await shown()
    assert len(before) == 2 * (1 + 4 + 1 + 1)
    await page.reload()
    await expect(page.locator(".answer")).to_have_count(2)
    await expect(page.locator(".answer").nth(1)).to_contain_text("agg: And at night?")
    await expect(page.locator(".card")).to_have_count(8)
    await expect(page.locator(".footer")).to_have_count(2)
    assert await shown() == before
    await page.click("#new")
    await expect(page.locator(".turn")).to_have_count(0)


async def test_a_reload_in_mid_run_follows_it_to_its_end(open_page, assistant):
    page = await open_page(await assistant("openai:a?tps=3", "openai:b?tps=3"))
    await ask(page)
    await expect(card(page, "a?tps=3").locator(".text")).not_to_be_empty()
    await page.reload()
    await expect(page.locator(".question")).to_have_text(QUESTION)
    await expect(page.locator(".answer")).to_contain_text(f"agg: {QUESTION}", timeout=15_000)
    await expect(card(page, "b?tps=3")).to_contain_text(f"b: {QUESTION}")
    await expect(page.locator("#send")).to_be_visible()


async def test_stop_closes_the_requests(open_page, assistant, server):
    page = await open_page(await assistant("openai:a?tps=2", "openai:b?hang"))
    await ask(page)
    await expect(card(page, "a?tps=2").locator(".text")).not_to_be_empty()
    await page.click("#stop")
    await expect(page.locator("#send")).to_be_visible()
    await expect(card(page, "b?hang")).to_have_attribute("data-state", "stopped")
    await eventually(lambda: all(call.disconnected for call in server.calls))
    assert server.of("agg") == []
    await ask(page, "Still there?")
    await expect(page.locator(".turn")).to_have_count(2)


async def test_a_failed_run_says_why(open_page, assistant):
    page = await open_page(await assistant("openai:a?status=400"))
    await ask(page)
    await expect(page.locator(".problem")).to_contain_text("gave 0 usable proposals of 1")
    await expect(page.locator("#send")).to_be_visible()


async def test_it_fits_and_can_be_read(open_page, assistant, tmp_path):
    page = await open_page(
        await assistant("openai:a", "openai:b?status=400", "openai:" + "long-" * 30, layers=3)
    )
    await ask(page, "unbroken" * 40)
    await answered(page)
    await expect(page.locator(".answer")).to_be_visible()
    await open_panel(page)
    for width in (375, 1280, 3840):
        await page.set_viewport_size({"width": width, "height": 812})
        sizes = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert sizes[0] <= sizes[1]
        for scheme in ("light", "dark"):
            await page.emulate_media(color_scheme=scheme)
            await page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
            for element in (".card .facts", ".card .text", ".question", ".answer .by", "#send"):
                assert await page.locator(element).first.evaluate(CONTRAST) >= 4.5, element


async def test_the_keyboard_and_a_screen_reader_reach_everything(open_page, assistant):
    page = await open_page(await assistant("openai:a", "openai:b?status=400"))
    await expect(page.locator("#question")).to_be_focused()
    await ask(page)
    await expect(page.locator("#send")).to_be_visible()
    await expect(page.locator("#status")).to_have_text("Done.")
    await open_panel(page)
    for role, name in (
        ("combobox", "Assistant"),
        ("textbox", "Your question"),
        ("button", "New thread"),
        ("region", "Layer 1"),
        ("region", "Answer"),
        ("main", "Conversation"),
    ):
        await expect(page.get_by_role(role, name=name)).to_be_visible()
    await page.keyboard.press("Escape")
    failed = page.get_by_role("button", name=re.compile("b.status=400 failed"))
    await failed.focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog", name="b?status=400, layer 1")).to_be_visible()
    await expect(page.locator("#full-text")).to_contain_text("the server said 400")
    await page.keyboard.press("Escape")
    await expect(failed).to_be_focused()


async def test_a_server_with_keys_asks_for_one(browser, server, tmp_path):
    key = "alice-0123456789abcdef"
    settings = {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "sk-test-0123456789"}
    settings |= {"MOA_API_KEYS": f"alice={key}", "MOA_ALLOWED_MODELS": "openai:*"}
    with langgraph_dev(tmp_path, "--n-jobs-per-worker", "10", **settings) as guarded:
        async with get_client(url=guarded.url, api_key=key) as client:
            made = {"proposers": ["openai:a"], "aggregator": "openai:agg"}
            which = (await client.assistants.create("mixture", context=made))["assistant_id"]
        page = await browser.new_page()
        await page.goto(f"{guarded.url}/moa?assistant={which}")
        dialog = page.get_by_role("dialog", name="An API key, please")
        await expect(dialog).to_contain_text("An API key of this server is required")
        await page.get_by_role("textbox", name="API key of this server").fill(
            "wrong-0123456789abcdef"
        )
        await page.keyboard.press("Enter")
        await expect(dialog).to_contain_text("Invalid API key for this server")
        await page.screenshot(path=tmp_path / "key.png")
        await page.get_by_role("textbox", name="API key of this server").fill(key)
        await page.keyboard.press("Enter")
        await expect(page.locator("#assistant")).to_have_value(which)
        await ask(page)
        await expect(page.locator(".answer")).to_contain_text(f"agg: {QUESTION}")
        await page.reload()
        await expect(page.locator(".answer")).to_contain_text(f"agg: {QUESTION}")
        await expect(dialog).to_be_hidden()
        assert key not in page.url
        await page.close()


CONTRAST = """element => {
  // WCAG 2.2, 1.4.3: the contrast of a text with what is behind it.
  const parse = (color) => {
    const context = new OffscreenCanvas(1, 1).getContext("2d");
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => v / 255).map(
      (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  let behind = element;
  while (parse(getComputedStyle(behind).backgroundColor)[3] < 255) behind = behind.parentElement;
  const [a, b] = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor]
    .map((color) => luminance(parse(color)));
  return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
}"""
