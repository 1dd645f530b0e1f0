// A mixture as a graph: the question, the layers, the aggregator, from top to bottom.

import { el } from "/moa/dom.js";
import { count } from "/moa/words.js";

const BOX = { width: 168, height: 46 };
const GAP = { x: 16, y: 40 };
const EDGE = 12;
const SIDE = 70; // room for the ways of early exits

const INSIDE = 12; // beside the text of a box
const LONGEST = 100; // characters that are measured

const pen = document.createElement("canvas").getContext("2d");

/** A text, cut with an ellipsis if it is wider than a box. */
function short(text, font) {
  pen.font = font;
  const fits = (part) => pen.measureText(part).width <= BOX.width - 2 * INSIDE;
  if (text.length <= LONGEST && fits(text)) return text;
  const letters = [...text].slice(0, LONGEST);
  while (letters.length && !fits(`${letters.join("")}…`)) letters.pop();
  return `${letters.join("")}…`;
}

const shortModel = (model) => model.split(/[:/]/).at(-1);

/** Boxes of each row: `{title, note, kind}`. */
function rowsOf(recipe) {
  const start = [{ title: "Question", note: "", kind: "end" }];
  const rows = [start];
  if (recipe.route.strategy) {
    const { model } = recipe.route.arguments;
    rows.push([{ title: "First pass", note: shortModel(model ?? ""), kind: "step" }]);
  }
  for (const layer of recipe.layers) {
    rows.push(layer.members.map(({ model, name, samples, prompt }) => ({
      title: name.trim() || shortModel(model) || "a model",
      note: [name.trim() && shortModel(model), Number(samples) > 1 && `${samples} samples`, prompt.trim() && "role"]
        .filter(Boolean).join(" · "),
      kind: model.trim() ? "proposer" : "empty",
      stacked: Number(samples) > 1,
    })));
    const further = layer.select.more.map((one) => ({ strategy: one.strategy ?? one }));
    const steps = [layer.select, ...further].map((chosen) => ["select", chosen]);
    for (const [place, { strategy }] of [...steps, ["until", layer.until]]) {
      if (strategy) rows.push([{ title: strategy, note: place, kind: "step" }]);
    }
  }
  const { strategy } = recipe.answer;
  const model = strategy ? Object.values(recipe.answer.arguments).find((text) => text.includes?.(":")) : recipe.model;
  rows.push([{
    title: strategy || "Aggregator", note: shortModel(model ?? ""),
    kind: strategy || recipe.model.trim() ? "aggregator" : "empty",
  }]);
  return rows;
}

/**
 * The drawing.
 * @param {import("/moa/recipe.js").Recipe} recipe
 * @returns {SVGElement}
 */
export function drawingOf(recipe) {
  const rows = rowsOf(recipe);
  const widest = Math.max(...rows.map((boxes) => boxes.length));
  const exits = recipe.layers.filter(({ until }) => until.strategy).length;
  const inner = widest * (BOX.width + GAP.x) - GAP.x;
  const width = inner + 2 * EDGE + 2 * (exits && SIDE);
  const height = rows.length * (BOX.height + GAP.y) - GAP.y + 2 * EDGE;
  const placed = rows.map((boxes, row) => {
    const own = boxes.length * (BOX.width + GAP.x) - GAP.x;
    return boxes.map((box, place) => ({
      ...box,
      x: (width - own) / 2 + place * (BOX.width + GAP.x),
      y: EDGE + row * (BOX.height + GAP.y),
    }));
  });
  const words = `${recipe.layers.map(({ members }, place) => `layer ${place + 1}: ${count(members.length, "proposer")}`).join(", ")}; then the ${recipe.answer.strategy || "aggregator"}`;
  const svg = el("svg:svg", {
    viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": `The mixture. ${words}.`,
  });
  const lines = el("svg:g", { class: "lines" });
  const boxes = el("svg:g", { class: "boxes" });
  for (const [place, row] of placed.entries()) {
    for (const to of row) {
      for (const from of placed[place - 1] ?? []) lines.append(lineBetween(from, to));
      boxes.append(boxOf(to));
    }
  }
  for (const condition of placed.flat().filter(({ note }) => note === "until")) {
    lines.append(exitOf(condition, placed.at(-1)[0], width));
  }
  svg.append(lines, boxes);
  return svg;
}

function lineBetween(from, to) {
  const [x1, y1, x2, y2] = [from.x + BOX.width / 2, from.y + BOX.height, to.x + BOX.width / 2, to.y];
  const middle = (y1 + y2) / 2;
  return el("svg:path", { d: `M${x1} ${y1}C${x1} ${middle} ${x2} ${middle} ${x2} ${y2}` });
}

// The way past the further layers, if the condition holds.
function exitOf(from, to, width) {
  const [y1, y2, side] = [from.y + BOX.height / 2, to.y + BOX.height / 2, width - 8];
  const turn = Math.min(40, (y2 - y1) / 2);
  return el("svg:path", {
    class: "exit",
    d: `M${from.x + BOX.width} ${y1}C${side} ${y1} ${side} ${y1} ${side} ${y1 + turn}L${side} ${y2 - turn}C${side} ${y2} ${side} ${y2} ${to.x + BOX.width} ${y2}`,
  });
}

function boxOf({ title, note, kind, stacked, x, y }) {
  const group = el("svg:g", { class: `box ${kind}` });
  const rectangle = (dx) => el("svg:rect", { x: x + dx, y: y - dx, width: BOX.width, height: BOX.height, rx: 9 });
  if (stacked) group.append(rectangle(4));
  group.append(
    rectangle(0),
    el("svg:title", { text: [title, note].filter(Boolean).join(", ") }),
    el("svg:text", { x: x + INSIDE, y: y + (note ? 20 : 28), class: "title", text: short(title, "600 13px system-ui, sans-serif") }),
  );
  if (note) group.append(el("svg:text", { x: x + INSIDE, y: y + 36, class: "note", text: short(note, "11.5px system-ui, sans-serif") }));
  return group;
}
