"""The live page for every reader: screens of all sizes, assistive technology, scripts, long threads."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from langgraph_sdk import get_client
from playwright.async_api import expect

from tests.integration.pages import answered, ask, open_panel

pytestmark = pytest.mark.services

MARKDOWN = """# Title

Text with $x^2$, `code` and a [link](https://example.org).

```python
def f(): return "a"  # b
```

| a | b |
|:-:|--:|
| 1 | $\\frac{1}{2}$ |

- [x] done
"""


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """The source of axe-core."""
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(
        ["npm", "install", "--silent", "--no-audit", "--no-fund", "axe-core@4"],
        cwd=folder, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    return Path(folder / "node_modules" / "axe-core" / "axe.min.js").read_text()


async def serious(page, axe: str) -> list[str]:
    """What axe-core finds that is serious, with the elements."""
    await page.evaluate(axe)
    said = []
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)
        found = await page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        assert len(found["passes"]) > 10
        said += [
            f"{scheme}, {one['id']}: {[node['html'][:150] for node in one['nodes']]}"
            for one in found["violations"]
            if one["impact"] in ("serious", "critical")
        ]
    return said


async def test_axe_finds_nothing_serious(open_page, assistant, server, axe):
    server.answers |= {"agg": MARKDOWN, "a": MARKDOWN, "judge": "1"}
    select = [{"strategy": "top_k", "k": 1, "judge": "openai:judge"}]
    layer = {"proposers": ["openai:a", "openai:b", "openai:c?status=400"], "select": select}
    page = await open_page(await assistant(layer))
    assert await serious(page, axe) == []
    await ask(page)
    await answered(page)
    await open_panel(page)
    await expect(page.locator(".answer .footer")).not_to_be_empty()
    assert await serious(page, axe) == []
    await page.get_by_role("button", name="Edit").click()
    await page.get_by_role("button", name="Compare layer 1").click()
    await expect(page.locator("#compare h1")).to_be_visible()
    assert await serious(page, axe) == []
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="History").click()
    await expect(page.locator("#history-list .entry").first).to_be_visible()
    assert await serious(page, axe) == []
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="Build").click()
    await expect(page.locator("#builder svg")).to_be_visible()
    for summary in await page.locator("#builder summary").all():
        await summary.click()
    assert await serious(page, axe) == []


async def test_right_to_left_and_chinese_are_read_as_they_are_written(open_page, assistant, server):
    arabic, chinese = "مرحبا بالعالم", "长" * 400
    server.answers |= {"agg": f"{arabic}\n\n- {arabic}\n\nEnglish\n\n{chinese}", "a": arabic}
    page = await open_page(await assistant("openai:a"), viewport={"width": 375, "height": 700})
    await ask(page, arabic)
    await answered(page)

    async def direction(selector: str) -> str:
        return await page.locator(selector).first.evaluate("e => getComputedStyle(e).direction")

    await expect(page.locator(".answer li")).to_have_text(arabic)
    for selector in (".question", ".answer p", ".answer li"):
        assert await direction(selector) == "rtl", selector
    assert await direction('.answer p:text("English")') == "ltr"
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await open_panel(page)
    await expect(page.locator(".card .text.markdown")).to_be_visible()
    assert await direction(".card .text p") == "rtl"


SUM = " + ".join(f"x_{{{i}}}^2" for i in range(60))
WIDE = f"""Inline ${SUM}$ and $x^2$, and in a line of its own $$ {SUM} $$ of a paragraph.

# Title ${SUM}$

- item \\({SUM}\\)

> quoted ${SUM}$

$$ {SUM} $$

| a | b |
|---|---|
| ${SUM}$ | 1 |
"""
CUT = """() => [...document.querySelectorAll(".answer math")].filter((math) => {
  // What is wider than the screen must be in a box that is not, and that scrolls.
  if (math.getBoundingClientRect().right <= innerWidth) return false;
  for (let box = math.parentElement; box !== document.body; box = box.parentElement) {
    const scrolls = ["auto", "scroll"].includes(getComputedStyle(box).overflowX);
    if (scrolls && box.getBoundingClientRect().right <= innerWidth) return false;
  }
  return true;
}).length"""


async def test_wide_formulas_scroll_on_a_narrow_screen(
    open_page, assistant, server, browser, axe, tmp_path
):
    server.answers["agg"] = WIDE
    narrow = {"width": 375, "height": 700}
    page = await open_page(await assistant("openai:a"), viewport=narrow)
    await ask(page)
    await answered(page)
    await expect(page.locator(".answer math")).to_have_count(8)
    assert await serious(page, axe) == []
    await page.locator(".menu summary").click()
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Save as a page to share").click()
    await (await download.value).save_as(tmp_path / "shared.html")
    context = await browser.new_context(viewport=narrow)
    shared = await context.new_page()
    await shared.goto((tmp_path / "shared.html").as_uri())
    for reader in (page, shared):
        assert await reader.locator(".answer math").count() == 8
        assert await reader.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert await reader.evaluate(CUT) == 0
    await context.close()


async def test_twelve_proposers_in_four_layers_fit(open_page, assistant):
    proposers = [f"openai:{letter}" for letter in "abcdefghijkl"]
    page = await open_page(await assistant(*proposers, layers=5))
    await ask(page)
    await answered(page)
    await open_panel(page)
    await expect(page.locator(".card")).to_have_count(48)
    for width in (375, 3840):
        await page.set_viewport_size({"width": width, "height": 900})
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        last = page.locator(".card").last
        await last.scroll_into_view_if_needed()
        await expect(last).to_be_in_viewport()


TURNS = 100
KEYSTROKES = """async () => {
  // The time from a key to the next frame, which a reader waits for; the median of several.
  const question = document.getElementById("question");
  const times = [];
  for (let i = 0; i < 15; i += 1) {
    const before = performance.now();
    question.value += "x";
    question.dispatchEvent(new InputEvent("input", { bubbles: true }));
    question.getBoundingClientRect();
    document.documentElement.scrollHeight;
    times.push(performance.now() - before);
    await new Promise((resume) => requestAnimationFrame(resume));
  }
  return times.sort((a, b) => a - b)[7];
}"""


async def test_a_long_thread_is_quick_to_type_in(open_page, assistant, langgraph_server):
    which = await assistant("openai:a")
    async with get_client(url=langgraph_server.url) as client:
        thread = (await client.threads.create(graph_id="mixture"))["thread_id"]
        messages = [
            {"role": role, "content": f"{role} {i}\n\n{MARKDOWN}"}
            for i in range(TURNS)
            for role in ("human", "ai")
        ]
        await client.threads.update_state(thread, {"messages": messages}, as_node="aggregator")
    page = await open_page(which)
    await page.goto(f"{langgraph_server.url}/moa?assistant={which}&thread={thread}")
    await expect(page.locator(".turn")).to_have_count(TURNS)
    await expect(page.locator(".turn").last.locator(".answer math")).to_have_count(2)
    assert await page.evaluate(KEYSTROKES) < 50  # milliseconds
    await page.fill("#question", "")
    await ask(page, "And now?")
    await answered(page)
    await expect(page.locator(".turn").last.locator(".answer")).to_contain_text("agg: And now?")
    await expect(page.locator(".turn")).to_have_count(TURNS + 1)
