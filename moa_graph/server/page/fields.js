// Fields of the builder's form.

import { el } from "/moa/dom.js";
import { choose, notShown } from "/moa/recipe.js";

let made = 0;
const nextId = () => `field-${(made += 1)}`;

/** Number the fields anew: those before a change of the form keep their ids, and so the focus. */
export const renumber = () => (made = 0);

const spaced = (name) => name.replaceAll("_", " ");

/**
 * A labelled input.
 * @param {string} label
 * @param {object} given Attributes and listeners; `area` makes it a text of several lines.
 */
export function field(label, { value = "", area = false, class: name = "", ...given }) {
  const id = nextId();
  const input = el(area ? "textarea" : "input", { id, type: area ? null : "text", ...given, rows: area ? 2 : null, dir: "auto" });
  input.value = value;
  return el("div", { class: `field ${name}` }, el("label", { for: id, text: label }), input);
}

function choice(label, options, value, onchange) {
  const id = nextId();
  const select = el("select", { id, onchange: () => onchange(select.value) },
    ...options.map(([name, text, title]) => el("option", { value: name, text, title })));
  select.value = value;
  return el("div", { class: "field" }, el("label", { for: id, text: label }), select);
}

/** Names of settings that have no field and are kept; null if there are none. @param {string[]} names */
export const alsoSet = (names) =>
  names.length ? el("p", { class: "summary", text: `Also set, and kept: ${names.map(spaced).join(", ")}.` }) : null;

/**
 * The choice of a strategy, and the fields of its arguments.
 * @param {string} label
 * @param {import("/moa/recipe.js").Chosen} chosen What is changed.
 * @param {object[]} offered The strategies of this place.
 * @param {string} otherwise What happens without one.
 * @param {() => void} changed Called when another strategy is chosen.
 */
export function strategyFields(label, chosen, offered, otherwise, changed) {
  const options = [["", otherwise, ""], ...offered.map(({ name, summary }) => [name, spaced(name), summary])];
  const known = offered.find(({ name }) => name === chosen.strategy);
  const shown = known?.arguments.map(({ name }) => name) ?? [];
  return el(
    "div",
    { class: "strategy" },
    choice(label, options, chosen.strategy, (name) => {
      choose(chosen, name);
      changed();
    }),
    known ? el("p", { class: "summary", text: known.summary }) : null,
    alsoSet([
      ...notShown(chosen.given ?? {}, "strategy").filter((name) => !shown.includes(name)),
      ...chosen.more.map((one) => one.strategy ?? one),
    ]),
    known?.arguments.length
      ? el("div", { class: "grid" }, ...known.arguments.map((argument) => argumentField(argument, chosen.arguments)))
      : null,
  );
}

function argumentField({ name, kind, required, default: usual, choices }, given) {
  const set = (value) => (given[name] = value);
  const label = `${spaced(name)}${required ? "" : " (optional)"}`;
  const value = given[name] ?? "";
  if (kind === "choice" || kind === "flag") {
    const values = kind === "flag" ? ["true", "false"] : choices;
    const none = usual === null || usual === undefined ? "as usual" : `${usual} (as usual)`;
    return choice(label, [["", none], ...values.map((one) => [one, one])], value, set);
  }
  const listen = { value, oninput: ({ target }) => set(target.value), required };
  if (kind === "model") return field(label, { ...listen, list: "offered-models", placeholder: "provider:model" });
  if (kind === "text") return field(label, { ...listen, placeholder: usual ?? "" });
  return field(label, {
    ...listen, type: "number", step: kind === "integer" ? 1 : "any", placeholder: usual ?? "",
  });
}
