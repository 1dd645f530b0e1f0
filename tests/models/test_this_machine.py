"""Requests to a server on this machine go to no proxy, whatever the environment says."""

from __future__ import annotations

import pytest

from moa_graph.models import Model
from moa_graph.models.this_machine import address_here, direct, is_here
from tests.fake_providers import FakeProviders

NOBODY = "http://127.0.0.1:9"
PROXIES = [
    {"http_proxy": NOBODY},
    {"HTTP_PROXY": NOBODY, "https_proxy": NOBODY},
    {"ALL_PROXY": NOBODY},
    {"ALL_PROXY": "socks5://127.0.0.1:9"},
    {"OPENAI_PROXY": NOBODY},
    {"OPENAI_PROXY": NOBODY, "ALL_PROXY": "socks5://127.0.0.1:9"},
]
DIRECT = ["openai", "azure_openai", "together"]


@pytest.fixture(scope="module")
def providers():
    with FakeProviders() as providers:
        yield providers


@pytest.fixture
def proxied(monkeypatch, request):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in request.param.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("proxied", PROXIES, indirect=True, ids=str)
@pytest.mark.parametrize("name", DIRECT)
async def test_a_base_url_in_the_environment_is_asked_directly(
    providers, proxied, monkeypatch, caplog, name
):
    for variable, value in providers.environment(name).items():
        monkeypatch.setenv(variable, value)
    model = await Model(f"{name}:gpt", "proposers[0]").here()
    assert (await model.ainvoke("hi")).text == f"{name} answers."
    assert model.invoke("hi").text == f"{name} answers."
    assert "".join([chunk.text async for chunk in model.astream("hi")]) == f"{name} answers."
    assert not caplog.records, "nothing is told about proxies that are not used"


@pytest.mark.parametrize("proxied", PROXIES, indirect=True, ids=str)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1"])
async def test_a_base_url_in_the_arguments_is_asked_directly(providers, proxied, host):
    url = f"http://{host}:{providers.port['vllm']}/v1"
    model = Model("openai:x", "aggregator", base_url=url, api_key="none", use_responses_api=False)
    assert (await (await model.here()).ainvoke("hi")).text == "vllm answers."


@pytest.mark.parametrize(
    ("params", "who"),
    [
        ({"base_url": "http://nowhere.example.com/v1"}, "groq"),
        ({"openai_proxy": "http://127.0.0.1:{port}"}, "groq"),
        ({}, "vllm"),
    ],
)
async def test_a_proxy_is_used_for_other_machines_and_where_it_is_an_argument(
    providers, monkeypatch, params, who
):
    providers.reset()
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    proxy = f"http://127.0.0.1:{providers.port['groq']}"
    monkeypatch.setenv("http_proxy", proxy)
    given = {"base_url": f"http://127.0.0.1:{providers.port['vllm']}/v1", **params}
    given = {name: value.format(port=providers.port["groq"]) for name, value in given.items()}
    model = Model("openai:x", "aggregator", api_key="none", use_responses_api=False, **given)
    await (await model.here()).ainvoke("hi")
    assert {asked.who for asked in providers.asked} == {who}


@pytest.mark.parametrize("name", ["openai", "azure_openai", "together", "deepseek", "xai"])
def test_arguments_are_those_of_the_family_of_openai(name, monkeypatch):
    monkeypatch.setenv("http_proxy", NOBODY)
    found = direct(name, {"base_url": "http://[::1]:1234/v1"}, {})
    assert found.keys() >= {"http_client", "http_async_client", "openai_proxy"}
    assert direct(name, {"base_url": "http://10.0.0.1/v1"}, {}) == {}
    assert direct(name, {}, {}) == {}


@pytest.mark.parametrize(
    ("params", "environment", "here"),
    [
        ({}, {}, True),
        ({}, {"OLLAMA_HOST": "0.0.0.0"}, True),
        ({}, {"OLLAMA_HOST": "gpu.example.com"}, False),
        ({"base_url": "http://localhost:11434"}, {"OLLAMA_HOST": "gpu.example.com"}, True),
        ({"base_url": "http://gpu.example.com"}, {}, False),
    ],
)
def test_arguments_are_those_of_ollama(params, environment, here):
    given = {"client_kwargs": {"timeout": 3}, **params}
    kwargs = {"client_kwargs": {"trust_env": False, "timeout": 3}}
    assert direct("ollama", given, environment) == (kwargs if here else {})


HERE = {
    "127.0.0.1": "127.0.0.1",
    "127.1": "127.0.0.1",
    "127.0.0.53": "127.0.0.53",
    "0x7f.1": "127.0.0.1",
    "localhost": "127.0.0.1",
    "LocalHost.": "127.0.0.1",
    "models.localhost": "127.0.0.1",
    "::1": "::1",
    "::ffff:127.0.0.1": "127.0.0.1",
    "::": "127.0.0.1",
    "0.0.0.0": "127.0.0.1",
    "0": "127.0.0.1",
}
ELSEWHERE = ["10.1.2.3", "128.0.0.1", "fe80::1", "::2", "example.com", "localhost.example.com", ""]


@pytest.mark.parametrize(("host", "address"), HERE.items())
def test_names_and_addresses_of_this_machine(host, address):
    assert address_here(host) == address
    shown = f"[{host}]" if ":" in host else host
    assert is_here(f"http://{shown}:8000/v1")


@pytest.mark.parametrize("host", [*ELSEWHERE, "a" * 300, "127.0.0.1.example.com", "x\0y"])
def test_names_and_addresses_of_other_machines(host):
    assert address_here(host) is None


@pytest.mark.parametrize("url", ["", "http://", "http://[::1", "localhost:80", "http://10.1.2.3/"])
def test_urls_of_other_machines(url):
    assert not is_here(url)
