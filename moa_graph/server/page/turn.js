// One turn of the conversation: the question, the proposals, the decisions, the answer.

import { Panel } from "/moa/cards.js";
import { button, copy, el } from "/moa/dom.js";
import { summaryOf } from "/moa/footer.js";
import { Rendered } from "/moa/rendering.js";
import { decisionWords, problemWords } from "/moa/words.js";

/**
 * What a turn asks of the page.
 * @typedef {object} Acts
 * @property {(turn: Turn, question: string) => void} edit
 * @property {(turn: Turn) => void} again
 * @property {(turn: Turn) => void} aggregate
 * @property {(turn: Turn) => void} resume
 * @property {(turn: Turn, step: number) => void} turnTo Shows an earlier or later version.
 * @property {(turn: Turn, proposal: object) => void} open
 * @property {(turn: Turn, layer: number) => void} compare
 * @property {(record: object, proposer: string, layer: number) => string} named
 * @property {(record: object, proposal: object) => number} placeOf
 */

export class Turn {
  /**
   * @param {import("/moa/thread.js").TurnNode} node
   * @param {Acts} acts
   */
  constructor(node, acts) {
    this.node = node;
    this.record = node.record;
    this.acts = acts;
    this.busy = false;
    this.panel = new Panel(this.record, {
      open: (proposal) => acts.open(this, proposal),
      compare: (layer) => acts.compare(this, layer),
      named: ({ proposer, layer }) => acts.named(this.record, proposer, layer),
      placeOf: (proposal) => acts.placeOf(this.record, proposal),
    });
    this.question = el("p", { class: "question", dir: "auto" });
    this.editing = el("form", { class: "editing", hidden: true });
    this.branches = el("span", { class: "branches", role: "group", "aria-label": "Versions" });
    this.decisions = el("ul", { class: "decisions", "aria-label": "Decisions" });
    this.answered = new Rendered();
    this.by = el("span", { class: "by" });
    this.facts = el("p", { class: "footer" });
    this.answer = el(
      "section",
      { class: "answer", "aria-label": "Answer" },
      el("div", { class: "answer-head" }, el("h3", { text: "Answer" }), this.by),
      this.answered.root,
      this.facts,
    );
    this.problem = el("div", { class: "problem", role: "alert", hidden: true });
    this.tools = el("div", { class: "tools" });
    this.panel.root.open = !this.record.answer;
    this.root = el(
      "article",
      { class: "turn", "aria-label": "Turn" },
      el("div", { class: "asked" }, this.question, this.editing, this.#questionTools()),
      this.panel.root,
      this.decisions,
      this.answer,
      this.problem,
      this.tools,
    );
    this.show();
  }

  #questionTools() {
    const copying = button("Copy", () => copy(this.record.question, copying), {
      class: "quiet", "aria-label": "Copy the question",
    });
    const edit = button("Edit", () => this.#edit(), { class: "quiet edit" });
    return el("div", { class: "question-tools" }, this.branches, copying, edit);
  }

  #edit() {
    const text = el("textarea", { "aria-label": "Edited question", rows: "3", dir: "auto" });
    text.value = this.record.question;
    const stop = () => {
      this.editing.hidden = true;
      this.question.hidden = false;
    };
    this.editing.replaceChildren(
      text,
      el("div", {}, el("button", { type: "submit", class: "main", text: "Ask again" }), button("Cancel", stop)),
    );
    this.editing.onsubmit = (event) => {
      event.preventDefault();
      const question = text.value.trim();
      if (!question || document.body.classList.contains("busy")) return;
      stop();
      this.acts.edit(this, question);
    };
    text.onkeydown = (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        stop();
      }
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.editing.requestSubmit();
      }
    };
    this.editing.hidden = false;
    this.question.hidden = true;
    text.focus();
  }

  // --- what is shown ------------------------------------------------------------------------

  /** Show the whole record. */
  show() {
    this.question.textContent = this.record.question;
    this.panel.showAll();
    this.#showDecisions();
    this.#showAnswer();
    this.#showProblem();
    this.#showTools();
  }

  /** Show what an event has changed. @param {import("/moa/record.js").Changes} changes */
  showChanges(changes) {
    if (changes.proposals.size) this.panel.show(changes.proposals);
    if (changes.decisions) {
      this.#showDecisions();
      this.panel.showAll();
    }
    if (changes.answer) this.#showAnswer();
    if (this.record.problem) this.#showProblem();
  }

  /** Show which of several versions of the turn this is. */
  showBranches(versions) {
    const place = versions.indexOf(this.node);
    this.branches.hidden = versions.length < 2;
    if (this.branches.hidden) return;
    const to = (step, text, label, disabled) =>
      button(text, () => this.acts.turnTo(this, step), { class: "quiet", "aria-label": label, disabled });
    this.branches.replaceChildren(
      to(-1, "‹", "Earlier version", place === 0),
      el("span", { text: `${place + 1}/${versions.length}` }),
      to(1, "›", "Later version", place === versions.length - 1),
    );
  }

  /** Whether a run writes this turn now. */
  setBusy(busy) {
    // Only the end of a run collapses the proposals: the reader may have opened them since.
    if (busy !== this.busy) this.panel.root.open = busy || !this.record.answer;
    this.busy = busy;
    this.root.classList.toggle("writing", busy);
    this.show();
  }

  #named = (proposer, layer) => this.acts.named(this.record, proposer, layer);

  #showDecisions() {
    const said = this.record.decisions.map((decision) =>
      el("li", { text: decisionWords(decision, (name) => this.#named(name, decision.layer)) }),
    );
    this.decisions.replaceChildren(...said);
    this.decisions.hidden = !said.length;
  }

  #showAnswer() {
    const { answer, aggregating } = this.record;
    this.answer.hidden = !answer && !aggregating;
    if (this.answer.hidden) return;
    this.answer.classList.toggle("awaited", !answer);
    if (answer?.chosen) {
      const { proposer, layer } = answer.chosen;
      this.by.textContent = `${this.#named(proposer, layer)}’s proposal of layer ${layer}, word for word`;
    } else {
      this.by.textContent = answer ? (answer.model ? `by ${answer.model}` : "") : "being written …";
    }
    this.answered.set(answer?.text ?? "", { grows: this.busy && !answer?.whole });
    this.#showFacts();
  }

  async #showFacts() {
    if (this.busy) return;
    this.facts.textContent = await summaryOf(this.record);
  }

  #showProblem() {
    const { problem, interrupted } = this.record;
    const stopped = interrupted && !problem;
    this.problem.hidden = this.busy || !(problem || stopped);
    if (this.problem.hidden) return;
    const words = problem ? problemWords(problem) : "Stopped before the answer.";
    const retry = button(stopped ? "Go on" : "Retry", () => this.acts.resume(this), { class: "resume" });
    const again = button("Ask all again", () => this.acts.again(this), { class: "all-again" });
    const canGoOn = this.node.runs.length > 0;
    this.problem.replaceChildren(
      el("p", { text: words }),
      el("div", {}, canGoOn ? retry : null, again),
    );
  }

  #showTools() {
    const { answer, problem } = this.record;
    this.tools.hidden = this.busy || !answer || Boolean(problem);
    if (this.tools.hidden) return;
    const copying = button("Copy answer", () => copy(this.record.answer.text, copying), { class: "quiet" });
    const inGraph = this.record.decisions.every(({ outcome }) => !["alone", "answer"].includes(outcome));
    this.tools.replaceChildren(
      copying,
      inGraph && this.record.proposals.size
        ? button("Retry the aggregator", () => this.acts.aggregate(this), { class: "quiet" })
        : "",
      button("Ask all again", () => this.acts.again(this), { class: "quiet" }),
    );
  }
}
