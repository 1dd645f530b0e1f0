"""What `moa ask` does without options: by the keys that are set, and what runs on this machine."""

from __future__ import annotations

import contextlib
import dataclasses
import http.server
import importlib.util
import itertools
import os
import shlex
import socket
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from moa_graph.cli.app import app
from moa_graph.models import local
from moa_graph.models.providers import PROVIDERS
from moa_graph.presets import available, load_preset, servers
from moa_graph.presets.families import FAMILIES, models_of
from moa_graph.presets.served import is_served, served
from moa_graph.presets.starter import inline
from tests.fake_providers import KEYS, FakeProviders

LISTS = {
    "ollama": {"models": [{"name": "llama3.2:latest", "model": "llama3.2:latest", "size": 2e9}]},
    "lm-studio": {"object": "list", "data": [{"id": "qwen3-8b", "object": "model"}]},
    "llama-cpp": {"models": [{"name": "gemma"}], "object": "list", "data": [{"id": "gemma"}]},
    "vllm": {"object": "list", "data": [{"id": "org/model", "owned_by": "vllm"}]},
}
SHOWN = {
    "ollama": "llama3.2:latest",
    "lm-studio": "qwen3-8b",
    "llama-cpp": "gemma",
    "vllm": "model",
}


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of providers' packages


@pytest.fixture(scope="module")
def _providers() -> Iterator[FakeProviders]:
    with FakeProviders() as providers:
        yield providers


@pytest.fixture
def providers(_providers, monkeypatch, tmp_path) -> FakeProviders:
    """Nothing is set and nothing runs; the usual ports of servers are those of the fake ones."""
    _providers.reset()
    here = tuple(dataclasses.replace(s, port=_providers.port[s.name]) for s in servers.SERVERS)
    monkeypatch.setattr(servers, "SERVERS", here)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    return _providers


def moa(*arguments: str, **options):
    return CliRunner().invoke(app, arguments, **options)


def set_key(providers, monkeypatch, name: str) -> None:
    for variable, value in providers.environment(name).items():
        monkeypatch.setenv(variable, value)


def is_installed(name: str) -> bool:
    return importlib.util.find_spec(PROVIDERS[name].package.replace("-", "_")) is not None


def keys_in(asked) -> set[str]:
    """The providers whose keys are in a request."""
    told = f"{asked.path} {asked.headers} {asked.body}"
    return {name for name, key in KEYS.items() if key in told}


@pytest.mark.parametrize("name", PROVIDERS)
def test_with_one_key_its_provider_answers(providers, monkeypatch, name):
    set_key(providers, monkeypatch, name)
    result = moa("ask", "What is a cat?")
    variable = PROVIDERS[name].keys[0][0]
    if not is_installed(name):
        assert result.exit_code == 2
        assert variable in result.stderr
        assert result.stderr.splitlines()[-1] == f"pip install {PROVIDERS[name].package}"
        assert providers.asked == [] or providers.who() == set()
        return
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{name} answers.\n"
    told = result.stderr.splitlines()[0]
    assert told.startswith(f"Using {PROVIDERS[name].title} ({variable}): ")
    assert "--preset" in told
    assert {asked.who for asked in providers.asked} == {name}
    assert all(keys_in(asked) == {name} for asked in providers.asked)
    chats = [asked for asked in providers.asked if asked.method == "POST"]
    models = models_of(PROVIDERS[name], providers.environment(name))
    # Some clients keep connections of the event loop before, and repeat their first calls.
    assert len(chats) >= (4 if len(models) == 1 else len(models) + 1)


@pytest.mark.parametrize("name", LISTS)
def test_with_one_server_its_models_answer(providers, monkeypatch, name):
    providers.models[name] = LISTS[name]
    result = moa("ask", "What is a cat?")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{name} answers.\n"
    told = result.stderr.splitlines()[0]
    server = next(server for server in servers.SERVERS if server.name == name)
    assert told.startswith(f"Using {server.title} at 127.0.0.1:{server.port}: {SHOWN[name]}.")
    assert {asked.who for asked in providers.asked if asked.path.endswith("completions")} == {name}
    assert len([asked for asked in providers.asked if asked.path.endswith("completions")]) == 4


PROXIES = [
    {"http_proxy": "http://127.0.0.1:9"},
    {"OPENAI_PROXY": "http://127.0.0.1:9"},
    {"ALL_PROXY": "socks5://127.0.0.1:9"},
]


@pytest.mark.parametrize("variables", PROXIES, ids=str)
@pytest.mark.parametrize("name", LISTS)
def test_a_server_that_was_found_is_asked_without_a_proxy(
    providers, monkeypatch, tmp_path, variables, name
):
    """Also by way of a file that `moa init` has written."""
    monkeypatch.delenv("NO_PROXY")
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    providers.models[name] = LISTS[name]
    assert moa("ask", "hi").stdout == f"{name} answers.\n"
    assert moa("init").exit_code == 0
    assert moa("ask", "hi", "-c", "moa.toml").stdout == f"{name} answers.\n"


def test_the_order_of_keys_is_that_of_the_documentation():
    assert [p.short for p in PROVIDERS.values()] == [
        "together", "openai", "anthropic", "google", "openrouter", "groq", "mistral", "deepseek",
        "xai", "fireworks", "azure", "bedrock",
    ]  # fmt: skip
    assert [s.name for s in servers.SERVERS] == ["ollama", "lm-studio", "llama-cpp", "vllm"]


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(PROVIDERS, 2)))
def test_with_several_keys_the_first_usable_one_is_taken(providers, first, second):
    environment = providers.environment(second) | providers.environment(first)
    usable = [name for name in (first, second) if is_installed(name)]
    look = list  # no server
    if not usable:
        with pytest.raises(available.NothingToUse, match=PROVIDERS[first].package):
            available.choose(environment, lambda _: look())
        return
    choice = available.choose(environment, lambda _: look())
    assert choice.preset == PROVIDERS[usable[0]].short
    assert providers.asked == []


def test_a_key_comes_before_a_server_and_no_port_is_asked(providers, monkeypatch):
    providers.models |= LISTS
    set_key(providers, monkeypatch, "openai")
    assert moa("ask", "hi").stdout == "openai answers.\n"
    assert {asked.who for asked in providers.asked} == {"openai"}


def test_of_several_servers_the_first_is_taken(providers):
    for name in reversed(LISTS):
        providers.models[name] = LISTS[name]
        assert available.choose({}).preset == name


def test_no_key_is_sent_to_anyone_but_its_provider(providers, monkeypatch):
    """All keys are set; each provider is asked by name, then listed, and all servers are there."""
    providers.models |= LISTS
    for name in PROVIDERS:
        set_key(providers, monkeypatch, name)
    available.choices(dict(providers.environment("openai")))
    moa("presets", "--check")
    for name in ("ollama", "lm-studio", "llama-cpp", "vllm", "all-keys", *FAMILIES):
        moa("ask", "hi", "--preset", name)
    asked = {asked.who for asked in providers.asked}
    assert asked >= {n for n in PROVIDERS if is_installed(n)} | set(LISTS)
    for request in providers.asked:
        assert keys_in(request) <= {request.who}, f"{request.who} was sent {keys_in(request)}"


@pytest.mark.parametrize("name", [*PROVIDERS, "perplexity", "upstage", "cohere"])
def test_without_its_key_a_model_is_refused_before_anything_is_asked(providers, monkeypatch, name):
    """Also where the client is OpenAI's, which would send OpenAI's key."""
    if name != "openai":
        set_key(providers, monkeypatch, "openai")
    if name in PROVIDERS:
        variables = providers.environment(name)
        key = PROVIDERS[name].keys[0][0]
        for variable in variables.keys() - {key}:
            monkeypatch.setenv(variable, variables[variable])
    for variable in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(variable, "nowhere")
    result = moa("ask", "hi", "-m", "openai:gpt-5.2", "-m", f"{name}:some-model")
    package = PROVIDERS[name].package if name in PROVIDERS else f"langchain-{name}"
    assert result.exit_code == 2, result.output
    if importlib.util.find_spec(package.replace("-", "_")) is None:
        assert f"pip install {package}" in result.stderr.splitlines()[-1]
    else:
        assert result.stderr.splitlines()[-1] == f"export {PROVIDERS[name].keys[0][0]}=…"
    assert "Traceback" not in result.output
    assert providers.asked == []


UNSENDABLE = [
    "sk-abc\r",
    "  k-0123\n",
    "ключ",
    "sk-\x7f",
    "sk-é",
    "sk abc",
    "sk-abc\u2028",
    "“sk-abc”",
]


@pytest.mark.parametrize("name", [*(n for n in PROVIDERS if n != "bedrock_converse"), "cohere"])
@pytest.mark.parametrize("key", UNSENDABLE)
def test_a_key_that_no_header_can_have_is_told_by_its_variable(providers, monkeypatch, name, key):
    variable = PROVIDERS[name].keys[0][0] if name in PROVIDERS else "COHERE_API_KEY"
    monkeypatch.setenv(variable, key)
    monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", f"http://127.0.0.1:{providers.port['groq']}")
    result = moa("ask", "hi", "-m", f"{name}:some-model")
    assert result.exit_code == 2, result.output
    assert f"cannot be used: {variable} must have only printable ASCII" in result.stderr
    assert result.stderr.endswith("set it again.\n")
    assert key.strip() not in result.output
    assert providers.asked == []


@pytest.mark.parametrize("key", UNSENDABLE)
def test_a_key_in_a_file_that_no_header_can_have_is_told_by_its_argument(providers, tmp_path, key):
    entry = {"model": "openai:a", "params": {"api_key": key}}
    (tmp_path / "own.toml").write_text(
        f"proposers = [{inline(entry)}]\naggregator = {inline(entry)}"
    )
    result = moa("ask", "hi", "-c", "own.toml")
    assert result.exit_code == 2
    assert "the argument api_key must have only printable ASCII" in result.stderr
    assert key.strip() not in result.output


def test_a_key_that_no_header_can_have_is_not_sent_to_ask_for_models(providers, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-abc\r")
    result = moa("presets", "--check")
    assert result.exit_code == 1
    assert "OpenAI: not checked: OPENAI_API_KEY must have only printable ASCII" in result.stderr


def test_with_nothing_the_embedded_models_are_taken(providers, monkeypatch):
    monkeypatch.setattr(local, "is_installed", lambda: True)
    choice = available.choose({})
    assert choice.preset == "local"
    assert all(model.startswith("local:") for model in choice.configuration.models())
    assert "to show the pipeline" in choice.told()
    assert "\n" not in choice.told()


HALVES = [
    ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"),
    ("AZURE_OPENAI_API_KEY", "AZURE_OPENAI_ENDPOINT"),
]


@pytest.mark.parametrize(("variable", "other"), HALVES)
def test_of_a_key_in_two_variables_the_missing_one_is_told(providers, monkeypatch, variable, other):
    monkeypatch.setattr(local, "is_installed", lambda: True)
    monkeypatch.setenv(variable, "key-0123456789")
    result = moa("ask", "hi")
    assert result.exit_code == 2
    assert result.stderr.startswith(f"{variable} is set. ")
    assert f"{other}=…" in result.stderr.splitlines()[-1]
    assert f"{variable}=…" not in result.stderr
    providers.models["vllm"] = LISTS["vllm"]
    choice = available.choose({variable: "key-0123456789"})
    assert choice.preset == "vllm"
    assert f"{variable} needs: " in choice.told()
    assert other in choice.told()


def test_with_nothing_at_all_the_ways_are_told(providers, monkeypatch):
    monkeypatch.setattr(local, "is_installed", lambda: False)
    result = moa("ask", "hi")
    assert result.exit_code == 2
    for way in ("TOGETHER_API_KEY", "OPENAI_API_KEY", "Ollama", "pip install 'moa-graph[local]'"):
        assert way in result.stderr


ASKED_FOR_NOTHING = [
    ("ollama", {"models": [{"name": "nomic-embed-text:latest"}]}),
    ("ollama", {"models": [{"name": "all-minilm:33m", "details": {"family": "bert"}}]}),
    ("ollama", {"models": [{"name": "mine", "details": {"family": "nomic-bert"}}]}),
    (
        "ollama",
        {"models": [{"name": "gpt-oss:120b-cloud", "remote_host": "https://ollama.com:443"}]},
    ),
    ("lm-studio", {"data": [{"id": "text-embedding-nomic-embed-text-v1.5"}]}),
    ("llama-cpp", {"models": [{"name": "x", "capabilities": ["embedding"]}]}),
    ("vllm", {"data": [{"id": "BAAI/bge-m3"}]}),
    ("vllm", {"data": [{"id": "mixture", "owned_by": "system"}]}),
    ("vllm", {"data": "no list"}),
    ("vllm", {"data": [3, None, {"id": None}, {"id": ""}, {}]}),
    ("vllm", [1, 2]),
    ("vllm", "text"),
]


NO_CHAT = [
    "openai/whisper-large-v3", "whisper-1", "Systran/faster-distil-whisper-small.en", "kokoro-tts",
    "Kokoro-82M", "outetts_0.2", "XTTS-v2", "tts-1-hd", "parler_tts_mini", "suno/bark", "piper-en",
    "Qwen3-ASR-1.7B", "nvidia/parakeet-tdt-0.6b", "wav2vec2-base", "speecht5", "stable-diffusion-3",
    "sdxl-turbo", "sd3-medium", "FLUX.1-schnell", "flux-dev", "qwen-image", "z_image_turbo",
    "clip-vit-large", "siglip2-base", "bge-reranker-v2-m3", "Qwen3-Reranker-0.6B", "dall-e-3",
    "gte-large", "colpali-v1.3", "musicgen-small", "wan2.1-t2v-14b",
]  # fmt: skip
CHATS = [
    "llama3.2:latest", "qwen3-8b", "gpt-oss:20b", "gemma-3-27b-it", "qwen2.5-vl-7b", "llava:13b",
    "phi-4", "deepseek-r1", "Qwen3-235B-A22B", "mistral-small3.2", "smollm2", "granite4", "command-r",
    "codestral", "reflux-7b", "eclipse-7b", "robertson-13b-chat", "minimax-m2", "solar-pro",
]  # fmt: skip


@pytest.mark.parametrize("name", LISTS)
def test_models_of_speech_and_images_are_not_proposers(name):
    for model in NO_CHAT:
        entry = {"id": model, "name": model}
        assert servers._models_in({"data": [entry]}) == {}, model
    for model in CHATS:
        assert servers._models_in({"data": [{"id": model}]}) == {model: 0}


def test_lm_studio_tells_the_types_of_its_models(providers):
    kinds = {"c": "embeddings", "d": "tts", "a": "llm", "b": "vlm", "e": None}
    providers.models["lm-studio"] = {"data": [{"id": model} for model in [*kinds, "g"]]}
    (found,) = servers.running({})
    assert found.models == ("c", "d", "a")  # it does not tell
    providers.more["lm-studio", "/api/v0/models"] = {
        "data": [{"id": model, "type": kind} for model, kind in kinds.items()] + [None, 3, {}]
    }
    (found,) = servers.running({})
    assert found.models == ("a", "b", "e")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    max_leaves=5,
)
ODD_TEXT = st.text(st.characters(codec=None), max_size=4) | JSON
ENTRY = st.fixed_dictionaries(
    {"id": ODD_TEXT},
    optional=dict.fromkeys(("size", "details", "capabilities", "remote_host"), JSON),
)
LISTED = st.fixed_dictionaries(
    {"data": st.lists(ENTRY | JSON) | JSON}, optional={"total_slots": JSON, "capabilities": JSON}
)


@settings(max_examples=50, deadline=None)
@given(LISTED)
@example({"data": [{"id": "a"}], "total_slots": True})
@example({"data": [{"id": "\ud800"}]})
@example({"data": [{"id": ":"}, {"id": ":a"}, {"id": " "}, {"id": "a\nb"}]})
@example({"data": [{"id": "a", "size": float("nan")}, {"id": "b", "size": 10**400}]})
def test_every_list_of_models_gives_a_mixture_or_nothing(listed):
    """Whatever a program on one of the ports answers, to all requests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(servers, "_ask", lambda *_: listed)
        for found in servers.running({}):
            made = found.configuration()
            assert made.create().plan.layers == 2
            assert tomllib.loads(f"value = {inline(made.proposers)}")["value"] == made.proposers
            found_models = [spec.encode() for spec in made.models()]
            assert found_models


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"data":' * 100_000,
        b"\xff\xfe",
        b"",
        b"<html>",
        b"9" * 5000,
        b"null",
        b"NaN",
    ],
    ids=lambda body: str(body[:8]),
)
def test_a_body_that_is_no_list_is_no_server(body, no_garbage):
    """The other servers are found all the same."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815 - the name is the library's

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        here = [dataclasses.replace(s, port=listening.server_port) for s in servers.SERVERS]
        assert servers.running({}, here) == []
        listening.shutdown()


@pytest.mark.parametrize(("name", "listed"), ASKED_FOR_NOTHING, ids=str)
def test_embedding_models_and_other_programs_are_left_out(providers, name, listed):
    providers.models[name] = listed
    assert servers.running({}) == []


def test_ollama_tells_what_its_models_can_do(providers):
    names = ["odd-name", "large", "small"]
    sizes = {"odd-name": 9, "large": 8, "small": 1}
    providers.models["ollama"] = {
        "models": [{"name": n, "size": sizes[n]} for n in reversed(names)]
    }
    providers.more["ollama", "/api/show"] = {"capabilities": ["embedding"]}
    assert servers.running({}) == []
    providers.more["ollama", "/api/show"] = {"capabilities": ["completion", "tools"]}
    (found,) = servers.running({})
    assert found.models == ("odd-name", "large", "small")  # the largest aggregates
    assert found.configuration().calls.concurrent == {"openai": 1}


@pytest.mark.parametrize(
    ("variables", "concurrent"),
    [
        ({}, 1),
        ({"OLLAMA_NUM_PARALLEL": "4"}, 4),
        ({"OLLAMA_NUM_PARALLEL": "many"}, 1),
        ({"OLLAMA_NUM_PARALLEL": "9" * 5000}, 1),
        ({"OLLAMA_NUM_PARALLEL": "0"}, 1),
    ],
)
def test_ollama_answers_so_many_calls_at_a_time(providers, variables, concurrent):
    providers.models["ollama"] = LISTS["ollama"]
    assert servers.running(variables)[0].concurrent == concurrent


@pytest.mark.parametrize("slots", [1, 4])
def test_llama_cpp_tells_how_many_calls_it_answers_at_a_time(providers, slots):
    providers.models["llama-cpp"] = LISTS["llama-cpp"]
    providers.more["llama-cpp", "/props"] = {"total_slots": slots}
    assert servers.running({})[0].configuration().calls.concurrent == {"openai": slots}


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("127.0.0.1:{port}", True),
        ("http://localhost:{port}/", True),
        ("0.0.0.0:{port}", True),
        (":{port}", True),
        ("10.1.2.3:{port}", False),
        ("http://gpu.example.com", False),
        ("https://127.0.0.1:{port}", False),
        ("127.0.0.1:port", False),
        ("127.1:{port}", True),
        ("LOCALHOST:{port}", True),
        ("[::]:{port}", True),
        ("http://[::ffff:127.0.0.1]:{port}", True),
        ("[::2]:{port}", False),
    ],
)
def test_ollama_is_only_looked_for_on_this_machine(providers, host, found):
    providers.models["ollama"] = LISTS["ollama"]
    elsewhere = [dataclasses.replace(servers.SERVERS[0], port=1)]
    host = host.format(port=providers.port["ollama"])
    assert bool(servers.running({"OLLAMA_HOST": host}, elsewhere)) == found


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("", "127.0.0.1:11434"),
        ("::", "127.0.0.1:11434"),
        ("[::]", "127.0.0.1:11434"),
        ("::1", "[::1]:11434"),
        ("[::1]", "[::1]:11434"),
        ("http://[::1]:80/", "[::1]:80"),
        ("127.1", "127.0.0.1:11434"),
        ("127.0.0.2:9", "127.0.0.2:9"),
        ("0.0.0.0", "127.0.0.1:11434"),
        ("http://localhost", "127.0.0.1:80"),
        ("ollama.localhost:9", "127.0.0.1:9"),
    ],
)
def test_addresses_of_ollama_are_those_of_this_machine(host, address):
    server = servers._as_set(servers.SERVERS[0], {"OLLAMA_HOST": host})
    assert server.address == address
    assert servers.not_asked({"OLLAMA_HOST": host}) == ()
    found = servers.Running(server, ("m",), 1)
    (_, settings), *_ = found.configuration().entries()
    assert settings["base_url"] == f"http://{address}/v1"


@pytest.mark.parametrize("host", ["10.1.2.3", "https://localhost", "x:y", "http://u:secret@gpu"])
def test_that_ollama_elsewhere_is_not_asked_is_told(providers, monkeypatch, host):
    monkeypatch.setenv("OLLAMA_HOST", host)
    told = "OLLAMA_HOST names no http server on this machine."
    monkeypatch.setattr(local, "is_installed", lambda: True)
    assert told in available.choose({"OLLAMA_HOST": host}).told()
    monkeypatch.setattr(local, "is_installed", lambda: False)
    for arguments in ([], ["--preset", "ollama"]):
        result = moa("ask", "hi", *arguments)
        assert result.exit_code == 2
        assert told in result.stderr
        assert "secret" not in result.stderr
    providers.models["vllm"] = LISTS["vllm"]
    assert told in available.choose({"OLLAMA_HOST": host}).told()


def test_looking_uses_no_proxy_and_follows_no_redirect(providers, monkeypatch):
    monkeypatch.delenv("NO_PROXY")
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{providers.port['groq']}")
    providers.models["vllm"] = LISTS["vllm"]
    assert [found.server.name for found in servers.running({})] == ["vllm"]
    assert {asked.who for asked in providers.asked} == set(LISTS)


def test_a_program_that_does_not_answer_is_not_waited_for(providers, monkeypatch):
    """One that says nothing, and one that sends a little from time to time."""
    monkeypatch.setattr(servers, "TIMEOUT", 0.3)
    stop = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n")
            while not stop.wait(0.05):
                connection.sendall(b" ")

    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        socket.create_server(("127.0.0.1", 0)) as slow,
    ):
        thread = threading.Thread(target=drip, args=(slow,))
        thread.start()
        ports = [one.getsockname()[1] for one in (silent, slow)]
        here = [dataclasses.replace(servers.SERVERS[3], port=port) for port in ports]
        assert servers.running({}, here) == []
        stop.set()
        thread.join(10)


# --- models by name ----------------------------------------------------------------------------


def test_models_are_named_one_by_one(providers, monkeypatch):
    for name in ("openai", "together"):
        set_key(providers, monkeypatch, name)
    arguments = ["-m", "openai:gpt-a", "-m", "together:b", "--aggregator", "openai:gpt-c"]
    result = moa("ask", "hi", *arguments, "--layers", "3")
    assert result.exit_code == 0, result.output
    assert not result.stderr.startswith("Using")
    asked = [a.body["model"] for a in providers.asked]
    assert sorted(asked) == ["b", "b", "gpt-a", "gpt-a", "gpt-c"]
    assert asked[-1] == "gpt-c"


@pytest.mark.parametrize(
    ("arguments", "samples"),
    [(["-m", "openai:a"], 3), (["-m", "openai:a"] * 2, 3), (["-m", "openai:a"] * 4, 4)],
)
def test_one_model_alone_is_sampled(providers, monkeypatch, arguments, samples):
    set_key(providers, monkeypatch, "openai")
    assert moa("ask", "hi", *arguments).exit_code == 0
    assert len(providers.asked) == samples + 1


def test_an_aggregator_can_be_given_to_a_preset(providers, monkeypatch):
    set_key(providers, monkeypatch, "openai")
    result = moa("ask", "hi", "--preset", "openai", "--aggregator", "openai:last")
    assert result.exit_code == 0
    assert providers.asked[-1].body["model"] == "last"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["-m", "openai:a", "--preset", "local"], "--preset or --model, not both"),
        (["-m", "openai:a", "--config", "x.toml"], "--config or --model, not both"),
        (
            ["-m", "gpt-5"],
            "--model 'gpt-5' has no provider: write PROVIDER:MODEL, such as openai:gpt-5",
        ),
        (["-m", ":gpt-5"], "has no provider"),
        (["-m", "openai:a", "--aggregator", "most"], "unknown strategy 'most'"),
        (["-m", "nobody:x"], "unknown provider 'nobody'"),
        (["--preset", "groq"], "pip install langchain-groq"),
        (["--preset", "azure"], "export AZURE_OPENAI_DEPLOYMENT="),
        (["--preset", "vllm"], "no vLLM server"),
        (["--preset", "all-keys"], "at least one API key"),
        (["--preset", "opena"], "mean 'openai'"),
        (["--preset", "moa-gpt4o"], "export TOGETHER_API_KEY=… OPENAI_API_KEY=…"),
        (["-m", "groq:a", "-m", "cohere:b"], "pip install langchain-groq langchain-cohere"),
    ],
)
def test_wrong_or_incomplete_options_exit_with_2(providers, arguments, says):
    if "groq" in says and is_installed("groq"):
        pytest.skip("the package is installed")
    result = moa("ask", "hi", *arguments)
    assert result.exit_code == 2, result.output
    assert says in result.stderr
    assert "Traceback" not in result.output
    assert providers.who() == set()


def test_local_models_are_checked_before_weights_are_fetched(providers, monkeypatch):
    def fetch(name: str) -> None:
        raise AssertionError(f"{name} was fetched")

    monkeypatch.setattr(local, "fetch", fetch)
    result = moa("ask", "hi", "-m", "local:smollm2-135m", "-m", "openai:x")
    assert result.exit_code == 2
    assert "export OPENAI_API_KEY=…" in result.stderr


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["What", "is", "a", "cat?"], "moa ask 'What is a cat?'"),
        (["Why", "is", "it's", "name"], """moa ask 'Why is it'"'"'s name'"""),
    ],
)
def test_an_unquoted_question_is_told_how_to_be_quoted(providers, words, quoted):
    result = moa("ask", *words)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1] == quoted
    assert "names of files" in result.stderr
    assert providers.asked == []


# --- `moa init`, `moa presets` -------------------------------------------------------------------


@pytest.mark.parametrize("name", [*(n for n in PROVIDERS if is_installed(n)), *LISTS])
def test_init_writes_a_file_that_answers(providers, monkeypatch, tmp_path, name):
    if name in LISTS:
        providers.models[name] = LISTS[name]
    else:
        set_key(providers, monkeypatch, name)
    assert moa("init").exit_code == 0
    text = (tmp_path / "moa.toml").read_text()
    assert not any(key in text for key in KEYS.values())
    assert text.count("#") > 8
    result = moa("ask", "hi", "--config", "moa.toml")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{name} answers.\n"
    expected = available.choose(providers.environment(name) if name in PROVIDERS else {})
    made = load_preset(tmp_path / "moa.toml")
    assert made.proposers == expected.configuration.proposers
    assert made.calls == expected.configuration.calls


def test_init_writes_what_else_is_there_as_comments_that_are_valid(
    providers, monkeypatch, tmp_path
):
    providers.models |= LISTS
    for name in ("openai", "anthropic"):
        set_key(providers, monkeypatch, name)
    assert moa("init", "mine.toml").exit_code == 0
    text = (tmp_path / "mine.toml").read_text()
    for title in ("Anthropic (ANTHROPIC_API_KEY)", "Ollama at 127.0.0.1", "vLLM at 127.0.0.1"):
        assert title in text
    others = [line.removeprefix("#   ") for line in text.splitlines() if line.startswith("#   ")]
    blocks = "\n".join(others).split("proposers = [\n")[1:]
    assert len(blocks) == 5
    for block in blocks:
        assert set(tomllib.loads(f"proposers = [\n{block}")) == {"proposers", "aggregator"}


def test_init_keeps_a_file_that_is_there(providers, monkeypatch, tmp_path):
    set_key(providers, monkeypatch, "openai")
    path = tmp_path / "moa.toml"
    path.write_text("mine")
    refused = moa("init")
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert path.read_text() == "mine"
    assert moa("init", "--force").exit_code == 0
    assert "openai:" in path.read_text()
    assert moa("init", "moa.json").exit_code == 2
    assert moa("init", "nowhere/moa.toml").exit_code == 2


FILES = [
    "my file.toml",
    "it's.toml",
    "$HOME `x`.toml",
    "漢字.toml",
    "a;b&c|d.toml",
    "-x.toml",
    "{x}.toml",
]


@pytest.mark.parametrize("name", FILES)
def test_what_init_says_next_is_what_a_shell_takes(providers, monkeypatch, tmp_path, name):
    set_key(providers, monkeypatch, "openai")
    result = moa("init", "--", name)
    assert result.exit_code == 0
    for text in (result.stderr, (tmp_path / name).read_text()):
        command = next(line for line in text.splitlines() if "moa ask --config" in line)
        words = shlex.split(command.partition("moa ask")[2])
        assert words[:2] == ["--config", name]
    assert moa("ask", "hi", "--config", name).stdout == "openai answers.\n"


@pytest.mark.parametrize(
    "name", ["a\nb.toml", "a\rb.toml", "a\x1bb.toml", "a\x7f.toml", "a\udc80.toml"]
)
def test_init_refuses_names_that_cannot_be_printed(providers, monkeypatch, tmp_path, name):
    set_key(providers, monkeypatch, "openai")
    result = moa("init", name)
    assert result.exit_code == 2
    assert "characters that cannot be printed" in result.stderr
    assert list(tmp_path.iterdir()) == []


ODD = [*map(chr, range(0x20)), "\x7f", "\x80", '"', "\\", "\u2028", "\ufeff", "漢", "😀", "'", "#"]


@pytest.mark.parametrize("character", ODD)
def test_every_text_is_valid_toml_on_one_line(character):
    value = {f"a{character}b": [f"x{character}y", {"z": character}]}
    text = inline(value)
    assert tomllib.loads(f"value = {text}")["value"] == value
    assert "\n" not in text


def test_half_a_character_is_replaced_in_toml():
    assert tomllib.loads(f"value = {inline('a' + chr(0xD83D))}")["value"] == "a\ufffd"


def test_presets_of_packages_that_are_not_installed_are_listed(providers):
    lines = moa("presets").stdout.splitlines()
    listed = dict(line.split("\t") for line in lines)
    for provider in FAMILIES.values():
        if not provider.is_installed:
            assert f"pip install {provider.package}" in listed[provider.short]
    assert {"together", "all-keys", *FAMILIES, *LISTS} <= listed.keys()


def test_the_models_that_a_provider_does_not_serve_are_told(providers, monkeypatch):
    for name in ("openai", "anthropic", "google_genai"):
        set_key(providers, monkeypatch, name)
    first, *others = [m.partition(":")[2] for m in models_of(PROVIDERS["openai"])]
    claude = [{"id": f"{m.partition(':')[2]}-20260101"} for m in models_of(PROVIDERS["anthropic"])]
    gemini = [m.partition(":")[2] for m in models_of(PROVIDERS["google_genai"])]
    providers.models["openai"] = {"data": [{"id": other} for other in others]}
    providers.models["anthropic"] = {"data": claude, "has_more": False}
    providers.models["google_genai"] = {"models": [{"name": f"models/{m}"} for m in gemini]}
    result = moa("presets", "--check")
    assert result.exit_code == 0, result.output
    told = dict(line.split("\t") for line in result.stdout.splitlines())  # the later line counts
    assert told["openai"] == f"not served: openai:{first}"
    assert told["anthropic"] == told["google"] == "served"
    assert told["moa-gpt4o"] == "not served: openai:gpt-4o"
    assert "TOGETHER_API_KEY" in result.stderr
    paths = {asked.who: asked.path for asked in providers.asked if asked.who in KEYS}
    assert paths == {
        "openai": "/v1/models",
        "anthropic": "/v1/models",
        "google_genai": "/v1beta/models",
    }


@pytest.mark.parametrize(
    ("model", "known", "expected"),
    [
        ("claude-x-5", {"claude-x-5-20260101"}, True),
        ("gpt-4o", {"gpt-4o-2024-05-13"}, True),
        ("gpt-4o", {"gpt-4o-mini", "gpt-4o-mini-2024-07-18"}, False),
        ("gpt-5", {"gpt-5.2", "gpt-50"}, False),
        ("anthropic.claude", {"anthropic.claude-20250929-v1:0"}, True),
    ],
)
def test_a_dated_name_is_that_of_the_model(model, known, expected):
    assert is_served(model, known) == expected


def test_the_list_of_a_provider_may_have_pages(providers, monkeypatch):
    """A later page is asked with the id or token of the page before, and never without end."""
    set_key(providers, monkeypatch, "anthropic")
    providers.models["anthropic"] = {"data": [{"id": "a"}], "has_more": True, "last_id": "a"}
    found = served(dict(os.environ), ["anthropic"])
    assert found == {"anthropic": {"a"}}
    assert 1 < len(providers.asked) <= 100


@pytest.mark.parametrize(
    "body", [None, "x", 3, True, {"data": 5}, {"data": "x"}, {"models": {"a": 1}}], ids=str
)
def test_what_is_no_list_of_models_is_told(providers, monkeypatch, body):
    set_key(providers, monkeypatch, "openai")
    providers.models["openai"] = body
    (answer,) = served(dict(os.environ), ["openai"]).values()
    assert str(answer).endswith("/v1/models does not answer with a list of models")


@pytest.mark.parametrize("text", ["<html>", "", "[" * 100_000, '{"data": [', "\x00"])
def test_a_page_is_no_list_of_models(providers, monkeypatch, text, no_garbage):
    set_key(providers, monkeypatch, "openai")
    monkeypatch.setattr(httpx.Client, "get", lambda *_, **__: _response(text))
    (answer,) = served(dict(os.environ), ["openai"]).values()
    assert str(answer).endswith("/v1/models does not answer with a list of models")


def _response(text: str) -> httpx.Response:
    return httpx.Response(200, text=text, request=httpx.Request("GET", "http://127.0.0.1/v1"))


def test_a_provider_on_this_machine_is_asked_for_models_without_a_proxy(providers, monkeypatch):
    set_key(providers, monkeypatch, "openai")
    monkeypatch.delenv("NO_PROXY")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    providers.models["openai"] = {"data": [{"id": "a"}]}
    assert served(dict(os.environ), ["openai"]) == {"openai": {"a"}}


def test_entries_that_are_no_models_are_left_out(providers, monkeypatch):
    set_key(providers, monkeypatch, "openai")
    odd = [
        None,
        3,
        "x",
        [],
        {},
        {"id": 3},
        {"id": "a", "aliases": 5},
        {"id": "b", "aliases": [1, "c"]},
    ]
    providers.models["openai"] = odd
    assert served(dict(os.environ), ["openai"]) == {"openai": {"a", "b", "c"}}


def test_a_provider_that_does_not_tell_is_told_without_its_key(providers, monkeypatch):
    for name in PROVIDERS:
        set_key(providers, monkeypatch, name)
    result = moa("presets", "--check")
    assert result.exit_code == 1
    assert result.stderr.count("not checked: ") == len(PROVIDERS)
    assert not any(key in result.output for key in KEYS.values())


def test_the_version_and_completion_are_there():
    assert moa("--version").stdout.startswith("moa-graph ")
    help_ = moa("--help").stdout
    assert "--install-completion" in help_
    assert "--show-completion" in help_


def test_the_command_is_installed_under_two_names():
    """Another package installs a command `moa`."""
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    commands = tomllib.loads(text)["project"]["scripts"]
    assert set(commands) == {"moa", "moa-graph"}
    assert len(set(commands.values())) == 1


def test_names_of_presets_are_completed():
    """As a shell asks for it."""
    code = "import sys; sys.argv = ['moa-graph']; from moa_graph.cli.main import main; main()"
    given = {"COMP_WORDS": "moa-graph ask --preset op", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **given, "_MOA_GRAPH_COMPLETE": "complete_bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["openai", "openrouter"]
