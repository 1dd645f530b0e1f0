"""The live page in a browser: what several tests do with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from playwright.async_api import Page, expect

QUESTION = "What are 3 fun things to do in SF?"
OpenPage = Callable[..., Awaitable[Page]]
Create = Callable[..., Awaitable[str]]


async def ask(page: Page, question: str = QUESTION) -> None:
    """Ask as a reader does."""
    await page.fill("#question", question)
    await page.press("#question", "Enter")


async def answered(page: Page, milliseconds: float = 20_000) -> None:
    """Wait until the run has ended."""
    await expect(page.locator("body")).not_to_have_class("busy", timeout=milliseconds)
    await expect(page.locator("#send")).to_be_visible(timeout=milliseconds)


def card(page: Page, proposer: str, layer: int = 1):
    return page.locator(f'.turn:last-child [data-node="layer_{layer}_{proposer}"]')


async def open_panel(page: Page) -> None:
    """Open the proposals of the last turn, which are collapsed once there is an answer."""
    panel = page.locator(".turn:last-child .panel")
    if await panel.get_attribute("open") is None:
        await panel.locator("summary").click()
