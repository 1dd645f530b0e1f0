from __future__ import annotations

import operator
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TypedDict

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import ConfigurableField, Runnable, RunnableLambda
from langchain_core.runnables.retry import RunnableRetry
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from langgraph.cache.memory import InMemoryCache
from pydantic import BaseModel, Field, PrivateAttr

from moa_graph import ChatMoA, Proposer, create_moa
from moa_graph.models.fingerprint import NotFingerprintable, fingerprint


class Fake(BaseChatModel):
    """Answers with all that it is given."""

    model_name: str = "fake"
    temperature: float | None = None
    tags_shown: list[str] = Field(default_factory=list)
    seen: list[Any] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.seen.append(messages)
        said = [self.model_name, str(self.temperature), str(self.tags_shown), str(stop)]
        said += [m.text for m in messages] + [f"{k}={v}" for k, v in sorted(kwargs.items())]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(" | ".join(said)))])

    def bind_tools(self, tools, **kwargs):
        return self.bind(tools=tools, **kwargs)


class Other(Fake):
    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage("other"))])


class Hidden(Fake):
    _voice: str = PrivateAttr(default="low")

    @classmethod
    def of(cls, voice: str) -> Hidden:
        model = cls()
        model._voice = voice
        return model


class City(BaseModel):
    name: str


class Town(BaseModel):
    name: str
    size: int


class Village(TypedDict):
    name: str


@tool
def search(query: str) -> str:
    """Search the web."""
    return query


@tool("search")
def search_news(query: str) -> str:
    """Search the news."""
    return query


def openai(**kwargs: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **{"model": "a", "api_key": "x", "base_url": "http://127.0.0.1:9/v1"} | kwargs
    )


def chain(*messages: tuple[str, str], **partial: str) -> Runnable[Any, Any]:
    return ChatPromptTemplate(list(messages)).partial(**partial) | Fake()


def local_class(answer: str) -> BaseChatModel:
    class Local(Fake):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            return ChatResult(generations=[ChatGeneration(message=AIMessage(answer))])

    return Local()


configurable = Fake().configurable_fields(temperature=ConfigurableField(id="t"))
MODULE_NUMBER = 1


def helper() -> str:
    return "low"


class Helped(Fake):
    """Answers by what stands around it."""

    examples: list[str] = ["a"]

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return super()._generate([*messages, AIMessage(helper() * MODULE_NUMBER)], stop)


class Reordered(BaseModel):
    size: int
    name: str


class Ordered(BaseModel):
    name: str
    size: int


DIFFERENT = {  # what is changed: makes models that may all answer differently
    "model": lambda: [Fake(), Fake(model_name="b")],
    "temperature": lambda: [Fake(), Fake(temperature=0), Fake(temperature=0.5)],
    "a list": lambda: [Fake(), Fake(tags_shown=["x"]), Fake(tags_shown=["x", "y"])],
    "the class": lambda: [Fake(), Other()],
    "a private attribute": lambda: [Hidden.of("low"), Hidden.of("high")],
    "variables around a class": lambda: [local_class("a"), local_class("b")],
    "fields of OpenAI's": lambda: [
        openai(),
        openai(model="b"),
        openai(temperature=1),
        openai(base_url="http://127.0.0.1:8/v1"),
        openai(seed=1),
        openai(model_kwargs={"user": "me"}),
        openai(extra_body={"top_k": 1}),
        openai(stop=["x"]),
        openai(max_tokens=9),
        openai(reasoning_effort="low"),
    ],
    "bound arguments": lambda: [
        Fake(),
        Fake().bind(temperature=0.1),
        Fake().bind(temperature=0.9),
        Fake().bind(stop=["x"]),
        Fake().bind(stop=["y"]),
        Fake().bind(stop=["x"], temperature=0.1),
    ],
    "tools": lambda: [
        Fake(),
        Fake().bind_tools([search]),
        Fake().bind_tools([search_news]),
        Fake().bind_tools([search, search_news]),
        Fake().bind_tools([search], tool_choice="any"),
        openai().bind_tools([search]),
        openai().bind_tools([search_news]),
    ],
    "a schema": lambda: [
        openai(),
        *[openai().with_structured_output(schema) for schema in (City, Town, Village)],
        openai().with_structured_output(City, method="function_calling"),
        openai().with_structured_output(City, include_raw=True),
    ],
    "the order of a schema": lambda: [
        openai().with_structured_output(schema) for schema in (Ordered, Reordered)
    ],
    "a library's function": lambda: [
        openai() | RunnableLambda(operator.methodcaller(name)) for name in ("upper", "lower")
    ],
    "an argument with a name of plumbing": lambda: [
        Fake().bind(profile="a"),
        Fake().bind(profile="b"),
        Fake().bind(metadata={"a": 1}),
    ],
    "a retry's arguments": lambda: [
        RunnableRetry(bound=Fake(), kwargs={"stop": [stop]}) for stop in "ab"
    ],
    "a template": lambda: [
        chain(("system", "pirate"), ("human", "{q}")),
        chain(("system", "poet"), ("human", "{q}")),
        chain(("human", "{q}")),
        chain(("human", "{q}!")),
        chain(("system", "{who}"), ("human", "{q}"), who="pirate"),
        chain(("system", "{who}"), ("human", "{q}"), who="poet"),
        chain(("system", "Pirat"), ("human", "{q}")),
    ],
    "fallbacks and their order": lambda: [
        Fake(),
        Fake().with_fallbacks([Other()]),
        Other().with_fallbacks([Fake()]),
        Fake().with_fallbacks([Other(), Fake(model_name="b")]),
        Fake().with_fallbacks([Fake(model_name="b"), Other()]),
        Fake().with_fallbacks([Other()], exceptions_to_handle=(ValueError,)),
    ],
    "the configuration": lambda: [
        configurable,
        configurable.with_config(configurable={"t": 0.1}),
        configurable.with_config(configurable={"t": 0.9}),
    ],
    "what can be chosen": lambda: [
        Fake().configurable_alternatives(ConfigurableField(id="who"), b=Other()),
        Fake().configurable_alternatives(ConfigurableField(id="who"), b=Fake(model_name="b")),
        Fake().configurable_alternatives(ConfigurableField(id="who"), default_key="x", b=Other()),
    ],
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_models_that_may_answer_differently_never_share_a_fingerprint(what):
    prints = []
    for model in DIFFERENT[what]():
        try:
            prints.append(fingerprint(model))
        except NotFingerprintable:
            prints.append(str(id(model)))
    assert len(set(prints)) == len(prints)


@pytest.mark.parametrize("what", [w for w in DIFFERENT if w != "the configuration"])
def test_a_model_that_is_built_again_has_the_same_fingerprint(what):
    first, second = DIFFERENT[what](), DIFFERENT[what]()
    for one, again in zip(first, second, strict=True):
        assert fingerprint(one) == fingerprint(again), one


@pytest.mark.parametrize(
    "change",
    [
        lambda patch, here: patch.setattr(here, "MODULE_NUMBER", 2),
        lambda patch, here: patch.setattr(here, "helper", lambda: "high"),
        lambda patch, here: patch.setattr(Helped.model_fields["examples"], "default", ["b"]),
    ],
    ids=["a number", "a function", "a default"],
)
def test_what_stands_around_a_class_of_the_users_counts(change, monkeypatch):
    before = fingerprint(Helped())
    change(monkeypatch, sys.modules[__name__])
    with suppress(NotFingerprintable):
        assert fingerprint(Helped()) != before


def test_where_a_provider_is_counts(monkeypatch):
    prints = set()
    for url in ("http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"):
        monkeypatch.setenv("OPENAI_BASE_URL", url)
        prints.add(fingerprint(ChatOpenAI(model="a", api_key="x")))
    assert len(prints) == 2


def test_a_setting_whose_name_begins_as_langgraphs_do_counts():
    model = Fake().configurable_fields(model_name=ConfigurableField(id="checkpoint_name"))
    prints = {fingerprint(model, {"configurable": {"checkpoint_name": n}}) for n in "ab"}
    assert len(prints) == 2


def test_the_users_key_does_not_hide_settings_of_the_run():
    model = RunnableLambda(shout)
    moa = create_moa([Proposer(Fake() | model, cache_key="v1")], Fake(), cache=InMemoryCache())
    cached = [
        moa.invoke({"messages": "hi"}, context={"proposer_temperature": t})["proposals"][0].get(
            "cached", False
        )
        for t in (0.0, 1.0, 0.0)
    ]
    assert cached == [False, False, True]


def test_what_does_not_shape_an_answer_does_not_count():
    plain = fingerprint(openai())
    for model in (
        openai(api_key="another"),
        openai(timeout=3),
        openai(max_retries=7),
        openai(streaming=True),
        openai(metadata={"a": 1}, tags=["b"]),
        openai().with_retry(stop_after_attempt=9),
    ):
        assert fingerprint(model) == plain
    tagged = openai().with_config(tags=["x"], run_name="y", metadata={"z": 1})
    assert fingerprint(tagged) == fingerprint(openai().with_config(tags=["other"]))


def test_what_a_run_chooses_counts():
    chosen = {
        fingerprint(configurable, {"configurable": given})
        for given in ({}, {"t": 0.1}, {"t": 0.9}, {"t": 0.1, "thread_id": "1"})
    }
    assert len(chosen) == 3


def test_a_log_that_a_model_keeps_is_no_setting():
    model = Fake()
    before = fingerprint(model)
    model.invoke("hi")
    assert model.seen
    assert fingerprint(model) == before


def shout(messages: Any) -> str:
    return "A"


class OwnRunnable(Runnable[Any, str]):
    def invoke(self, input: Any, config: Any = None, **kwargs: Any) -> str:
        return "own"


UNKNOWN = {  # what nobody can tell apart from outside
    "an agent": lambda: create_agent(Fake(), system_prompt="pirate"),
    "a mixture": lambda: create_moa([Fake()], Fake()),
    "a mixture as a chat model": lambda: ChatMoA(graph=create_moa([Fake()], Fake())),
    "a function": lambda: RunnableLambda(shout),
    "a lambda": lambda: RunnableLambda(lambda _: "A"),
    "a Runnable of one's own": OwnRunnable,
    "a function behind a model": lambda: Fake() | shout,
    "an agent as a fallback": lambda: Fake().with_fallbacks([create_agent(Fake())]),
    "a template with the time": lambda: (
        ChatPromptTemplate([("system", "{now}"), ("human", "{q}")]).partial(now=time.ctime) | Fake()
    ),
    "a listener": lambda: Fake().with_listeners(on_start=print),
    "an object in a field": lambda: Fake(tags_shown=[]).bind(voice=object()),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_cannot_be_told_apart_has_none(what):
    with pytest.raises(NotFingerprintable):
        fingerprint(UNKNOWN[what]())


@pytest.mark.parametrize("what", [*UNKNOWN])
def test_and_is_cached_only_by_a_key_of_the_users(what, caplog):
    caplog.clear()
    cache, model = InMemoryCache(), UNKNOWN[what]()
    graph = create_moa([Proposer(model, name="p")], Fake(), cache=cache)
    assert [r.message for r in caplog.records if "not cached" in r.message and "p:" in r.message]
    keyed = create_moa([Proposer(model, name="p", cache_key="v1")], Fake(), cache=cache)
    assert len([r for r in caplog.records if "not cached" in r.message]) == 1
    if what == "an object in a field":
        return
    for moa, cached in ((graph, False), (graph, False), (keyed, False), (keyed, True)):
        (proposal,) = moa.invoke({"messages": "hi"})["proposals"]
        assert proposal.get("cached", False) is cached
    other = create_moa([Proposer(model, name="p", cache_key="v2")], Fake(), cache=cache)
    assert "cached" not in other.invoke({"messages": "hi"})["proposals"][0]


@pytest.mark.parametrize(
    ("key", "error"), [(3, TypeError), ("", ValueError), (" ", ValueError)], ids=repr
)
def test_a_wrong_key_is_refused(key, error):
    with pytest.raises(error, match="cache_key"):
        Proposer(Fake(), cache_key=key)


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from tests.models.test_fingerprint import DIFFERENT, fingerprint
for what, make in DIFFERENT.items():
    for model in make():
        print(fingerprint(model))
"""


def test_another_process_has_the_same_fingerprints():
    root = str(Path(__file__).parents[2])
    run = [sys.executable, "-c", SCRIPT.format(root=root)]
    said = {
        subprocess.run(
            run, check=True, capture_output=True, text=True, env={"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert len(said) == 1
