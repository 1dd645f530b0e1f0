// Anonymous mode: proposers are letters in a random order until the reader has voted.

import * as api from "/moa/api.js";
import { at, say } from "/moa/dom.js";
import { compare } from "/moa/dialogs.js";
import { problemWords } from "/moa/words.js";

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ";

// What this browser keeps, so that a reload shows no name before its time.
const ON = "moa-anonymous";
const VOTED = "moa-voted"; // the runs whose names the reader has seen
const KEPT = 1000; // runs

export class Anonymous {
  /** @param {() => void} changed Called when names are to be shown otherwise. */
  constructor(changed) {
    this.on = localStorage.getItem(ON) !== null;
    this.changed = changed;
    this.orders = new WeakMap(); // of the proposers of each layer, by record
    this.voted = new Set(JSON.parse(localStorage.getItem(VOTED) ?? "[]"));
  }

  /** Switch the mode. */
  set(on) {
    this.on = on;
    if (on) localStorage.setItem(ON, "on");
    else localStorage.removeItem(ON);
    this.changed();
  }

  /** Whether the names of a turn are hidden. */
  hides(record) {
    return this.on && !this.voted.has(record.run);
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

  /** The place of a proposer among the cards of its layer; 0 if all are where the mixture has them. */
  placeOf(record, { proposer, layer }) {
    return this.hides(record) ? this.#orderOf(record, layer).indexOf(proposer) : 0;
  }

  /** What a proposer is called. */
  named(record, proposer, layer) {
    if (!this.hides(record)) return proposer;
    const place = this.#orderOf(record, layer).indexOf(proposer);
    return place < 0 ? "A proposer" : `Proposer ${LETTERS[place] ?? place + 1}`;
  }

  // The proposals of a layer; under letters, in their order.
  #inOrder(record, layer) {
    const proposals = record.ofLayer(layer);
    if (!this.hides(record)) return proposals;
    const order = this.#orderOf(record, layer);
    return proposals.sort((a, b) => order.indexOf(a.proposer) - order.indexOf(b.proposer));
  }

  /** How the proposals of a turn are compared. */
  comparing(thread, turn) {
    const { record } = turn;
    return {
      hidden: this.hides(record),
      named: ({ proposer, layer }) => this.named(record, proposer, layer),
      ofLayer: (layer) => this.#inOrder(record, layer),
      votes: this.hides(record) ? (proposal) => this.#vote(thread, turn, proposal) : null,
    };
  }

  /**
   * What a copy of a turn has: no more names than the page shows.
   * @param {import("/moa/record.js").TurnRecord} record
   */
  copied(record) {
    const hidden = this.hides(record);
    const named = (proposer, layer) => this.named(record, proposer, layer);
    const proposals = record.layers
      .flatMap((layer) => this.#inOrder(record, layer))
      .map((one) => ({ ...one, proposer: named(one.proposer, one.layer), model: hidden ? "" : one.model }));
    const decisions = record.decisions.map((one) => (hidden ? renamed(one, named) : one));
    const { answer } = record;
    const chosen = answer?.chosen && { ...answer.chosen, proposer: named(answer.chosen.proposer, answer.chosen.layer) };
    const model = hidden && chosen ? "" : answer?.model;
    return { proposals, decisions, answer: answer && { ...answer, chosen, model } };
  }

  async #vote(thread, turn, { layer, proposer }) {
    const note = at("compare-note");
    try {
      const { kept } = await api.vote({
        thread_id: thread.id, run_id: turn.record.run, layer, proposer,
      });
      note.textContent = `Thank you: your vote is kept ${kept}.`;
    } catch (error) {
      const isSecond = error.status === 409; // the names were shown after the first
      note.textContent = isSecond ? error.message : problemWords(error);
      if (!isSecond) return;
    }
    say(note.textContent);
    this.voted.add(turn.record.run);
    localStorage.setItem(VOTED, JSON.stringify([...this.voted].slice(-KEPT)));
    this.changed();
    compare(turn.record, layer, this.comparing(thread, turn));
  }
}

/** A decision with other names of the proposers. */
function renamed(decision, named) {
  const of = (name) => named(name, decision.layer);
  const keys = (given) => given && Object.fromEntries(Object.entries(given).map(([name, value]) => [of(name), value]));
  const { kept, left_out, scores } = decision;
  return { ...decision, kept: kept?.map(of), left_out: keys(left_out), scores: keys(scores) };
}
