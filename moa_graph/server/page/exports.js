// The thread that is shown as Markdown, as JSON, and as one HTML file that works offline.

import { at, copy, download } from "/moa/dom.js";
import { pageOf } from "/moa/share.js";
import { decisionWords, problemWords, stateWords } from "/moa/words.js";

const asked = (text) => text.split("\n").map((line) => `> ${line}`).join("\n");

/**
 * A thread's branch as Markdown.
 * @param {import("/moa/thread.js").Thread} thread
 * @param {import("/moa/anonymous.js").Anonymous} anonymous Whether and how names are hidden.
 */
export function markdownOf(thread, anonymous) {
  const parts = [`# ${thread.title || "A thread"}`];
  for (const { record } of thread.path) {
    const { answer, decisions, proposals } = anonymous.copied(record);
    parts.push(asked(record.question));
    if (answer) parts.push(answer.text);
    if (record.problem) parts.push(`**${problemWords(record.problem)}**`);
    if (decisions.length) {
      parts.push(decisions.map((one) => `- ${decisionWords(one, (name) => name)}`).join("\n"));
    }
    for (const { layer, proposer, state, error, text } of proposals) {
      parts.push(`<details><summary>Layer ${layer}, ${proposer}: ${stateWords(state)}</summary>`);
      parts.push(error || text, "</details>");
    }
  }
  return `${parts.join("\n\n")}\n`;
}

/** A thread's branch as data; the arguments are those of `markdownOf`. */
export const dataOf = (thread, anonymous) => ({
  thread_id: thread.id,
  title: thread.title,
  turns: thread.path.map(({ record }) => turnOf(record, anonymous.copied(record))),
});

const turnOf = (record, { proposals, decisions, answer }) => ({
  run_id: record.run,
  assistant_id: record.assistant,
  question: record.question,
  proposals: proposals.map(({ layer, proposer, model, state, text, error, usage, seconds }) => ({
    layer, proposer, model, status: state, content: text, error: error || null, usage,
    latency: seconds,
  })),
  decisions,
  answer: answer && {
    content: answer.text, model: answer.model, usage: answer.usage, chosen: answer.chosen,
  },
  problem: record.problem ? problemWords(record.problem) : null,
  seconds: record.seconds,
});

const nameOf = (thread, end) => {
  const name = (thread.title || "thread").normalize("NFKC").replace(/[^\p{L}\p{N}]+/gu, "-");
  return `${name.replace(/^-|-$/g, "").slice(0, 60) || "thread"}.${end}`;
};

/** Let the reader export. @param {import("/moa/conversation.js").Conversation} conversation */
export function offerExports(conversation) {
  const offer = (id, act) =>
    at(id).addEventListener("click", async () => {
      const { thread, anonymous } = conversation;
      if (!thread.path.length) {
        at("notice").textContent = "There is nothing to export yet: ask a question first.";
        return;
      }
      try {
        await thread.loadAll();
        await act(thread, anonymous);
      } catch (error) {
        at("notice").textContent = problemWords(error);
      }
      at(id).closest("details").open = false;
    });
  offer("copy-markdown", (thread, anonymous) =>
    copy(markdownOf(thread, anonymous), at("copy-markdown")));
  offer("save-markdown", (thread, anonymous) =>
    download(nameOf(thread, "md"), "text/markdown", markdownOf(thread, anonymous)));
  offer("save-json", (thread, anonymous) =>
    download(nameOf(thread, "json"), "application/json", JSON.stringify(dataOf(thread, anonymous), null, 2)));
  offer("save-page", async (thread, anonymous) =>
    download(nameOf(thread, "html"), "text/html", await pageOf(thread, dataOf(thread, anonymous), anonymous)));
}
