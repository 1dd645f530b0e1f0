"""A drawing of a graph as SVG, made without a network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from graphlib import TopologicalSorter
from html import escape

from langchain_core.runnables.graph import Edge, Graph

_HEIGHT, _ROW, _GAP, _MARGIN = 28, 44, 70, 12  # pixels: of a box, of a row, between columns
_LETTER = 7.3  # pixels: its width
_STYLE = (
    "<style>.moa rect{fill:#eef2ff;stroke:#6366f1}.moa rect.end{fill:#e2e8f0;stroke:#8b93a7}"
    ".moa path{fill:none;stroke:#8b93a7;stroke-width:1.4}.moa .maybe{stroke-dasharray:5 4}"
    ".moa text{font:12px ui-monospace,monospace;fill:#1e1b4b;text-anchor:middle}</style>"
    '<marker id="moa-tip" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
    '<path d="M1 1 7 4 1 7"/></marker>'
)


def svg_of(graph: Graph) -> str:
    """Draw a graph from left to right; edges that are taken on a condition are dashed.

    Args:
        graph: The graph, from `get_graph()`.

    Returns:
        The drawing, as an SVG element on a white ground.
    """
    edges = [edge for edge in graph.edges if edge.source != edge.target]
    columns: dict[int, list[str]] = defaultdict(list)
    column_of = _columns(list(graph.nodes), edges)
    for node, column in column_of.items():
        columns[column].append(node)
    label = {node: graph.nodes[node].name.strip("_") for node in graph.nodes}
    rows = max(map(len, columns.values()))
    middle = _MARGIN + rows * _ROW / 2
    boxes: dict[str, tuple[float, float, float]] = {}  # left, middle, width
    left: float = _MARGIN
    for column in sorted(columns):
        nodes = columns[column]
        width = 24 + _LETTER * max(len(label[node]) for node in nodes)
        for row, node in enumerate(nodes):
            boxes[node] = (left, middle + (row - (len(nodes) - 1) / 2) * _ROW, width)
        left += width + _GAP
    below = _MARGIN + rows * _ROW
    lines = [_line(edge, boxes, column_of, below) for edge in edges]
    shapes = [_box(label[node], *box, ends=node.startswith("__")) for node, box in boxes.items()]
    long = any(column_of[edge.target] - column_of[edge.source] != 1 for edge in edges)
    width, height = left - _GAP + _MARGIN, below + _MARGIN + (40 if long else 0)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="moa" '
        f'width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" style="background:#fff">{_STYLE}'
        f"{''.join(lines)}{''.join(shapes)}</svg>"
    )


def _columns(nodes: Iterable[str], edges: Sequence[Edge]) -> dict[str, int]:
    """Return the column of each node: one more than that of the last node before it.

    A conditional edge back to a node that leads to its source closes a loop, and moves nothing.
    """
    always: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        if not edge.conditional:
            always[edge.source].add(edge.target)
    before: dict[str, set[str]] = {node: set() for node in nodes}
    for edge in edges:
        if not (edge.conditional and edge.source in _reachable(edge.target, always)):
            before[edge.target].add(edge.source)
    column: dict[str, int] = {}
    for node in TopologicalSorter(before).static_order():
        column[node] = max((column[source] + 1 for source in before[node]), default=0)
    return {node: column[node] for node in before}


def _reachable(node: str, after: Mapping[str, set[str]]) -> set[str]:
    found, todo = {node}, [node]
    while todo:
        new = after.get(todo.pop(), set()) - found
        found |= new
        todo += new
    return found


def _line(
    edge: Edge,
    boxes: Mapping[str, tuple[float, float, float]],
    column_of: Mapping[str, int],
    below: float,
) -> str:
    left, y, width = boxes[edge.source]
    target, target_y, _ = boxes[edge.target]
    x, end, bend = left + width, target - 1, _GAP / 2
    columns = column_of[edge.target] - column_of[edge.source]
    if columns == 1:
        curve = f"C{x + bend:.0f} {y:.0f} {end - bend:.0f} {target_y:.0f}"
    else:  # below the boxes between them, and back if it closes a loop
        low = below + 20
        first, last = (x + bend, end - bend) if columns > 0 else (x, end)
        curve = (
            f"C{x + bend:.0f} {y:.0f} {2 * x + bend - first:.0f} {low:.0f} {first:.0f} {low:.0f}"
            f"H{last:.0f}C{2 * end - bend - last:.0f} {low:.0f} {end - bend:.0f} {target_y:.0f}"
        )
    kind = ' class="maybe"' if edge.conditional else ""
    path = f"M{x:.0f} {y:.0f}{curve} {end:.0f} {target_y:.0f}"
    return f'<path{kind} marker-end="url(#moa-tip)" d="{path}"/>'


def _box(label: str, left: float, middle: float, width: float, *, ends: bool) -> str:
    return (
        f'<rect class="{"end" if ends else "node"}" x="{left:.0f}" '
        f'y="{middle - _HEIGHT / 2:.0f}" width="{width:.0f}" height="{_HEIGHT}" rx="6"/>'
        f'<text x="{left + width / 2:.0f}" y="{middle + 4:.0f}">{escape(label)}</text>'
    )
