// Proposals as cards: one for each proposer, in a column for each layer.

import { el } from "/moa/dom.js";
import { htmlOf, onceSeen } from "/moa/rendering.js";
import { count, stateWords } from "/moa/words.js";

const ticking = new Set();
setInterval(() => ticking.forEach((card) => card.showFacts()), 200);

/** A card of one proposal. */
class Card {
  /**
   * @param {import("/moa/record.js").ProposalRecord} proposal
   * @param {{open: Function, named: Function, placeOf: Function}} acts See `Panel`.
   */
  constructor(proposal, { open, named, placeOf }) {
    this.proposal = proposal;
    this.named = named;
    this.placeOf = placeOf;
    this.name = el("span", { class: "name" });
    this.facts = el("span", { class: "facts" });
    this.verdict = el("p", { class: "verdict" });
    this.body = el("div", { class: "text", dir: "auto" });
    this.root = el(
      "div",
      { class: "card", "data-node": `layer_${proposal.layer}_${proposal.proposer}` },
      el("button", { type: "button", class: "open", onclick: () => open(proposal) }, this.name, " ", this.facts),
      this.verdict,
      this.body,
    );
  }

  show(verdict) {
    const { state, error, text } = this.proposal;
    this.root.dataset.state = state;
    this.root.dataset.verdict = verdict.kind;
    this.name.textContent = this.named(this.proposal);
    this.root.style.order = this.placeOf(this.proposal);
    this.verdict.textContent = verdict.words;
    if (state === "writing") ticking.add(this);
    else ticking.delete(this);
    this.showFacts();
    // Only a part of a long text can be seen, and a browser lays out all that it is given.
    const part = state === "writing" ? text.slice(-1500) : text.slice(0, 1500);
    const complete = ["ok", "cached"].includes(state);
    if (this.shown === part && this.complete === complete && !error) return;
    this.shown = part;
    this.complete = complete;
    this.body.classList.remove("markdown");
    this.body.textContent = error || part;
    this.body.scrollTop = state === "writing" ? this.body.scrollHeight : 0;
    if (complete) onceSeen(this.root, () => this.#render(part));
  }

  async #render(text) {
    const html = await htmlOf(text).catch(() => null);
    if (html === null || text !== this.shown) return;
    this.body.innerHTML = html;
    this.body.classList.add("markdown");
    // The whole proposal is in the dialog: here, nothing in it can be reached.
    this.body.querySelectorAll("a").forEach((link) => link.removeAttribute("href"));
  }

  showFacts() {
    const { state, seconds, since, tokens } = this.proposal;
    const parts = [stateWords(state)];
    const passed = state === "writing" && since ? (performance.now() - since) / 1000 : seconds;
    if (passed !== null) parts.push(`${passed.toFixed(1)} s`);
    if (tokens) parts.push(count(tokens, "token"));
    this.facts.textContent = parts.join(" · ");
  }

  remove() {
    ticking.delete(this);
    this.root.remove();
  }
}

/** The panel of a turn: its proposals, collapsed once there is an answer. */
export class Panel {
  /**
   * @param {import("/moa/record.js").TurnRecord} record
   * @param {{open: Function, compare: Function, named: Function, placeOf: Function}} acts Of a
   *   proposal: shows the whole of it, what its proposer is called, its place in the layer. Of a
   *   layer: compares its proposals.
   */
  constructor(record, acts) {
    this.record = record;
    this.acts = acts;
    this.cards = new Map();
    this.columns = new Map();
    this.layers = el("div", { class: "layers", tabindex: "0", role: "group", "aria-label": "Layers" });
    this.summary = el("summary");
    this.root = el("details", { class: "panel", open: true }, this.summary, this.layers);
    this.root.hidden = true;
  }

  /** Show what has changed. @param {Iterable<string>} keys */
  show(keys = this.record.proposals.keys()) {
    for (const key of keys) {
      const proposal = this.record.proposals.get(key);
      if (!proposal) {
        this.cards.get(key)?.remove();
        this.cards.delete(key);
        continue;
      }
      if (!this.cards.has(key)) this.#add(key, proposal);
      this.cards.get(key).show(this.#verdict(proposal));
    }
    this.#summarize();
  }

  /** Show everything anew. */
  showAll() {
    for (const key of [...this.cards.keys()]) {
      if (this.record.proposals.has(key)) continue;
      this.cards.get(key).remove();
      this.cards.delete(key);
    }
    for (const [layer, column] of this.columns) {
      column.hidden = !this.record.ofLayer(layer).length;
    }
    this.show();
  }

  #add(key, proposal) {
    const card = new Card(proposal, this.acts);
    this.cards.set(key, card);
    this.#column(proposal.layer).append(card.root);
  }

  #column(layer) {
    if (!this.columns.has(layer)) {
      const id = `layer-${crypto.getRandomValues(new Uint32Array(1))[0]}`;
      const head = el(
        "div",
        { class: "layer-head" },
        el("h3", { id, text: `Layer ${layer}` }),
        el("button", {
          type: "button", class: "quiet", text: "Compare", "aria-label": `Compare layer ${layer}`,
          onclick: () => this.acts.compare(layer),
        }),
      );
      const column = el("section", { class: "layer", "aria-labelledby": id }, head);
      this.columns.set(layer, column);
      const later = [...this.columns.keys()].filter((other) => other > layer);
      this.layers.insertBefore(column, this.columns.get(Math.min(...later)) ?? null);
    }
    return this.columns.get(layer);
  }

  #verdict({ layer, proposer }) {
    const chosen = this.record.answer?.chosen;
    if (chosen?.layer === layer && chosen.proposer === proposer) {
      return { kind: "chosen", words: "the answer" };
    }
    for (const decision of this.record.decisions) {
      if (decision.layer !== layer) continue;
      const reason = decision.left_out?.[proposer];
      if (reason) return { kind: "left-out", words: `left out: ${reason}` };
    }
    return { kind: "", words: "" };
  }

  #summarize() {
    const all = [...this.record.proposals.values()];
    this.root.hidden = !all.length;
    const failed = all.filter(({ state }) => ["failed", "timed_out"].includes(state)).length;
    const parts = [
      `${count(all.length, "proposal")} in ${count(this.record.layers.length, "layer")}`,
      failed ? `${failed} failed` : "",
    ];
    this.summary.textContent = parts.filter(Boolean).join(" · ");
    this.root.classList.toggle("many", all.length > 12);
  }
}
