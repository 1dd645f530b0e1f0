"""Keys of providers: which are needed, and that none is sent to another provider."""

from __future__ import annotations

import importlib.util

import pytest
from langchain_openai import ChatOpenAI

from moa_graph import MoAError
from moa_graph.models import Model, build_chat_model
from moa_graph.models.providers import PROVIDERS, check_own_key

OPENAI = "sk-openai-0123456789"


@pytest.fixture(autouse=True)
def _openai_key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", OPENAI)


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(PROVIDERS[name].package.replace("-", "_")) is not None


@pytest.mark.parametrize("name", [n for n in PROVIDERS if n not in ("openai", "bedrock_converse")])
def test_a_model_without_its_own_key_is_refused(monkeypatch, name):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://nowhere.example.com")
    if not is_installed(name):
        with pytest.raises(ValueError, match=f"pip install {PROVIDERS[name].package}"):
            Model(f"{name}:some-model", "proposers[0]")
        return
    model = Model(f"{name}:some-model", "proposers[0]")
    with pytest.raises(MoAError, match=f"set {PROVIDERS[name].keys[0][0]} ") as caught:
        model.get()
    assert OPENAI not in str(caught.value)


@pytest.mark.parametrize("blank", ["", "  "])
def test_a_blank_key_is_no_key(monkeypatch, blank):
    monkeypatch.setenv("TOGETHER_API_KEY", blank)
    with pytest.raises(MoAError, match="set TOGETHER_API_KEY"):
        Model("together:x", "aggregator").get()


def test_a_token_of_azure_is_used_without_the_key_of_openai(monkeypatch):
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", "https://nowhere.example.com")
    monkeypatch.setenv("AZURE_OPENAI_AD_TOKEN", "token-0123456789")
    model = build_chat_model("azure_openai:my-gpt")
    assert OPENAI not in str(model.root_client.auth_headers)
    assert model.openai_api_key is None
    assert model.openai_api_version


def test_a_key_in_the_arguments_needs_no_variable(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert build_chat_model("openai:x", {"api_key": "sk-mine-0123456789"})
    assert build_chat_model("together:x", {"together_api_key": "tgp-mine-0123456789"})


def test_another_way_to_sign_in_is_left_to_the_package(monkeypatch):
    provider = PROVIDERS["anthropic"]
    assert provider.missing_in({}) == ("ANTHROPIC_API_KEY",)
    assert provider.missing_in({"ANTHROPIC_AUTH_TOKEN": "x"}) == ()
    assert provider.missing_in({"LANGSMITH_GATEWAY": "true"}) == ()


def test_a_client_derived_from_openais_may_not_send_openais_key(monkeypatch):
    """As that of a provider that is not in the table, such as Perplexity."""
    derived = ChatOpenAI(model="x", base_url="https://nowhere.example.com")
    with pytest.raises(MoAError, match="would send OPENAI_API_KEY to another provider") as caught:
        check_own_key("perplexity:x", {}, derived)
    assert OPENAI not in str(caught.value)
    check_own_key("openai:x", {}, derived)
    check_own_key("perplexity:x", {"pplx_api_key": OPENAI}, derived)
    monkeypatch.setenv("PPLX_API_KEY", OPENAI)
    check_own_key("perplexity:x", {}, derived)
