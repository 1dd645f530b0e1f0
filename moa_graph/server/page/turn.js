// One turn of the conversation: the question, the layers as columns of cards, the answer.

import { markdown } from "/moa/api.js";

const WORDS = {
  waiting: "waiting",
  writing: "writing …",
  ok: "answered",
  cached: "from the cache",
  failed: "failed",
  timed_out: "timed out",
  abandoned: "abandoned",
  stopped: "stopped",
};
const RENDER_EVERY = 300; // milliseconds

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

const ticking = new Set();
setInterval(() => ticking.forEach((card) => card.showFacts()), 100);

export class Card {
  constructor(layer, proposer, open) {
    this.layer = layer;
    this.proposer = proposer;
    this.model = "";
    this.text = "";
    this.error = "";
    this.tokens = 0;
    this.seconds = null;
    this.root = element("button", "card");
    this.root.type = "button";
    this.root.dataset.node = `layer_${layer}_${proposer}`;
    this.root.append(
      element("span", "name", proposer),
      (this.facts = element("span", "facts")),
      (this.body = element("span", "text")),
    );
    this.root.addEventListener("click", () => open(this));
    this.show("waiting");
  }

  started(model) {
    this.model = model ?? this.model;
    if (this.state !== "waiting") return;
    this.since = performance.now();
    ticking.add(this);
    this.show("writing");
  }

  write(text) {
    this.started();
    this.text += text;
    this.tokens += 1;
    this.showText();
  }

  ended(proposal) {
    this.model = proposal.model;
    this.text = proposal.content || this.text;
    this.error = proposal.error ?? "";
    this.tokens = proposal.usage?.output_tokens ?? this.tokens;
    this.seconds = proposal.latency;
    ticking.delete(this);
    this.show(proposal.cached ? "cached" : proposal.status);
    this.showText();
  }

  stopped() {
    ticking.delete(this);
    if (this.state === "waiting" || this.state === "writing") this.show("stopped");
  }

  show(state) {
    this.state = state;
    this.root.dataset.state = state;
    this.showFacts();
  }

  showFacts() {
    const parts = [WORDS[this.state] ?? this.state];
    const seconds = this.state === "writing" ? (performance.now() - this.since) / 1000 : this.seconds;
    if (seconds !== null) parts.push(`${seconds.toFixed(1)} s`);
    if (this.tokens) parts.push(`${this.tokens} tokens`);
    this.facts.textContent = parts.join(" · ");
  }

  showText() {
    this.body.textContent = this.error || this.text;
    this.body.scrollTop = this.body.scrollHeight;
  }
}

class Answer {
  constructor() {
    this.text = "";
    this.root = element("section", "answer");
    this.root.setAttribute("aria-label", "Answer");
    this.root.append(element("h3", "", "Answer"), (this.body = element("div", "markdown")));
    this.root.hidden = true;
  }

  write(text) {
    this.text += text;
    this.render();
  }

  set(text) {
    this.text = text;
    this.render();
  }

  // At most one rendering at a time, and always one of the latest text.
  async render() {
    this.root.hidden = false;
    this.dirty = true;
    if (this.rendering) return;
    this.rendering = true;
    while (this.dirty) {
      this.dirty = false;
      try {
        this.body.innerHTML = await markdown(this.text);
      } catch {
        this.body.textContent = this.text;
      }
      await new Promise((resume) => setTimeout(resume, RENDER_EVERY));
    }
    this.rendering = false;
  }
}

export class Turn {
  constructor(question, drawing, open) {
    this.open = open;
    this.cards = new Map();
    this.columns = new Map();
    this.answer = new Answer();
    this.root = element("article", "turn");
    this.root.append(
      element("p", "question", question),
      (this.layers = element("div", "layers")),
      this.answer.root,
      (this.problem = element("p", "problem")),
    );
    this.problem.hidden = true;
    this.problem.setAttribute("role", "alert");
    for (const { id, metadata } of drawing?.nodes ?? []) {
      if (metadata?.moa_proposer) this.card(metadata.moa_layer, metadata.moa_proposer);
    }
  }

  card(layer, proposer) {
    const key = `${layer} ${proposer}`;
    if (!this.cards.has(key)) {
      const card = new Card(layer, proposer, this.open);
      this.cards.set(key, card);
      this.column(layer).append(card.root);
    }
    return this.cards.get(key);
  }

  column(layer) {
    if (!this.columns.has(layer)) {
      const column = element("section", "layer");
      column.setAttribute("aria-label", `Layer ${layer}`);
      column.append(element("h3", "", `Layer ${layer}`));
      const after = [...this.columns].filter(([other]) => other > layer).map(([, c]) => c)[0];
      this.layers.insertBefore(column, after ?? null);
      this.columns.set(layer, column);
    }
    return this.columns.get(layer);
  }

  // An event of the run's stream; returns what to say to who cannot see it.
  take({ name, data }) {
    if (name === "messages" || name.startsWith("messages|")) this.takeToken(...data);
    else if (name === "custom" || name.startsWith("custom|")) return this.takeProgress(data);
    else if (name === "updates" || name.startsWith("updates|")) this.takeUpdate(data);
    else if (name === "error") {
      this.fail(data.message ?? data.error ?? String(data));
      return "The run failed.";
    }
    return "";
  }

  takeToken(chunk, metadata) {
    const text = textOf(chunk);
    if (!text || !chunk.type.startsWith("AI")) return; // whole messages come as updates, too
    if (metadata.moa_proposer) this.card(metadata.moa_layer, metadata.moa_proposer).write(text);
    else if (metadata.langgraph_node === "aggregator") this.answer.write(text);
  }

  takeProgress(event) {
    const card = event.proposer && this.card(event.layer, event.proposer);
    if (event.type === "proposer_started") card.started(event.model);
    if (event.type === "proposer_ended" && event.status !== "ok") {
      return `${event.proposer} of layer ${event.layer} ${WORDS[event.status]}.`;
    }
    if (event.type === "layer_ended") return `Layer ${event.layer} is done: ${event.ok} answers.`;
    return "";
  }

  takeUpdate(update) {
    for (const [node, changes] of Object.entries(update)) {
      for (const proposal of changes?.proposals ?? []) this.takeProposal(proposal);
      if (node === "aggregator") this.takeAnswer(changes?.messages?.at(-1));
    }
  }

  takeProposal(proposal) {
    this.card(proposal.layer, proposal.proposer).ended(proposal);
  }

  takeAnswer(message) {
    if (message) this.answer.set(textOf(message));
  }

  fail(message) {
    this.problem.textContent = message;
    this.problem.hidden = false;
  }

  stopped() {
    for (const card of this.cards.values()) card.stopped();
  }
}

export function textOf(message) {
  if (typeof message.content === "string") return message.content;
  return (message.content ?? [])
    .map((block) => (typeof block === "string" ? block : (block.text ?? "")))
    .join("");
}
