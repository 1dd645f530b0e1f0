"""Errors about wrong names of models say the place once, wherever the name is."""

from __future__ import annotations

import re

import pytest
from pydantic import ValidationError

from moa_graph import create_moa
from moa_graph.evals.targets import of_model
from moa_graph.presets import Configuration

NAMES = {
    "": "has no provider",
    " ": "has no provider",
    ":": "has no provider",
    "::": "has no provider",
    ":gpt": "has no provider",
    "gpt": "has no provider",
    "openai:": "has no model",
    "openai: ": "has no model",
    "openai::": "has no model",
    "openai::gpt": "has two colons",
    "nobody:x": "unknown provider",
    "local:": "has no model",
    "local:nothing": "there is no local model",
}
GOOD = "local:smollm2-135m"


def described(**fields):
    return lambda name: Configuration(
        **{"proposers": [GOOD], "aggregator": GOOD} | {k: made(name) for k, made in fields.items()}
    ).create()


PLACES = {
    "create_moa": (lambda name: create_moa([name], GOOD), "proposers[0]: "),
    "create_moa's aggregator": (lambda name: create_moa([GOOD], name), "aggregator: "),
    "proposers": (described(proposers=lambda name: [name]), "proposers[0]: "),
    "proposer": (described(proposers=lambda name: [{"model": name}]), "proposers[0]: "),
    "aggregator": (described(aggregator=lambda name: name), "aggregator: "),
    "aggregator with settings": (
        described(aggregator=lambda name: {"model": name, "temperature": 0.5}),
        "aggregator: ",
    ),
    "judge": (
        described(aggregator=lambda name: {"strategy": "rank", "judge": name}),
        "Rank(judge=…): ",
    ),
    "judge with settings": (
        described(aggregator=lambda name: {"strategy": "rank", "judge": {"model": name}}),
        "aggregator: rank(judge=…): ",
    ),
    "route": (described(route=lambda name: {"model": name, "samples": 3}), "Route(model=…): "),
    "one model": (of_model, ""),
}


# A name without a colon is the name of a strategy there.
CASES = [(n, p) for n in NAMES for p in PLACES if ":" in n or "aggregator" not in p]


@pytest.mark.parametrize(("name", "place"), CASES)
def test_a_wrong_name_is_told_with_its_place(name, place):
    make, where = PLACES[place]
    with pytest.raises(ValueError, match=re.escape(where) + ".*" + NAMES[name]) as error:
        make(name)
    wrapped = isinstance(error.value, ValidationError)
    said = error.value.errors()[0]["msg"] if wrapped else str(error.value)
    said = said.removeprefix("Value error, ").replace(repr(name), "NAME")
    assert said.startswith(where)
    assert ("NAME" in said) or name.startswith("local:")
    assert not re.search(r"::|: :|^\s*:|\.\.", said), said


@pytest.mark.parametrize(
    ("aggregator", "says"),
    [
        ({}, "aggregator needs model"),
        ({"temperature": 1}, "aggregator needs model"),
        ({"model": 1}, "aggregator: model must be 'provider:model'"),
        ({"model": None}, "aggregator needs model"),
        ({"model": GOOD, "where": 1}, r"aggregator\(\) has no argument 'where'"),
        ({"strategy": "rank", "judge": {}}, r"rank\(judge=…\) needs model"),
    ],
)
def test_a_model_that_is_not_described_is_told(aggregator, says):
    with pytest.raises(ValueError, match=says):
        described(aggregator=lambda _: aggregator)("")
