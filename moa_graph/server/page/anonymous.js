// Anonymous mode: proposers are letters in a random order until the reader has voted.

import * as api from "/moa/api.js";
import { at, say } from "/moa/dom.js";
import { compare } from "/moa/dialogs.js";
import { problemWords } from "/moa/words.js";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

export class Anonymous {
  /** @param {() => void} changed Called when names are to be shown otherwise. */
  constructor(changed) {
    this.on = false;
    this.changed = changed;
    this.orders = new WeakMap(); // of the proposers of each layer, by record
    this.voted = new WeakSet(); // the records whose names the reader has seen
  }

  /** Switch the mode. */
  set(on) {
    this.on = on;
    document.body.classList.toggle("anonymous", on);
    this.changed();
  }

  /** Whether the names of a turn are hidden. */
  hides(record) {
    return this.on && !this.voted.has(record);
  }

  #orderOf(record, layer) {
    if (!this.orders.has(record)) this.orders.set(record, new Map());
    const layers = this.orders.get(record);
    const order = layers.get(layer) ?? [];
    for (const { proposer } of record.ofLayer(layer)) {
      if (order.includes(proposer)) continue;
      const [random] = crypto.getRandomValues(new Uint32Array(1));
      order.splice(random % (order.length + 1), 0, proposer);
    }
    layers.set(layer, order);
    return order;
  }

  /** What a proposer is called. */
  named(record, proposer, layer) {
    if (!this.hides(record)) return proposer;
    const place = this.#orderOf(record, layer).indexOf(proposer);
    return place < 0 ? "A proposer" : `Proposer ${LETTERS[place] ?? place + 1}`;
  }

  /** How the proposals of a turn are compared. */
  comparing(thread, turn) {
    const { record } = turn;
    return {
      hidden: this.hides(record),
      named: ({ proposer, layer }) => this.named(record, proposer, layer),
      order: (proposals) => {
        if (!this.hides(record)) return proposals;
        const order = proposals.length ? this.#orderOf(record, proposals[0].layer) : [];
        return [...proposals].sort((a, b) => order.indexOf(a.proposer) - order.indexOf(b.proposer));
      },
      votes: this.hides(record) ? (proposal) => this.#vote(thread, turn, proposal) : null,
    };
  }

  async #vote(thread, turn, { layer, proposer }) {
    const note = at("compare-note");
    try {
      const { kept } = await api.vote({
        thread_id: thread.id, run_id: turn.record.run, layer, proposer,
      });
      note.textContent = `Thank you: your vote is kept ${kept}.`;
    } catch (error) {
      note.textContent = problemWords(error);
      return;
    }
    say(note.textContent);
    this.voted.add(turn.record);
    this.changed();
    compare(turn.record, layer, this.comparing(thread, turn));
  }
}
