"""A graph is shown in a notebook as a picture that needs no network."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from itertools import pairwise
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

from moa_graph import Layer, create_moa
from moa_graph.strategies import Agree, Route, SelfMoASeq, Staircase, TopK
from moa_graph.strategies.experimental import Chunkwise

SVG = "{http://www.w3.org/2000/svg}"
MIXTURES: dict[str, Any] = {
    "two layers": {},
    "four layers": {"layers": 4},
    "an exit": {"until": Agree(), "select": TopK(1), "layers": 4},
    "a route": {"route": Route("openai:cheap", samples=3)},
    "chunks": {"progressive": Chunkwise()},
    "a staircase": {"progressive": Staircase(), "layers": 3},
    "a window": {"aggregator": SelfMoASeq("openai:agg", window=2)},
}


@pytest.mark.parametrize("name", MIXTURES)
def test_every_node_and_edge_is_drawn(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    options = {"aggregator": "openai:agg", **MIXTURES[name]}
    policy = {key: options.pop(key) for key in ("until", "select") if key in options}
    moa = create_moa(Layer(["openai:a", "openai:b<c>"], **policy), **options)
    shown, _ = DisplayFormatter().format(moa)
    assert shown["text/plain"] == repr(moa)
    drawing = ET.fromstring(shown["image/svg+xml"])
    graph = moa.get_graph()
    texts = {text.text for text in drawing.iter(f"{SVG}text")}
    assert texts == {node.strip("_") for node in graph.nodes}
    paths = [path for path in drawing.iter(f"{SVG}path") if path.get("marker-end")]
    edges = [edge for edge in graph.edges if edge.source != edge.target]
    assert len(paths) == len(edges)
    dashed = sum(path.get("class") == "maybe" for path in paths)
    assert dashed == sum(edge.conditional for edge in edges)

    boxes = [
        tuple(float(box.get(side)) for side in ("x", "y", "width", "height"))
        for box in drawing.iter(f"{SVG}rect")
    ]
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:  # none is on another one
            apart = [
                one[axis] + one[axis + 2] <= other[axis]
                or other[axis] + other[axis + 2] <= one[axis]
                for axis in (0, 1)
            ]
            assert any(apart)
        assert one[0] + one[2] <= float(drawing.get("width"))
        assert one[1] + one[3] <= float(drawing.get("height"))


def test_layers_are_columns_from_left_to_right(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789")
    moa = create_moa(Layer(["openai:a", "openai:b"], until=Agree()), "openai:agg", layers=3)
    shown, _ = DisplayFormatter().format(moa)
    texts = {
        text.text: float(text.get("x"))
        for text in ET.fromstring(shown["image/svg+xml"]).iter(f"{SVG}text")
    }
    order = ["start", "layer_1_a", "until_1", "layer_2_b", "aggregator", "end"]
    assert all(texts[left] < texts[right] for left, right in pairwise(order))
    assert texts["layer_1_a"] == texts["layer_1_b"]
