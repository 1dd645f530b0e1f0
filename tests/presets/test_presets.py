from __future__ import annotations

import pytest

from moa_graph.presets import PRESETS, Configuration, load_preset
from moa_graph.prompts import format_references

PAPER = {
    "moa": (3, 6, "together:Qwen/Qwen1.5-110B-Chat"),
    "moa-gpt4o": (3, 6, "openai:gpt-4o"),
    "moa-lite": (2, 6, "together:Qwen/Qwen1.5-72B-Chat"),
    "moa-50-lines": (2, 4, "together:mistralai/Mixtral-8x22B-Instruct-v0.1"),
}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds_without_a_key(name):
    preset = load_preset(name)
    assert preset.create().name == preset.name == name
    assert preset.description


@pytest.mark.parametrize(("name", "expected"), PAPER.items())
def test_the_papers_presets_are_the_papers(name, expected):
    preset = PRESETS[name]
    assert (preset.layers, len(preset.proposers), preset.aggregator) == expected
    assert preset.temperature == 0.7


TOML = """
description = "Mine"
proposers = [
  "together:plain",
  { model = "together:critic?x", name = "critic", prompt = "Look for errors.", samples = 2, temperature = 0.1 },
]
aggregator = { model = "together:agg", max_tokens = 7, params = { top_p = 0.5 } }
layers = 3
temperature = 0.9
references = { prompt = "Combine:" }
"""
YAML = """
description: Mine
proposers:
  - together:plain
  - {model: "together:critic?x", name: critic, prompt: Look for errors., samples: 2, temperature: 0.1}
aggregator: {model: "together:agg", max_tokens: 7, params: {top_p: 0.5}}
layers: 3
temperature: 0.9
references: {prompt: "Combine:"}
"""


@pytest.mark.parametrize(("file", "text"), [("mine.toml", TOML), ("mine.yaml", YAML)])
async def test_a_file_configures_everything(tmp_path, server, monkeypatch, file, text):
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp-0123456789")
    monkeypatch.setenv("TOGETHER_API_BASE", server.url)
    path = tmp_path / file
    path.write_text(text)
    configuration = load_preset(str(path))
    graph = configuration.create()
    assert graph.name == "mine"
    state = await graph.ainvoke({"messages": "hi"})
    names = ["plain", "critic_1", "critic_2"]
    assert [p["proposer"] for p in state["proposals"]] == names * 2
    assert {c.body["temperature"] for c in server.of("critic")} == {0.1}
    assert all(c.system.startswith("Look for errors.") for c in server.of("critic"))
    (last,) = server.of("agg")
    assert (last.body["temperature"], last.body["max_tokens"], last.body["top_p"]) == (0.9, 7, 0.5)
    answers = ["plain: hi", "critic: hi", "critic: hi"]
    assert last.system == format_references(answers, "Combine:")
    assert list(configuration.models()) == ["together:plain", "together:critic?x", "together:agg"]


@pytest.mark.parametrize(("file", "text"), [("mine.toml", TOML), ("mine.yaml", YAML)])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path, file, text, line_end):
    path = tmp_path / file
    path.write_bytes(b"\xef\xbb\xbf" + text.strip().replace("\n", line_end).encode())
    assert load_preset(path).layers == 3


def test_options_of_the_call_win_over_the_configuration():
    assert len(load_preset("moa-lite").create(layers=4).nodes) == 1 + 18 + 1


async def test_what_a_layer_waits_for_and_what_a_run_may_cost_can_stand_in_a_file(tmp_path, server):
    path = tmp_path / "patient.yaml"
    path.write_text(f"""
    proposers:
      quorum: 2
      grace: 0.05
      hedge: 2x
      timeout: 20
      proposers:
        - {{model: "openai:a", params: {{base_url: "{server.url}", api_key: x}}}}
        - {{model: "openai:b", params: {{base_url: "{server.url}", api_key: x}}}}
        - {{model: "openai:c?hang", params: {{base_url: "{server.url}", api_key: x}}, timeout: 60}}
    aggregator: {{model: "openai:agg", params: {{base_url: "{server.url}", api_key: x}}}}
    calls: {{retries: 1, concurrent: {{openai: 3}}}}
    limits:
      timeout: 30
      tokens: 100000
      usd: 1.5
      prices: {{a: [1, 2], b: [1, 2], "c?hang": [1, 2], agg: [1, 2]}}
    references: {{window: 32000}}
    """)
    state = await load_preset(path).create().ainvoke({"messages": "hi"})
    assert [p["status"] for p in state["proposals"]] == ["ok", "ok", "abandoned"]
    path.write_text(path.read_text().replace("quorum: 2", "quorum: 4"))
    with pytest.raises(ValueError, match="quorum"):
        load_preset(path)


def test_a_list_of_lists_is_a_layer_each(tmp_path):
    path = tmp_path / "layers.toml"
    path.write_text(
        'proposers = [["together:a", {model = "together:b"}], ["together:c"]]\naggregator = "together:d"'
    )
    nodes = list(load_preset(path).create().get_graph().nodes)
    assert nodes[1:-1] == ["layer_1_a", "layer_1_b", "layer_2_c", "aggregator"]


WRONG = [
    ('proposer = ["a:b"]\naggregator = "a:b"', r"unknown field 'proposer'.*mean 'proposers'"),
    ('proposers = ["a:b"]\naggregator = "a:b"\nlayer = 3', r"unknown field 'layer'.*mean 'layers'"),
    (
        'proposers = [{model = "a:b", sample = 3}]\naggregator = "a:b"',
        r"proposers\[0\]: .*no argument 'sample'.*mean 'samples'",
    ),
    (
        'proposers = [["a:b"], [{model = "a:b", promt = "x"}]]\naggregator = "a:b"',
        r"proposers\[0\]: .*no argument 'promt'.*mean 'prompt'",
    ),
    (
        'proposers = ["a:b"]\naggregator = {model = "a:b", api_key = "sk-SECRET"}',
        r"aggregator.*no argument 'api_key'",
    ),
    ('aggregator = "a:b"', r"proposers: Field required"),
    ('proposers = []\naggregator = "a:b"', r"proposers=\[\]\) is empty"),
    ('proposers = ["a:b"]', r"aggregator: Field required"),
    ('proposers = ["a:b"]\naggregator = "a:b"\nlayers = "x"', r"layers: .*valid integer"),
    (
        'proposers = ["a:b"]\naggregator = "a:b"\nlayers = 1',
        r"layers: .*greater than or equal to 2",
    ),
    ('proposers = "a:b"\naggregator = "a:b"', r"must be a list of models"),
    ('proposers = [3]\naggregator = "a:b"', r"every model must be .provider:model"),
    ('key = "sk-SECRET', r"cannot be read: Unterminated string"),
    ("", r"proposers: Field required"),
    (
        'proposers = {proposers = ["openai:b"], quorums = 1}\naggregator = "a:b"',
        r"no argument 'quorums'.*mean 'quorum'",
    ),
    (
        'proposers = {proposers = ["openai:b"], quorum = 0}\naggregator = "a:b"',
        r"quorum=0.*at least 1",
    ),
    (
        'proposers = {proposers = ["openai:b"], hedge = "soon"}\naggregator = "a:b"',
        r"hedge.*'2x'",
    ),
    (
        'proposers = {proposers = ["openai:b"], timeout = -1}\naggregator = "a:b"',
        r"timeout=-1.*above 0",
    ),
    (
        'proposers = {proposers = ["openai:b"], select = ["top"]}\naggregator = "a:b"',
        r"unknown strategy 'top'.*mean 'top_k'",
    ),
    (
        'proposers = ["openai:b"]\naggregator = {strategy = "ranks", judge = "openai:b"}',
        r"unknown strategy 'ranks'.*mean 'rank'",
    ),
    (
        'proposers = ["openai:b"]\naggregator = {strategy = "rank"}',
        r"rank needs judge",
    ),
    (
        'proposers = ["openai:b"]\naggregator = {strategy = "os.system"}',
        r"unknown strategy 'os.system'",
    ),
    (
        'proposers = ["openai:b"]\naggregator = "openai:b"\nlimits = {}',
        r"limits: .*timeout, tokens",
    ),
    (
        'proposers = ["openai:b"]\naggregator = "openai:b"\nreferences = {fence = true}',
        r"unknown field 'references.fence'.*mean 'fenced'",
    ),
]


@pytest.mark.parametrize(("text", "says"), WRONG, ids=[says for _, says in WRONG])
def test_a_wrong_file_is_told_by_its_field_and_never_by_its_values(tmp_path, text, says):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says) as caught:
        load_preset(path)
    assert "SECRET" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_wrong_yaml_is_told_by_its_place(tmp_path):
    path = tmp_path / "wrong.yml"
    path.write_text("proposers: [\nkey: sk-SECRET: x")
    with pytest.raises(ValueError, match="cannot be read") as caught:
        load_preset(path)
    assert "SECRET" not in str(caught.value)
    for text, says in [
        ("proposers: [openai:a]\naggregator: !!python/name:os.SECRET\n", "line 2, column 13"),
        ("proposers: [openai:a]\nproposers: [openai:SECRET]", "given twice in line 2, column 1"),
        ("aggregator: {model: openai:a, params: {a: 1, a: SECRET}}", "given twice in line 1"),
        ("a: *SECRET", "line 1, column 4"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=says) as caught:
            load_preset(path)
        assert "SECRET" not in str(caught.value)
    path.write_text("- a list")
    with pytest.raises(ValueError, match="must hold the fields"):
        load_preset(path)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match=r"no preset 'moa-light'.*mean 'moa-lite'.*self-moa"):
        load_preset("moa-light")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.toml"):
        load_preset("nowhere.toml")


def test_a_configuration_never_prints_its_params():
    entry = {"model": "openai:x", "params": {"api_key": "sk-SECRET"}}
    configuration = Configuration(proposers=["openai:x"], aggregator=entry)
    assert "SECRET" not in repr(configuration)
