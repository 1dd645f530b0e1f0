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
 * @property {boolean} first Whether it is known to have no turn before.
 * @property {string} [end] The id of its last message, if it has no runs.
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
  }

  // --- the tree ---------------------------------------------------------------------------

  #add(id, parent, kind, filter, question = "") {
    const node = {
      id, parent, kind, filter, record: new TurnRecord(question), loaded: false, head: null,
      runs: [], first: false,
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
    runs.sort((a, b) => a.created_at.localeCompare(b.created_at));
    let before = null;
    for (const run of runs) before = this.#placed(run, before);
    const latest = runs.at(-1);
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
    node.first ||= parent === "" && Boolean(id);
    node.record.question ||= textOf(run.kwargs?.input?.messages?.at(-1));
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

  // Give the turns of the latest branch their questions and answers. The messages of the state say
  // which turns it has, as the page gives each question an id: other tabs and other clients may
  // have asked in between, and a thread of other clients may have messages without runs.
  #assign(last, state) {
    const segments = segmentsOf(state.values?.messages ?? []);
    const isThere = !last || hasTurn(segments, last, state);
    let after = isThere ? null : last; // its run has written nothing yet
    let expected = isThere ? last : last.parent;
    for (const segment of segments.toReversed()) {
      const found = this.#turnOf(segment, expected);
      const follows = isThere || (found ? found === expected : !expected && !after.first);
      if (!follows) continue; // a turn of another branch
      const node = found ?? this.#without(segment, expected);
      if (after && !this.#pathTo(node).includes(after)) after.parent = node;
      this.latest ??= after ?? node;
      node.record.question = segment.question;
      node.record.settleMessages(segment.messages);
      after = node;
      expected = node.parent;
    }
    this.latest ??= last;
    this.path = this.#pathTo(this.latest);
  }

  // The turn of a question in the state: the one with its id, else the one that is expected there.
  #turnOf(segment, expected) {
    const known = this.nodes.get(segment.node);
    if (!known) return expected && isLike(expected, segment) ? expected : this.#askedElsewhere(segment);
    const version = expected?.kind === "aggregate" && expected.parent === known.parent;
    return version ? expected : known;
  }

  // A turn that a run of another client has asked.
  #askedElsewhere({ question }) {
    const runs = [...this.nodes.values()].filter(({ filter }) => filter.run_id);
    return runs.findLast(({ record }) => record.question === question && !record.answer) ?? null;
  }

  // A turn whose messages no run has written.
  #without({ end }, parent) {
    const made = this.#add(newId(), parent, "ask", {});
    return Object.assign(made, { loaded: true, end });
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
    node.head = null;
    await this.load(node);
  }

  // --- new runs -----------------------------------------------------------------------------

  /** Create the thread for its first question, and let the history find it by every question. */
  async ensure(question) {
    const short = [...question].slice(0, LONGEST).join("");
    if (this.id) {
      await this.#addToHistory(short).catch(() => null); // to ask is more important
      return;
    }
    this.title = short;
    const metadata = { ...MINE, moa_title: short, moa_questions: [short] };
    this.id = (await api.createThread(metadata)).thread_id;
  }

  async #addToHistory(question) {
    const { metadata } = await api.thread(this.id); // also with the questions of other tabs
    const others = (metadata?.moa_questions ?? []).filter((other) => other !== question);
    await api.describeThread(this.id, { moa_questions: [...others, question].slice(-SEARCHED) });
  }

  /** A turn behind the branch that is shown, and what its run is asked. */
  async ask(question) {
    const parent = this.path.at(-1) ?? null;
    return this.#asked(parent, "ask", question, await this.#headOf(parent));
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

  /**
   * What a run is asked that goes on where a turn ended; null if no state of the turn is known, and
   * `{finished: true}` if another tab has gone on with it to its end.
   */
  async resume(node) {
    const [[newest], latest] = await Promise.all([
      api.states(this.id, node.filter, 1), api.state(this.id),
    ]);
    if (!newest) return null;
    if (!newest.next?.length) {
      await this.settle(node);
      return { finished: true };
    }
    // Without a checkpoint, a run keeps what is done of a step, but goes on from the latest state.
    const isLatest = newest.checkpoint.checkpoint_id === latest.checkpoint?.checkpoint_id;
    const checkpoint = isLatest ? undefined : newest.checkpoint;
    return { node, messages: null, checkpoint, metadata: this.#metadata(node) };
  }

  #metadata(node) {
    return { [NODE]: node.id, [PARENT]: knownBefore(node)?.id ?? "", [KIND]: node.kind };
  }

  // The checkpoint behind a turn, or behind the last one before it that has any; undefined if there
  // is none. Without it, a run would go on from whatever another tab has asked since.
  async #headOf(node) {
    for (let one = node; one; one = one.parent) {
      const head = await this.#newest(one);
      if (head) return head;
      if (!one.runs.length && !neverBegan(one)) break; // it has messages, which are not left out
    }
    return undefined;
  }

  // The newest checkpoint of a turn. It is read anew, as another tab may have gone on with the turn.
  async #newest(node) {
    if (neverBegan(node)) return null;
    if (node.runs.length) await this.settle(node);
    else if (!node.head) {
      const states = await api.states(this.id, {}, 1000);
      node.head = states.find(({ values }) => values?.messages?.at(-1)?.id === node.end)?.checkpoint ?? null;
    }
    return node.head;
  }

  // The state before the first question: a first turn's input is replaced there.
  async #beginning() {
    for (const node of this.nodes.values()) {
      if (knownBefore(node) || node.kind === "aggregate") continue;
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

/** Whether a turn has no run, though it was asked on this page. */
const neverBegan = (node) => !node.runs.length && NODE in node.filter;

/** The turn before that the server knows. */
function knownBefore({ parent }) {
  return parent && neverBegan(parent) ? knownBefore(parent) : parent;
}

/** Whether a question may be a turn's whose messages do not have its id. */
const isLike = ({ record }, { question }) => !record.question || record.question === question;

/** Whether the question of a turn is in the state. */
function hasTurn(segments, node, state) {
  if (node.kind === "aggregate" || !node.record.question) return isOf(node, state);
  if (NODE in node.filter && segments.some((segment) => segment.node)) {
    return segments.some((segment) => segment.node === node.id);
  }
  return segments.some(({ question }) => question === node.record.question);
}

/** The messages of each turn: those behind a question, up to the next. */
function segmentsOf(messages) {
  const segments = [];
  for (const message of messages) {
    if (message.type === "human") {
      const [, node = ""] = /^moa-(.+)$/.exec(message.id ?? "") ?? [];
      segments.push({ node, question: textOf(message), messages: [], end: message.id });
    } else if (segments.length) {
      segments.at(-1).messages.push(message);
      segments.at(-1).end = message.id;
    }
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
