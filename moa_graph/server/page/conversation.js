// The conversation: the thread that is shown, its turns, and the run that goes on.

import * as api from "/moa/api.js";
import { Anonymous } from "/moa/anonymous.js";
import { at, say } from "/moa/dom.js";
import { compare, showProposal } from "/moa/dialogs.js";
import { onceSeen } from "/moa/rendering.js";
import { followEnd } from "/moa/scrolling.js";
import { Thread } from "/moa/thread.js";
import { Turn } from "/moa/turn.js";
import { problemWords } from "/moa/words.js";

const REJOINS = [500, 1000, 2000, 4000, 8000]; // milliseconds before each attempt

export class Conversation {
  /** @param {(thread: Thread) => void} changed Called when another thread is shown. */
  constructor(changed) {
    this.thread = new Thread(null);
    this.changed = changed;
    this.anonymous = new Anonymous(() => this.#showAll());
    /** @type {Map<string, Turn>} */
    this.turns = new Map();
    this.running = null; // the turn and the run that goes on
    this.toEnd = followEnd(at("turns"), at("to-end"));
    this.acts = {
      edit: (turn, question) => this.#edit(turn, question),
      again: (turn) => this.#start(() => this.thread.askAgain(turn.node, turn.record.question)),
      aggregate: (turn) => this.#aggregate(turn),
      resume: (turn) => this.#resume(turn),
      turnTo: (turn, step) => this.#turnTo(turn, step),
      open: (turn, proposal) => {
        const hidden = this.anonymous.hides(turn.record);
        const name = this.anonymous.named(turn.record, proposal.proposer, proposal.layer);
        showProposal(proposal, name, !hidden);
      },
      compare: (turn, layer) => compare(turn.record, layer, this.anonymous.comparing(this.thread, turn)),
      named: (record, proposer, layer) => this.anonymous.named(record, proposer, layer),
      placeOf: (record, proposal) => this.anonymous.placeOf(record, proposal),
    };
  }

  get busy() {
    return this.running !== null;
  }

  // --- what is shown ------------------------------------------------------------------------

  #showAll() {
    for (const turn of this.turns.values()) turn.show();
  }

  // Show the turns of the thread's branch; those that are there already stay.
  #showPath() {
    const shown = this.thread.path.map((node) => this.#turnOf(node));
    at("turns").querySelectorAll(".turn").forEach((root) => {
      if (!shown.some((turn) => turn.root === root)) root.remove();
    });
    for (const [place, turn] of shown.entries()) {
      const there = at("turns").querySelectorAll(".turn")[place];
      if (there !== turn.root) at("turns").insertBefore(turn.root, there ?? null);
      turn.showBranches(this.thread.versions(turn.node));
    }
    at("empty").hidden = shown.length > 0;
    at("turns").classList.toggle("started", shown.length > 0);
  }

  #turnOf(node) {
    if (!this.turns.has(node.id)) {
      const turn = new Turn(node, this.acts);
      this.turns.set(node.id, turn);
      turn.setBusy(false);
      if (!node.loaded && node.runs.length) onceSeen(turn.root, () => this.#complete(turn));
    }
    return this.turns.get(node.id);
  }

  async #complete(turn) {
    if (turn === this.running?.turn) return;
    try {
      await this.thread.load(turn.node);
    } catch {
      return; // the answer is there; its proposals are read when the turn is shown again
    }
    if (turn !== this.running?.turn) turn.setBusy(false);
  }

  // --- threads --------------------------------------------------------------------------------

  /** Begin a new thread, which is created with the first question. */
  clear() {
    this.#forget(new Thread(null));
    at("question").focus();
  }

  #forget(thread) {
    this.thread = thread;
    this.turns.clear();
    this.#showPath();
    this.changed(thread);
  }

  /** Show a thread, and follow the run that goes on in it. */
  async open(id) {
    const thread = new Thread(id);
    const goesOn = await thread.restore();
    this.#forget(thread);
    this.toEnd();
    if (!goesOn) return;
    const turn = this.#turnOf(thread.path.at(-1));
    const drawing = await api.graph(goesOn.assistant_id).catch(() => null);
    turn.record.expect(drawing);
    await this.#follow(turn, goesOn.run_id, api.join(id, goesOn.run_id));
  }

  async #turnTo(turn, step) {
    const versions = this.thread.versions(turn.node);
    const other = versions[versions.indexOf(turn.node) + step];
    if (!other || this.busy) return;
    try {
      await this.thread.show(other);
    } catch (error) {
      say(problemWords(error));
      return;
    }
    this.#showPath();
    for (const node of this.thread.path) this.#turnOf(node).setBusy(false);
    this.#turnOf(other).branches.querySelector("button:enabled")?.focus();
  }

  // --- runs -------------------------------------------------------------------------------------

  /** Ask a question behind the branch that is shown. */
  ask(question) {
    return this.#start(() => this.thread.ask(question), question);
  }

  async #edit(turn, question) {
    await this.#start(async () => {
      const asked = await this.thread.askAgain(turn.node, question);
      await this.thread.ensure(question);
      return asked;
    });
  }

  async #aggregate(turn) {
    await this.#start(async () => {
      const asked = await this.thread.aggregateAgain(turn.node);
      if (!asked) say("The aggregator was not asked in this turn.");
      return asked && { ...asked, assistant: turn.record.assistant };
    });
  }

  async #resume(turn) {
    const { record } = turn;
    if (record.problem?.lost) {
      record.problem = null;
      await this.#follow(turn, record.run, api.join(this.thread.id, record.run));
      return;
    }
    await this.#start(async () => {
      const asked = await this.thread.resume(turn.node);
      if (!asked) return this.thread.askAgain(turn.node, record.question);
      if (asked.finished) {
        turn.show();
        return null;
      }
      return { ...asked, assistant: record.assistant };
    });
  }

  /**
   * Start a run.
   * @param {() => Promise<object|null>|object|null} prepare What it is asked; see Thread.
   * @param {string} [question] The first of a new thread.
   */
  async #start(prepare, question) {
    if (this.busy) return;
    this.#setRunning({ turn: null, run: null });
    let turn = null;
    try {
      if (question) await this.#shown(question);
      const asked = await prepare();
      if (!asked) return;
      const assistant = asked.assistant || at("assistant").value;
      Object.assign(asked.node.record, { assistant, problem: null, interrupted: false });
      this.turns.get(asked.node.parent?.id)?.show(); // another tab may have gone on with it
      this.thread.path = [...this.#before(asked.node), asked.node];
      this.#showPath();
      turn = this.#turnOf(asked.node);
      const drawing = await api.graph(assistant);
      if (asked.messages) turn.record.expect(drawing);
      this.toEnd();
      const events = api.start(this.thread.id, { ...asked, assistant });
      await this.#follow(turn, null, events, assistant);
    } catch (error) {
      if (turn) turn.record.problem = error;
      else if (question) throw error;
      else at("notice").textContent = problemWords(error);
    } finally {
      this.#setRunning(null);
      turn?.setBusy(false);
    }
  }

  async #shown(question) {
    const isNew = !this.thread.id;
    await this.thread.ensure(question);
    if (isNew) this.changed(this.thread);
  }

  #before(node) {
    const before = [];
    for (let one = node.parent; one; one = one.parent) before.unshift(one);
    return before;
  }

  // Follow the events of a run to its end, also over lost connections; then read the state.
  async #follow(turn, run, events, assistant) {
    const { record } = turn;
    const started = performance.now() - (record.seconds ?? 0) * 1000;
    this.#setRunning({ turn, run });
    turn.setBusy(true);
    let last = "-1";
    const take = async (stream) => {
      for await (const event of stream) {
        if (event.id) last = event.id;
        const changes = record.take(event);
        if (event.name === "metadata") this.#began(turn, event.data.run_id, assistant);
        turn.showChanges(changes);
        const { without } = changes;
        const name = without && this.anonymous.named(record, without.proposer, without.layer);
        say(without ? `${name} of layer ${without.layer} gave no answer.` : changes.said);
      }
    };
    try {
      await take(events).catch((error) => this.#rejoin(error, take, () => last));
      record.seconds = (performance.now() - started) / 1000;
      await this.thread.settle(turn.node).catch((error) => {
        if (!record.answer?.whole) throw error; // else the answer is there, and is read again later
      });
      say(record.answer && !record.problem ? "Done." : "");
    } catch (error) {
      record.problem = error;
    } finally {
      record.stop();
      this.#setRunning(null);
      turn.setBusy(false);
      for (const node of this.thread.path) this.#turnOf(node).showBranches(this.thread.versions(node));
    }
  }

  #began(turn, run, assistant) {
    this.running.run = run;
    this.thread.begin(turn.node, run, assistant ?? turn.record.assistant);
    at("stop").disabled = false;
  }

  async #rejoin(error, take, last) {
    const run = this.running?.run;
    if (!run || error.status) throw error;
    for (const wait of REJOINS) {
      say("The connection was lost. Trying again.");
      await new Promise((resume) => setTimeout(resume, wait));
      try {
        await take(api.join(this.thread.id, run, last()));
        return;
      } catch (again) {
        error = again;
      }
    }
    throw Object.assign(error, { lost: true });
  }

  /** Stop the run that goes on. */
  async stop() {
    const { run } = this.running ?? {};
    if (!run) return;
    at("stop").disabled = true;
    say("Stopping.");
    try {
      await api.cancel(this.thread.id, run);
    } catch (error) {
      say(problemWords(error));
      at("stop").disabled = false;
    }
  }

  #setRunning(running) {
    this.running = running;
    document.body.classList.toggle("busy", this.busy);
    at("send").hidden = this.busy;
    at("stop").hidden = !this.busy;
    at("stop").disabled = !running?.run;
    for (const id of ["assistant", "new", "history-open"]) at(id).disabled = this.busy;
  }
}
