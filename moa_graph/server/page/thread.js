// A thread as a tree of turns: to ask a question again, edited or not, makes a branch.

import * as api from "/moa/api.js";
import { newId } from "/moa/dom.js";
import { TurnRecord, textOf } from "/moa/record.js";

/**
 * One turn of a branch.
 * @typedef {object} TurnNode
 * @property {string} id
 * @property {TurnNode|null} parent The turn before.
 * @property {"ask"|"again"|"aggregate"} kind Whether it asks everybody, or the aggregator alone.
 * @property {object} filter What the metadata of its states have.
 * @property {TurnRecord} record
 * @property {boolean} loaded Whether the record has what the server knows.
 * @property {object|null} head The checkpoint behind it.
 * @property {object[]} runs Its runs, the oldest first; a resumed turn has several.
 */

const NODE = "moa_node"; // names in the metadata of runs, and so of states
const PARENT = "moa_parent";
const KIND = "moa_kind";
const MINE = { moa_page: true };
const LONGEST = 80; // characters of a title, and of a question that is searched
const SEARCHED = 30; // questions; runs carry the metadata of their thread

export class Thread {
  /** @param {string|null} id */
  constructor(id) {
    this.id = id;
    /** @type {Map<string, TurnNode>} */
    this.nodes = new Map();
    /** @type {TurnNode[]} The turns of the branch that is shown. */
    this.path = [];
    /** @type {TurnNode|null} The turn of the latest run, whose end is the thread's state. */
    this.latest = null;
    this.title = "";
    this.questions = []; // for the search in the history
  }

  // --- the tree ---------------------------------------------------------------------------

  #add(id, parent, kind, filter, question = "") {
    const node = {
      id, parent, kind, filter, record: new TurnRecord(question), loaded: false, head: null,
      runs: [],
    };
    this.nodes.set(id, node);
    return node;
  }

  /** The turns that answer in the place of a turn, itself included, the oldest first. */
  versions(node) {
    return [...this.nodes.values()].filter(
      (other) => other.parent === node.parent && (other === node || other.runs.length || other.loaded),
    );
  }

  /** Whether the thread's latest state is the end of the branch that is shown. */
  get atLatest() {
    return !this.path.length || !this.latest || this.latest === this.path.at(-1);
  }

  #pathTo(node) {
    const path = [];
    for (let one = node; one; one = one.parent) path.unshift(one);
    return path;
  }

  /** Show the branch of another version of a turn, to its latest end. */
  async show(node) {
    let last = node;
    for (;;) {
      const next = [...this.nodes.values()].filter((other) => other.parent === last).at(-1);
      if (!next) break;
      last = next;
    }
    this.path = this.#pathTo(last);
    await Promise.all(this.path.map((one) => this.load(one)));
  }

  // --- what the server knows --------------------------------------------------------------

  /** Read the thread. @returns {Promise<object|null>} The run that goes on, if one does. */
  async restore() {
    const [state, runs] = await Promise.all([api.state(this.id), api.runs(this.id)]);
    this.title = state.metadata?.moa_title ?? "";
    this.questions = state.metadata?.moa_questions ?? [];
    runs.sort((a, b) => a.created_at.localeCompare(b.created_at));
    let before = null;
    for (const run of runs) before = this.#placed(run, before);
    const latest = runs.at(-1);
    this.latest = before;
    this.#assign(before, state);
    const goesOn = latest && ["pending", "running"].includes(latest.status);
    const last = this.path.at(-1);
    if (last && !goesOn && isOf(last, state)) {
      last.record.settle(state);
      last.head = state.checkpoint;
      last.loaded = true;
    } else if (last && latest?.status === "error") {
      last.record.problem = { message: "The run failed before its first step." };
    }
    return goesOn ? latest : null;
  }

  #placed(run, before) {
    const { [NODE]: id, [PARENT]: parent, [KIND]: kind } = run.metadata ?? {};
    const node =
      this.nodes.get(id) ??
      this.#add(
        id ?? run.run_id,
        id ? (this.nodes.get(parent) ?? null) : before,
        kind ?? "ask",
        id ? { [NODE]: id } : { run_id: run.run_id },
      );
    node.runs.push(run);
    this.#time(node);
    return node;
  }

  #time(node) {
    const { record } = node;
    record.assistant = node.runs.at(-1).assistant_id;
    record.run = node.runs.at(-1).run_id;
    record.seconds = node.runs
      .map((run) => (new Date(run.updated_at) - new Date(run.created_at)) / 1000)
      .reduce((a, b) => a + b, 0);
  }

  // Give the turns of the latest branch their questions and answers. A thread of other clients may
  // have messages without runs.
  #assign(last, state) {
    const segments = segmentsOf(state.values?.messages ?? []);
    this.path = last ? this.#pathTo(last) : [];
    const asked = last?.runs[0]?.kwargs?.input?.messages?.at(-1);
    if (asked && textOf(asked) !== segments.at(-1)?.question) {
      segments.push({ question: textOf(asked), messages: [] }); // not in the state yet
    }
    while (this.path.length < segments.length) {
      const made = this.#add(newId(), null, "ask", {});
      made.loaded = true;
      if (this.path[0]) this.path[0].parent = made;
      this.path.unshift(made);
    }
    for (const node of this.path.toReversed()) {
      const segment = segments.pop();
      if (!segment) break;
      node.record.question = segment.question;
      node.record.settleMessages(segment.messages);
    }
  }

  /** Complete the record of a turn by its last state. */
  async load(node) {
    if (node.loaded) return;
    node.loaded = true;
    try {
      const [state] = await api.states(this.id, node.filter, 1);
      if (!state) return;
      node.head = state.checkpoint;
      node.record.settle(state);
    } catch (error) {
      node.loaded = false;
      throw error;
    }
  }

  /** Complete all records of the branch that is shown. */
  async loadAll() {
    for (const node of this.path) await this.load(node);
  }

  /** Correct a turn when its run has ended. */
  async settle(node) {
    node.loaded = false;
    await this.load(node);
  }

  // --- new runs -----------------------------------------------------------------------------

  /** The thread, which is created for the first question. */
  async ensure(question) {
    this.questions = [...this.questions, question.slice(0, LONGEST)].slice(-SEARCHED);
    if (!this.id) {
      this.title = question.slice(0, LONGEST);
      const metadata = { ...MINE, moa_title: this.title, moa_questions: this.questions };
      this.id = (await api.createThread(metadata)).thread_id;
    } else {
      await api.describeThread(this.id, { moa_questions: this.questions }).catch(() => null);
    }
    return this.id;
  }

  /** A turn behind the branch that is shown, and what its run is asked. */
  async ask(question) {
    const parent = this.path.at(-1) ?? null;
    const checkpoint = this.atLatest ? undefined : await this.#headOf(parent);
    return this.#asked(parent, "ask", question, checkpoint);
  }

  /** A turn in the place of another, with an edited question or the same. */
  async askAgain(node, question) {
    const checkpoint = await (node.parent ? this.#headOf(node.parent) : this.#beginning());
    if (!checkpoint && this.latest) {
      throw new Error("The server has no state from which this question can be asked again.");
    }
    return this.#asked(node.parent, "again", question, checkpoint);
  }

  #asked(parent, kind, question, checkpoint) {
    const id = newId();
    const node = this.#add(id, parent, kind, { [NODE]: id }, question);
    const messages = [{ role: "user", content: question, id: `moa-${id}` }];
    return { node, messages, checkpoint, metadata: this.#metadata(node) };
  }

  /** A turn with the proposals of another, whose answer is made anew; null if there is no step. */
  async aggregateAgain(node) {
    const states = await api.states(this.id, node.filter, 200);
    const at = states.findLast(({ next }) => next?.length === 1 && next[0] === "aggregator");
    if (!at) return null;
    const id = newId();
    const made = this.#add(id, node.parent, "aggregate", { [NODE]: id }, node.record.question);
    made.record.settle({ ...at, tasks: [], next: [] });
    made.record.answer = null;
    made.record.problem = null;
    return { node: made, messages: null, checkpoint: at.checkpoint, metadata: this.#metadata(made) };
  }

  /** What a run is asked that goes on where the last one of the thread ended. */
  resume(node) {
    return { node, messages: null, checkpoint: undefined, metadata: this.#metadata(node) };
  }

  #metadata(node) {
    return { [NODE]: node.id, [PARENT]: node.parent?.id ?? "", [KIND]: node.kind };
  }

  async #headOf(node) {
    if (!node.head) {
      node.loaded = false;
      await this.load(node);
    }
    return node.head;
  }

  // The state before the first question: a first turn's input is replaced there.
  async #beginning() {
    for (const node of this.nodes.values()) {
      if (node.parent || node.kind === "aggregate") continue;
      const states = await api.states(this.id, node.filter, 200);
      const first = states.findLast(({ metadata }) => metadata?.source === "input");
      if (first) return first.checkpoint;
    }
    return undefined;
  }

  /** Put a turn at its place in the branch that is shown, when its run begins. */
  begin(node, run, assistant) {
    if (!node.runs.some(({ run_id }) => run_id === run)) {
      node.runs.push({ run_id: run, assistant_id: assistant, created_at: new Date().toISOString() });
    }
    node.record.run = run;
    node.record.assistant = assistant;
    this.latest = node;
    this.path = this.#pathTo(node);
  }
}

/** Whether a state of the thread is one of a turn's. */
const isOf = (node, state) =>
  Object.entries(node.filter).every(([name, value]) => state.metadata?.[name] === value);

/** The messages of each turn: those behind a question, up to the next. */
function segmentsOf(messages) {
  const segments = [];
  for (const message of messages) {
    if (message.type === "human") segments.push({ question: textOf(message), messages: [] });
    else segments.at(-1)?.messages.push(message);
  }
  return segments;
}

/** The threads of this page that the reader may see, the newest first. */
export async function allThreads() {
  const found = [];
  for (;;) {
    const page = await api.threads(MINE, found.length);
    found.push(...page);
    if (page.length < 100) return found;
  }
}
