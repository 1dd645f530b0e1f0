// Markdown that the server renders, shown where it is needed.

import { markdown } from "/moa/api.js";
import { button, copy, el } from "/moa/dom.js";

const EVERY = 300; // milliseconds between two renderings of one text that grows

/** @type {Map<string, string>} The HTML of texts that were rendered. */
const known = new Map();
const KEPT = 500;

/** The HTML of a text; nothing in it runs. @returns {Promise<string>} */
export async function htmlOf(text) {
  if (!known.has(text)) {
    const html = await markdown(text);
    if (known.size >= KEPT) known.delete(known.keys().next().value);
    known.set(text, html);
  }
  return known.get(text);
}

/** An element that shows a Markdown text, which may grow. */
export class Rendered {
  constructor() {
    this.root = el("div", { class: "markdown", dir: "auto" });
    this.text = "";
    this.shown = null;
  }

  /**
   * Show a text; until it is rendered, what was shown before stays.
   * @param {string} text
   * @param {{grows?: boolean}} [options] Whether more of it is to come.
   * @returns {Promise<void>} When the latest text is shown.
   */
  set(text, { grows = false } = {}) {
    this.text = text;
    this.grows = grows;
    this.running ??= this.#render().finally(() => (this.running = null));
    return this.running;
  }

  // At most one rendering at a time, and always one of the latest text.
  async #render() {
    if (this.shown === this.text) return;
    while (this.shown !== this.text) {
      const text = this.text;
      try {
        const html = this.grows ? await markdown(text) : await htmlOf(text);
        this.root.innerHTML = html;
        this.root.classList.remove("plain");
      } catch {
        this.root.textContent = text;
        this.root.classList.add("plain");
      }
      this.shown = text;
      if (this.grows) await new Promise((resume) => setTimeout(resume, EVERY));
    }
    for (const block of this.root.querySelectorAll("pre")) this.#addCopy(block);
    this.root.querySelectorAll("table, pre, .formula").forEach((wide) => (wide.tabIndex = 0));
    // Most formulas within a line do not scroll, and are no stop for the Tab key.
    this.root.querySelectorAll(".inline-formula").forEach((formula) =>
      onceSeen(formula, () => formula.scrollWidth > formula.clientWidth && (formula.tabIndex = 0)));
  }

  #addCopy(block) {
    if (block.parentElement.className === "code") return;
    const text = block.textContent;
    const made = button("Copy", () => copy(text, made), { class: "copy" });
    block.before(el("div", { class: "code" }, made));
    block.previousSibling.append(block);
  }
}

const whenSeen = new WeakMap();
const watcher = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      whenSeen.get(target)?.();
    }
  },
  { rootMargin: "800px" },
);

/** Do something once, as soon as an element is nearly in view. */
export function onceSeen(element, act) {
  whenSeen.set(element, act);
  watcher.observe(element);
}
