from __future__ import annotations

from typing import Any

import httpx
import pytest
from langchain.chat_models import init_chat_model
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import ConfigurableField
from pydantic import Field, PrivateAttr, field_validator, model_validator

from moa_graph import AggregationFailed, ChatMoA, MoAContext, RunLimits, create_moa
from moa_graph.calling.retries import can_pass
from moa_graph.errors import status_of
from moa_graph.models import Settings, with_settings
from tests.mock_openai import completion, mock_openai, refusal

REFUSALS = {  # of a setting, what providers say
    "OpenAI": "Unsupported value: 'temperature' does not support 0.7 with this model. Only the "
    "default (1) value is supported.",
    "OpenAI, parameter": "Unsupported parameter: 'temperature' is not supported with this model.",
    "Anthropic": "`temperature` is deprecated for this model.",
    "Gemini": "Invalid value at 'generation_config.temperature': out of range",
    "vLLM": "temperature must be non-negative, got 0.7",
    "pydantic": "1 validation error: temperature: Extra inputs are not permitted",
    "bounds": "Temperature must be between 0 and 0.5",
    "apostrophe": "This model doesn't accept temperature",
    "fixed": "temperature is fixed to 1",
    "unknown field": "Unknown field: temperature",
}


def provider(sent: list[dict[str, Any]], refuses: dict[str, str]) -> Any:
    """A provider that refuses these settings, in these words."""

    def serve(body: dict[str, Any], size: int) -> httpx.Response:
        sent.append(body)
        for name, message in refuses.items():
            if body.get(name) is not None:
                return refusal(message)
        return completion("fine")

    return mock_openai(serve)


async def run(graph: Any, mode: str, **kwargs: Any) -> Any:
    given = {"messages": "hi"}
    return graph.invoke(given, **kwargs) if mode == "sync" else await graph.ainvoke(given, **kwargs)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("words", REFUSALS)
async def test_a_refused_setting_is_left_out_and_recorded(words, mode):
    sent: list[dict[str, Any]] = []
    model = provider(sent, {"temperature": REFUSALS[words]})
    moa = create_moa([model], model)
    context = MoAContext(proposer_temperature=0.7, aggregator_temperature=0.7)
    state = await run(moa, mode, context=context)
    (proposal,) = state["proposals"]
    assert proposal["status"] == "ok"
    assert proposal["dropped_settings"] == ["temperature"]
    assert proposal["attempts"] == 2
    record = state["messages"][-1].response_metadata["aggregator"]
    assert (record["dropped_settings"], record["attempts"]) == (["temperature"], 2)
    assert [body.get("temperature") for body in sent] == [0.7, None, 0.7, None]


async def test_settings_that_are_refused_one_by_one_are_left_out_one_by_one():
    sent: list[dict[str, Any]] = []
    refuses = {n: f"Unsupported parameter: '{n}'" for n in ("temperature", "top_p", "seed", "stop")}
    model = provider(sent, refuses)
    chat = ChatMoA(graph=create_moa([model], model), temperature=0, stop=["x"])
    message = await chat.ainvoke("hi", top_p=0.5, seed=1)
    record = message.response_metadata["moa"]["aggregator"]
    assert sorted(record["dropped_settings"]) == ["seed", "stop", "temperature", "top_p"]
    assert record["attempts"] == 5


async def test_the_limit_of_a_budget_is_left_out_where_it_is_refused():
    sent: list[dict[str, Any]] = []
    model = provider(sent, {"max_completion_tokens": "max_completion_tokens is not supported"})
    state = await run(create_moa([model], model, limits=RunLimits(tokens=5000)), "async")
    assert state["proposals"][0]["dropped_settings"] == ["max_tokens"]


async def test_a_refusal_by_a_fallback_is_seen():
    sent: list[dict[str, Any]] = []
    gone = mock_openai(lambda body, size: refusal("", 500), "gone", max_retries=0)
    model = gone.with_fallbacks([provider(sent, {"temperature": REFUSALS["OpenAI"]})])
    moa = create_moa([Strict()], model)
    state = await run(moa, "async", context=MoAContext(aggregator_temperature=0.7))
    assert state["messages"][-1].response_metadata["aggregator"]["dropped_settings"] == [
        "temperature"
    ]


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_model_that_is_chosen_when_it_is_called_takes_settings_and_tools(
    chat, server, mode, monkeypatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "x")
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    model = init_chat_model("openai:a", configurable_fields=("model",), config_prefix="m")
    tool = {"type": "function", "function": {"name": "search", "parameters": {}}}
    context = MoAContext(
        proposer_temperature=0.3,
        aggregator_temperature=0.4,
        aggregator_options={"tools": [tool]},
    )
    state = await run(create_moa([model], model), mode, context=context)
    assert state["messages"][-1].tool_calls
    assert [call.body["temperature"] for call in server.calls] == [0.3, 0.4]
    assert server.calls[1].body["tools"]


def test_one_that_takes_all_configuration_for_settings_is_refused():
    model = init_chat_model("openai:a", configurable_fields="any")
    with pytest.raises(ValueError, match="config_prefix"):
        create_moa([model], Strict())


def test_statuses_are_read_from_every_clients_error():
    class Google(Exception):
        code = 429

    class Botocore(Exception):
        response = {"ResponseMetadata": {"HTTPStatusCode": 503}}

    wrapped = RuntimeError("wrapped")
    wrapped.__cause__ = Google()
    assert [status_of(e) for e in (Google(), Botocore(), wrapped)] == [429, 503, 429]
    assert all(map(can_pass, (Google(), Botocore(), wrapped)))


@pytest.mark.parametrize(
    ("refuses", "model"),
    [
        ({"temperature": "no such model"}, {}),
        ({"temperature": "Unsupported parameter: 'top_p'"}, {}),
        ({"user": "Unknown field: user"}, {"model_kwargs": {"user": "me"}}),
    ],
    ids=["another reason", "another setting", "the model's own"],
)
async def test_other_refusals_are_not_asked_again(refuses, model):
    sent: list[dict[str, Any]] = []
    refusing = provider(sent, refuses).model_copy(update=model)
    moa = create_moa([Strict()], refusing)
    with pytest.raises(AggregationFailed):
        await run(moa, "async", context=MoAContext(aggregator_temperature=0.7))
    assert [body.get("temperature") for body in sent] == [0.7]


class Strict(BaseChatModel):
    """Drops, renames and bounds what it is given, as providers' classes do."""

    model: str = "strict"
    temperature: float | None = None
    max_output_tokens: int | None = None
    budget_of_words: int | None = None
    seen: list[Any] = Field(default_factory=list)
    _secret: str = PrivateAttr(default="")

    @field_validator("temperature")
    @classmethod
    def _bounded(cls, value: float | None) -> float | None:
        if value is not None and value > 1:
            raise ValueError("at most 1")
        return None if value == 0.7 else value

    @model_validator(mode="after")
    def _words(self) -> Strict:
        if self.max_output_tokens is not None:
            self.budget_of_words = self.max_output_tokens // 2
        return self

    @property
    def _llm_type(self) -> str:
        return "strict"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.seen.append(
            (self.temperature, self.max_output_tokens, self.budget_of_words, self._secret, kwargs)
        )
        return ChatResult(generations=[ChatGeneration(message=AIMessage("fine"))])


async def test_settings_go_through_the_classs_own_validation():
    model = Strict(temperature=0.2)
    model._secret = "kept"
    moa = create_moa([model], Strict())
    for context, expected in (
        ({"proposer_temperature": 0.5}, (0.5, None, None)),
        ({"proposer_temperature": 0.7}, (None, None, None)),
        ({"proposer_max_tokens": 8}, (0.2, 8, 4)),
        ({"proposer_max_tokens": 6}, (0.2, 6, 3)),
        ({}, (0.2, None, None)),
    ):
        await run(moa, "async", context=context)
        assert model.seen[-1][:4] == (*expected, "kept")
    assert (model.temperature, model.max_output_tokens) == (0.2, None)


def test_what_a_class_has_no_field_for_is_bound():
    model = Strict()
    with_settings(model, {"top_p": 0.5, "temperature": 0.1}).invoke("hi")
    assert model.seen[-1] == (0.1, None, None, "", {"top_p": 0.5})


@pytest.mark.parametrize(
    "model",
    [
        Strict().bind(temperature=0.1),
        Strict()
        .configurable_fields(temperature=ConfigurableField(id="t"))
        .with_config(configurable={"t": 0.9}),
        Strict().with_retry(),
        Strict().with_fallbacks([Strict()]),
        Strict().configurable_fields(model=ConfigurableField(id="model")),
        Strict().configurable_alternatives(ConfigurableField(id="which"), other=Strict()),
        Strict() | (lambda message: message),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_runs_setting_reaches_every_chat_model_inside(model):
    tuned = with_settings(model, {"temperature": 0.4})
    assert tuned.invoke("hi").text == "fine"
    found = [m for m in _models(tuned) if isinstance(m, Strict)]
    assert found
    assert all(m.temperature == 0.4 for m in found)
    seen = [entry for m in found for entry in m.seen]
    assert all(entry[4].get("temperature", 0.4) == 0.4 for entry in seen)


def _models(model: Any) -> list[Any]:
    from moa_graph.models import chat_models_in

    return list(chat_models_in(model))


def test_names_of_settings_are_told_from_words_that_contain_them():
    settings = Settings.of(temperature=0.7, stop=["x"], max_tokens=9)
    refused = ValueError("unexpected keyword argument 'temperatures'; stopped; max_tokens_limit")
    assert settings.refused(refused) == set()
    assert settings.refused(TypeError("got an unexpected keyword argument 'stop'")) == {"stop"}
    assert settings.refused(RuntimeError("unsupported: temperature")) == set()
