// What is known of one turn: the question, the proposals, the decisions and the answer. It follows
// the events of a run, and is corrected by the thread's state at the end.

import { taskProblem } from "/moa/words.js";

/**
 * @typedef {{
 *   layer: number, proposer: string, state: string, model: string, text: string, error: string,
 *   tokens: number, usage: object|null, seconds: number|null, since: number|null,
 * }} ProposalRecord
 * @typedef {{
 *   text: string, id: string, model: string, usage: object|null, whole: boolean,
 *   chosen: {proposer: string, layer: number}|null,
 * }} AnswerRecord
 * @typedef {{
 *   proposals: Set<string>, answer: boolean, decisions: boolean, said: string,
 *   without: {proposer: string, layer: number}|null,
 * }} Changes `without`: a proposer that gave no answer.
 */

const keyOf = (layer, proposer) => `${layer} ${proposer}`;

/** The text of a message, whose content may be a list of blocks. */
export function textOf(message) {
  if (typeof message?.content === "string") return message.content;
  return (message?.content ?? [])
    .map((block) => (typeof block === "string" ? block : (block.text ?? "")))
    .join("");
}

// A value of an update: LangGraph writes `Overwrite(value)` as an object.
const listIn = (value) => {
  if (Array.isArray(value)) return value;
  if (value && typeof value === "object") {
    const inner = value.value ?? value.__overwrite__;
    return Array.isArray(inner) ? inner : [];
  }
  return [];
};

const isOverwrite = (value) => Boolean(value) && !Array.isArray(value) && typeof value === "object";
const isAnswer = (message) => ["ai", "AIMessageChunk", "assistant"].includes(message?.type);

export class TurnRecord {
  /** @param {string} question */
  constructor(question) {
    this.question = question;
    /** @type {Map<string, ProposalRecord>} */
    this.proposals = new Map();
    this.decisions = [];
    /** @type {AnswerRecord|null} */
    this.answer = null;
    this.problem = null;
    this.interrupted = false;
    this.aggregating = false;
    this.seconds = null;
    this.assistant = "";
    this.run = "";
    this.ids = new Map(); // the message that each place writes now
  }

  /** @returns {ProposalRecord} */
  proposal(layer, proposer) {
    const key = keyOf(layer, proposer);
    if (!this.proposals.has(key)) {
      this.proposals.set(key, {
        layer, proposer, state: "waiting", model: "", text: "", error: "", tokens: 0, usage: null,
        seconds: null, since: null,
      });
    }
    return this.proposals.get(key);
  }

  /** The numbers of the layers that have proposers, in order. */
  get layers() {
    const numbers = new Set([...this.proposals.values()].map((proposal) => proposal.layer));
    return [...numbers].sort((a, b) => a - b);
  }

  ofLayer(layer) {
    return [...this.proposals.values()].filter((proposal) => proposal.layer === layer);
  }

  /** Expect the proposers that a graph's drawing has. */
  expect(drawing) {
    for (const { metadata } of drawing?.nodes ?? []) {
      if (metadata?.moa_proposer) this.proposal(metadata.moa_layer, metadata.moa_proposer);
    }
  }

  /**
   * Take an event of the run's stream.
   * @param {{name: string, data: any}} event
   * @returns {Changes}
   */
  take({ name, data }) {
    const changes = { proposals: new Set(), answer: false, decisions: false, said: "", without: null };
    const kind = name.split("|")[0]; // behind it, the name of a subgraph
    if (kind === "metadata") this.run = data.run_id;
    else if (kind === "messages") this.#takeToken(data[0], data[1], changes);
    else if (kind === "custom") this.#takeProgress(data, changes);
    else if (kind === "updates") this.#takeUpdates(data, changes);
    else if (kind === "error") {
      this.problem = data;
      changes.said = "The run failed.";
    }
    return changes;
  }

  #takeToken(message, metadata, changes) {
    const text = textOf(message);
    if (!text || !isAnswer(message)) return;
    const whole = message.type !== "AIMessageChunk";
    if (metadata.moa_proposer) {
      const key = keyOf(metadata.moa_layer, metadata.moa_proposer);
      const proposal = this.proposal(metadata.moa_layer, metadata.moa_proposer);
      if (proposal.state !== "waiting" && proposal.state !== "writing") return;
      this.#began(proposal);
      const goesOn = this.ids.get(key) === message.id && !whole;
      proposal.text = goesOn ? proposal.text + text : text;
      proposal.tokens += 1;
      this.ids.set(key, message.id);
      changes.proposals.add(key);
    } else if (!metadata.langgraph_checkpoint_ns?.includes("|")) {
      const goesOn = this.answer?.id === message.id && !whole && !this.answer.whole;
      if (this.answer?.whole && this.answer.id === message.id) return;
      const before = goesOn ? this.answer.text : "";
      this.answer = { text: before + text, id: message.id, model: "", usage: null, whole: false, chosen: null };
      changes.answer = true;
    }
  }

  #began(proposal, model) {
    proposal.model = model ?? proposal.model;
    if (proposal.state !== "waiting") return;
    proposal.state = "writing";
    proposal.since = performance.now();
  }

  #takeProgress(event, changes) {
    if (!event || typeof event !== "object") return;
    if (event.type === "proposer_started") {
      this.#began(this.proposal(event.layer, event.proposer), event.model);
      changes.proposals.add(keyOf(event.layer, event.proposer));
    } else if (event.type === "proposer_ended" && event.status !== "ok") {
      changes.without = { proposer: event.proposer, layer: event.layer };
    } else if (event.type === "layer_ended") {
      changes.said = `Layer ${event.layer} is done: ${event.ok} answers.`;
    } else if (event.type === "aggregator_started") {
      this.aggregating = true;
      changes.answer = true;
    } else if (event.type === "proposal") {
      this.#takeProposals([event.proposal], changes);
    }
  }

  #takeUpdates(updates, changes) {
    for (const [node, several] of Object.entries(updates)) {
      if (node.startsWith("__")) continue;
      for (const update of Array.isArray(several) ? several : [several]) {
        if (!update || typeof update !== "object") continue;
        if (isOverwrite(update.proposals)) this.#forgetProposals(changes);
        this.#takeProposals(listIn(update.proposals), changes);
        this.#takeDecisions(listIn(update.decisions), changes);
        const message = listIn(update.messages).at(-1);
        if (isAnswer(message)) {
          this.#takeAnswer(message);
          changes.answer = true;
        }
      }
    }
  }

  #takeProposals(proposals, changes) {
    for (const proposal of proposals) {
      const known = this.proposal(proposal.layer, proposal.proposer);
      Object.assign(known, {
        model: proposal.model,
        state: proposal.cached ? "cached" : proposal.status,
        text: proposal.content || known.text,
        error: proposal.error ?? "",
        usage: proposal.usage,
        tokens: proposal.usage?.output_tokens ?? known.tokens,
        seconds: proposal.latency,
      });
      changes?.proposals.add(keyOf(proposal.layer, proposal.proposer));
    }
  }

  // A value that replaces all proposals: those that were asked are told apart by their state.
  #forgetProposals(changes) {
    for (const [key, proposal] of this.proposals) {
      if (proposal.state !== "waiting") continue;
      this.proposals.delete(key);
      changes?.proposals.add(key);
    }
  }

  #takeDecisions(decisions, changes) {
    for (const decision of decisions) {
      this.decisions = [...this.decisions.filter(({ step }) => step !== decision.step), decision];
      if (changes) changes.decisions = true;
    }
    const last = ({ step }) => Number(step === "aggregator");
    this.decisions.sort((a, b) => a.layer - b.layer || last(a) - last(b));
  }

  #takeAnswer(message) {
    const facts = message.response_metadata ?? {};
    this.answer = {
      text: textOf(message),
      id: message.id,
      model: facts.aggregator?.model ?? facts.model_name ?? "",
      usage: message.usage_metadata ?? null,
      whole: true,
      chosen: facts.chosen_proposal ?? null,
    };
  }

  /**
   * Correct the record by the state of the thread, which is the whole truth once no run goes on.
   * @param {{values: any, tasks?: object[], next?: string[]}} state
   */
  settle({ values, tasks, next }) {
    const messages = values?.messages ?? [];
    const asked = messages.findLastIndex((message) => message.type === "human");
    const answer = messages.slice(asked + 1).findLast(isAnswer);
    if (asked >= 0) this.question ||= textOf(messages[asked]);
    if (answer && (textOf(answer) || !this.answer?.text)) this.#takeAnswer(answer);
    const pending = (tasks ?? []).flatMap((task) => listIn(task.result?.proposals));
    const { proposals, decisions } = ofThisTurn(values ?? {}, next ?? []);
    this.#takeProposals([...proposals, ...pending]);
    this.#takeDecisions(decisions);
    // A run that was stopped has no error, though its task says that it was cancelled.
    const failed = (tasks ?? []).find(({ error }) => error && !error.startsWith("CancelledError"));
    if (failed && !answer) this.problem ??= taskProblem(failed.error);
    else if (answer && !next?.length) this.problem = null;
    this.interrupted = !answer && !this.problem && Boolean(next?.length);
    this.stop();
  }

  /** Take the messages behind the question, of a turn whose state is not read yet. */
  settleMessages(messages) {
    const answer = messages.findLast(isAnswer);
    if (answer) this.#takeAnswer(answer);
  }

  /** No run goes on: what is not there will not come. */
  stop() {
    for (const [key, proposal] of this.proposals) {
      if (proposal.state === "writing") proposal.state = "stopped";
      if (proposal.state !== "waiting") continue;
      // An early exit, a route: whoever was not asked is not shown beside the answer.
      if (this.answer?.whole) this.proposals.delete(key);
      else proposal.state = "stopped";
    }
    this.aggregating = false;
  }

  /** The models that were called, as far as they are known, in order. */
  get models() {
    const called = [...this.proposals.values()].filter(({ state }) => state !== "waiting");
    const names = [...called.map(({ model }) => model), this.answer?.model];
    return [...new Set(names.filter(Boolean))];
  }

  /** `[model, usage]` of every call whose tokens are known; the model of a judge is "". */
  get usages() {
    const proposals = [...this.proposals.values()].map(({ model, usage, state }) => [
      model,
      state === "cached" ? null : usage,
    ]);
    const decisions = this.decisions.map(({ usage }) => ["", usage]);
    return [...proposals, ...decisions, [this.answer?.model, this.answer?.usage]].filter(
      ([, usage]) => usage,
    );
  }
}

const turnIn = (records) => Math.max(0, ...records.map(({ turn }) => turn ?? 0));

/** The records of a state without those that are left from the turn before. */
function ofThisTurn(values, next) {
  const proposals = values.proposals ?? [];
  const decisions = values.decisions ?? [];
  const begins = next.some((node) => ["__start__", "first_pass"].includes(node));
  const inFirstLayer = next.some((node) => node.startsWith("layer_1_"));
  const routed = decisions.some(({ step }) => step === "first_pass");
  const drafted = Object.keys(values.drafts ?? {}).length > 0;
  const oldProposals = begins || (inFirstLayer && !drafted);
  const oldDecisions =
    begins || (inFirstLayer && !routed) ||
    (!oldProposals && turnIn(decisions) < turnIn(proposals));
  return { proposals: oldProposals ? [] : proposals, decisions: oldDecisions ? [] : decisions };
}
