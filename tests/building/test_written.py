"""What is written into the state from outside: a wrong value leaves the thread as it was."""

from __future__ import annotations

import re

import pytest
from langchain_core.language_models import FakeListChatModel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, Overwrite, StateUpdate

from moa_graph import create_moa

WHOLE = {
    "layer": 1, "proposer": "a", "model": "m", "content": "x", "status": "ok", "error": None,
    "usage": None, "latency": 0, "attempts": 1,
}  # fmt: skip
WRONG = {
    "a number": ({"proposals": 5}, "proposals must be a list of records, not 5."),
    "a text": ({"proposals": "x"}, "proposals must be a list"),
    "an object": ({"proposals": {"layer": 1}}, "proposals must be a list"),
    "numbers": ({"proposals": [5]}, "proposals.0 must be an object, not 5."),
    "nothing": ({"proposals": [None]}, "proposals.0 must be an object"),
    "no field": ({"proposals": [{}]}, "proposals.0 must have `layer`, `proposer` and `content`"),
    "no text": ({"proposals": [{"layer": 1, "proposer": "a"}]}, "proposals.0 must have"),
    "layer": ({"proposals": [{**WHOLE, "layer": "1"}]}, "proposals.0.layer: "),
    "content": ({"proposals": [WHOLE, {**WHOLE, "content": 5}]}, "proposals.1.content: "),
    "status": ({"proposals": [{**WHOLE, "status": "odd"}]}, "proposals.0.status: "),
    "usage": ({"proposals": [{**WHOLE, "usage": 5}]}, "proposals.0.usage: "),
    "turn": ({"proposals": [{**WHOLE, "turn": "x"}]}, "proposals.0.turn: "),
    "overwritten": ({"proposals": Overwrite([5])}, "proposals.0 must be an object"),
    "a part overwritten": ({"proposals": Overwrite([{"id": "x"}])}, "proposals.0.layer: Field"),
    "in JSON": ({"proposals": {"__overwrite__": [5]}}, "proposals.0 must be an object"),
    "typed in JSON": (
        {"proposals": {"type": "__overwrite__", "value": 5}},
        "proposals must be a list",
    ),
    "decisions": ({"decisions": [{"step": "route"}]}, "decisions.0.layer: Field required."),
    "decision": ({"decisions": [5]}, "decisions.0 must be an object"),
    "drafts": ({"drafts": [5]}, "drafts must be an object of records by node"),
    "draft": ({"drafts": {"a": 5}}, "drafts.a must be an object"),
    "a number as messages": ({"messages": [5]}, "`messages` must be a text"),
    "role": ({"messages": [{"role": "nobody", "content": "x"}]}, "`messages` must be a text"),
}
RIGHT = {
    "whole": {"proposals": [WHOLE]},
    "a new one": {"proposals": [{"layer": 1, "proposer": "x", "content": "y"}]},
    "unknown id": {"proposals": [{"id": "nothing", "content": "y"}]},
    "none": {"proposals": []},
    "more fields": {"proposals": [{**WHOLE, "note": {"a": 1}}]},
    "overwritten": {"proposals": Overwrite([WHOLE])},
    "a message": {"messages": [{"role": "user", "content": "x"}]},
}


@pytest.fixture
async def thread():
    models = [FakeListChatModel(responses=[text]) for text in "ab"]
    moa = create_moa(models, FakeListChatModel(responses=["z"]), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    await moa.ainvoke({"messages": "hi"}, config)
    return moa, config


WAYS = {
    "input": lambda moa, config, given: moa.invoke({"messages": "x", **given}, config),
    "command": lambda moa, config, given: moa.invoke(Command(update=given), config),
    "pairs": lambda moa, config, given: moa.invoke(Command(update=[*given.items()]), config),
    "state": lambda moa, config, given: moa.update_state(config, given, as_node="__start__"),
    "state as a command": lambda moa, config, given: moa.update_state(
        config, Command(update=given), as_node="__start__"
    ),
    "many": lambda moa, config, given: moa.bulk_update_state(
        config, [[StateUpdate(given, "__start__")]]
    ),
}
ASYNC_WAYS = {
    "input": lambda moa, config, given: moa.ainvoke({"messages": "x", **given}, config),
    "command": lambda moa, config, given: moa.ainvoke(Command(update=given), config),
    "state": lambda moa, config, given: moa.aupdate_state(config, given, as_node="__start__"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_wrong_value_is_refused_and_the_thread_goes_on(thread, what):
    moa, config = thread
    given, says = WRONG[what]
    before = moa.get_state(config).values
    for write in WAYS.values():
        with pytest.raises(ValueError, match=re.escape(says)):
            write(moa, config, given)
    for write in ASYNC_WAYS.values():
        with pytest.raises(ValueError, match=re.escape(says)):
            await write(moa, config, given)
    assert moa.get_state(config).values == before
    assert moa.invoke({"messages": "again"}, config)["messages"][-1].text == "z"


@pytest.mark.parametrize("what", RIGHT)
@pytest.mark.parametrize("way", WAYS)
async def test_others_are_written(thread, way, what):
    moa, config = thread
    WAYS[way](moa, config, RIGHT[what])
    assert moa.get_state(config).values["messages"]
    assert moa.invoke({"messages": "again"}, config)["messages"][-1].text == "z"


async def test_an_edit_of_a_proposal_that_is_not_there_is_told(thread, caplog):
    moa, config = thread
    before = moa.get_state(config).values["proposals"]
    moa.update_state(config, {"proposals": [{"id": "nothing", "content": "y"}]})
    assert moa.get_state(config).values["proposals"] == before
    assert "An edit of a proposal that is not there is ignored" in caplog.text
