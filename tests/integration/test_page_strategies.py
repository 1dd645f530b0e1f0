"""The live page shows the answer and the decisions of every strategy, without a reload."""

from __future__ import annotations

import asyncio
import json

import pytest
from playwright.async_api import expect

from moa_graph.strategies.names import STRATEGIES
from tests.integration.pages import answered, ask, card, open_panel

pytestmark = pytest.mark.services

SAYS = {
    "five": "It is 5", "four": "It is 4", "also-four": "So 4", "just-4": "4", "4-as-well": "4",
    "cats": "red cats sleep", "cats-well": "red cats sleep well", "x": "x",
    "second": "2", "yes": "yes", "no": "no", "writes": "four it is",
}  # fmt: skip
"""What models answer, by their names; the others repeat the question."""
A, B, C = "openai:a", "openai:b", "openai:c"
SECOND, NO, YES = "openai:second", "openai:no", "openai:yes"
PAIR = {"proposers": [A, B]}
SAME = ["openai:just-4", "openai:4-as-well"]


def _selected(*proposers, **select):
    return {"proposers": [{"proposers": list(proposers or (A, B)), "select": [select]}]}


def _until(*proposers, **until):
    return {"proposers": [{"proposers": list(proposers or (A, B)), "until": until}, [C]]}


STRATEGIES_SHOWN = {
    # name: (mixture, the answer, words of the decisions)
    "synthesis": (PAIR, "agg: 4?", []),
    "rank": (
        {**PAIR, "aggregator": {"strategy": "rank", "judge": SECOND}},
        "b: 4?", ["b was chosen.", "Left out: a", "a judge’s verdict"],
    ),
    "vote": (
        {
            "proposers": ["openai:five", "openai:four", "openai:also-four"],
            "aggregator": {"strategy": "vote", "parse": "number"},
        },
        "It is 4", ["four and also-four gave the chosen answer.", "Left out: five"],
    ),
    "most_central": (
        {"proposers": ["openai:cats", "openai:cats-well", "openai:x"], "aggregator": "most_central"},
        "red cats sleep", ["cats was chosen.", "the proposals’ similarity"],
    ),
    "peer_review": (
        {"proposers": [A, B, C], "aggregator": "peer_review"}, "a: 4?",
        ["a was chosen.", "Scores:"],
    ),
    "analyse": (
        {**PAIR, "aggregator": {"strategy": "analyse", "analyst": C, "writer": "openai:agg"}},
        "agg: 4?", ["The proposals were analysed"],
    ),
    "self_moa_seq": (
        {
            "proposers": [{"model": A, "samples": 4}],
            "aggregator": {"strategy": "self_moa_seq", "writer": "openai:agg", "window": 2},
        },
        "agg: 4?", [],
    ),
    "dropout_and_vote": (
        {
            "proposers": [A, B, C],
            "aggregator": {"strategy": "dropout_and_vote", "writer": "openai:agg"},
        },
        "agg: 4?", ["gave the chosen answer."],
    ),
    "dropout_and_cluster": (
        {
            "proposers": [A, B, C],
            "aggregator": {"strategy": "dropout_and_cluster", "writer": "openai:agg"},
        },
        "agg: 4?", ["subset_1 was chosen."],
    ),
    "top_k": (
        _selected(strategy="top_k", k=1, judge=SECOND), "agg: 4?",
        ["Kept of layer 1: b.", "Left out: a"],
    ),
    "diverse": (_selected(strategy="diverse", k=1), "agg: 4?", ["Kept of layer 1:"]),
    "deduplicate": (
        _selected(*SAME, strategy="deduplicate"), "agg: 4?",
        ["Kept of layer 1: just-4.", "Left out: 4-as-well"],
    ),
    "shuffle": (_selected(strategy="shuffle"), "agg: 4?", ["Kept of layer 1:"]),
    "residual": (
        {"proposers": [[A, B], {"proposers": [A, B], "select": [{"strategy": "residual"}]}]},
        "agg: 4?", ["Kept of layer 2:"],
    ),
    "agree": (
        _until(*SAME, strategy="agree", then="answer"), "4",
        ["The proposals of layer 1 agree: just-4’s is the answer."],
    ),
    "similar": (
        _until(*SAME, strategy="similar", then="aggregate"), "agg: 4?",
        ["no further layer was asked"],
    ),
    "judged_agreement": (
        _until(strategy="judged_agreement", judge=NO), "agg: 4?", ["differ: the run went on"],
    ),
    "unchanged": (
        {
            "proposers": [
                ["openai:four", A],
                {"proposers": ["openai:four", A], "until": {"strategy": "unchanged", "then": "answer"}},
            ]
        },
        "It is 4", ["is the answer"],
    ),
    "route": (
        {**PAIR, "route": {"model": C, "samples": 2}}, "c: 4?",
        ["The first pass was sure, and answered alone."],
    ),
    "route to the mixture": (
        {**PAIR, "route": {"model": C, "judge": NO}}, "agg: 4?", ["The first pass was not sure"],
    ),
    "staircase": (
        {
            "proposers": ["openai:a?writes", "openai:b?writes"],
            "layers": 3,
            "aggregator": "openai:writes?writes",
            "progressive": "staircase",
        },
        "four it is", [],
    ),
}  # fmt: skip


def test_no_strategy_is_forgotten():
    shown = json.dumps([mixture for mixture, *_ in STRATEGIES_SHOWN.values()]) + str(
        list(STRATEGIES_SHOWN)
    )
    unseen = {"chunkwise", "tree", "cluster_and_filter"}  # experimental; no decision of their own
    for place in ("aggregator", "select", "until", "progressive"):
        assert {name for name in STRATEGIES[place] if name not in shown} <= unseen


async def test_every_strategy_shows_its_answer_and_decision(open_page, assistant, server):
    server.answers |= SAYS
    waiting = [
        (name, await assistant(**shown[0]), *shown[1:]) for name, shown in STRATEGIES_SHOWN.items()
    ]
    anyone = waiting[0][1]

    async def check(page, name, which, answer, decisions) -> None:
        await page.click("#new")
        await page.select_option("#assistant", which)
        await ask(page, "4?")
        await answered(page)
        await expect(page.locator(".turn .answer .markdown"), name).to_have_text(answer)
        await expect(page.locator(".turn .problem"), name).to_be_hidden()
        for words in decisions:
            await expect(page.locator(".turn .decisions"), name).to_contain_text(words)
        assert await page.locator('.card[data-state="waiting"]').count() == 0, name

    async def reader() -> None:
        page = await open_page(anyone)
        while waiting:
            await check(page, *waiting.pop())

    await asyncio.gather(*(reader() for _ in range(4)))


async def test_the_chosen_proposal_is_marked_and_the_others_say_why_not(
    open_page, assistant, server
):
    server.answers |= SAYS
    which = await assistant(A, B, aggregator={"strategy": "rank", "judge": SECOND})
    page = await open_page(which)
    await ask(page, "4?")
    await answered(page)
    await open_panel(page)
    await expect(card(page, "b")).to_have_attribute("data-verdict", "chosen")
    await expect(card(page, "a")).to_contain_text("left out: not chosen")
    await expect(page.locator(".answer .by")).to_have_text("b’s proposal of layer 1, word for word")


async def test_a_route_that_answers_alone_in_a_later_turn_shows_no_old_proposals(
    open_page, assistant, server
):
    which = await assistant(A, B, route={"model": C, "judge": "openai:judge"})
    page = await open_page(which)
    server.answers["judge"] = "no"
    await ask(page, "first?")
    await answered(page)
    server.answers["judge"] = "yes"
    await ask(page, "second?")
    await answered(page)
    for _ in range(2):  # as it is streamed, and as it is read again
        last = page.locator(".turn").nth(1)
        await expect(last.locator(".answer .markdown")).to_have_text("c: second?")
        await expect(last.locator(".card")).to_have_count(0)
        await expect(page.locator(".turn").first.locator(".card")).to_have_count(2)
        await page.reload()
