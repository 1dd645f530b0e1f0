"""The README's Python runs as it stands, one block after the other."""

from __future__ import annotations

import re
from pathlib import Path

from moa_graph.presets import load_preset

README = (Path(__file__).parent.parent / "README.md").read_text()


SERVER = "http://localhost:2024"


def blocks(language: str) -> list[str]:
    """The README's blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


def test_every_python_block_runs(server, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)  # one keeps its threads in a file
    monkeypatch.setenv("TOGETHER_API_KEY", "tgp-0123456789")
    monkeypatch.setenv("TOGETHER_API_BASE", server.url)
    namespace: dict = {}
    here = [b for b in blocks("python") if SERVER not in b and not b.startswith("# batch")]
    for block in here:
        exec(compile(block, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert "DeepSeek-V4-Pro: What are 3 fun things to do in SF?" in printed
    assert "layer_2_searcher --> aggregator" in printed
    assert len(here) >= 9


def test_the_configuration_file_is_one(tmp_path, monkeypatch):
    whole, layers = blocks("toml")
    (tmp_path / "mine.toml").write_text(whole)
    graph = load_preset(tmp_path / "mine.toml").create()
    assert "layer_2_mine" in graph.nodes
    (tmp_path / "layers.toml").write_text(layers)
    assert "select_1" in load_preset(tmp_path / "layers.toml").create().nodes
