// The thread that is shown as Markdown, as JSON, and as one HTML file that works offline.

import { at, copy, download } from "/moa/dom.js";
import { pageOf } from "/moa/share.js";
import { decisionWords, problemWords, stateWords } from "/moa/words.js";

const asked = (text) => text.split("\n").map((line) => `> ${line}`).join("\n");

/** A thread's branch as Markdown. @param {import("/moa/thread.js").Thread} thread */
export function markdownOf(thread) {
  const parts = [`# ${thread.title || "A thread"}`];
  for (const { record } of thread.path) {
    parts.push(asked(record.question));
    if (record.answer) parts.push(record.answer.text);
    if (record.problem) parts.push(`**${problemWords(record.problem)}**`);
    if (record.decisions.length) {
      parts.push(record.decisions.map((one) => `- ${decisionWords(one, (name) => name)}`).join("\n"));
    }
    for (const proposal of record.proposals.values()) {
      const { layer, proposer, state, error, text } = proposal;
      parts.push(`<details><summary>Layer ${layer}, ${proposer}: ${stateWords(state)}</summary>`);
      parts.push(error || text, "</details>");
    }
  }
  return `${parts.join("\n\n")}\n`;
}

/** A thread's branch as data. */
export function dataOf(thread) {
  return {
    thread_id: thread.id,
    title: thread.title,
    turns: thread.path.map(({ record }) => ({
      run_id: record.run,
      assistant_id: record.assistant,
      question: record.question,
      proposals: [...record.proposals.values()].map(
        ({ layer, proposer, model, state, text, error, usage, seconds }) => ({
          layer, proposer, model, status: state, content: text, error: error || null, usage,
          latency: seconds,
        }),
      ),
      decisions: record.decisions,
      answer: record.answer && {
        content: record.answer.text,
        model: record.answer.model,
        usage: record.answer.usage,
        chosen: record.answer.chosen,
      },
      problem: record.problem ? problemWords(record.problem) : null,
      seconds: record.seconds,
    })),
  };
}

const nameOf = (thread, end) => {
  const name = (thread.title || "thread").normalize("NFKC").replace(/[^\p{L}\p{N}]+/gu, "-");
  return `${name.replace(/^-|-$/g, "").slice(0, 60) || "thread"}.${end}`;
};

/** Let the reader export. @param {import("/moa/conversation.js").Conversation} conversation */
export function offerExports(conversation) {
  const offer = (id, act) =>
    at(id).addEventListener("click", async () => {
      const { thread } = conversation;
      if (!thread.path.length) {
        at("notice").textContent = "There is nothing to export yet: ask a question first.";
        return;
      }
      try {
        await thread.loadAll();
        await act(thread);
      } catch (error) {
        at("notice").textContent = problemWords(error);
      }
      at(id).closest("details").open = false;
    });
  offer("copy-markdown", (thread) => copy(markdownOf(thread), at("copy-markdown")));
  offer("save-markdown", (thread) =>
    download(nameOf(thread, "md"), "text/markdown", markdownOf(thread)));
  offer("save-json", (thread) =>
    download(nameOf(thread, "json"), "application/json", JSON.stringify(dataOf(thread), null, 2)));
  offer("save-page", async (thread) =>
    download(nameOf(thread, "html"), "text/html", await pageOf(thread, dataOf(thread))));
}
