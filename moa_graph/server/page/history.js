// The reader's threads on this server, with a search.

import * as api from "/moa/api.js";
import { at, button, el } from "/moa/dom.js";
import { allThreads } from "/moa/thread.js";
import { problemWords } from "/moa/words.js";

const WORDS = { busy: "running", error: "failed", interrupted: "stopped" };

// A text without marks such as accents, in one case: "café" is found however it is written. Letters
// that differ in lower case alone (ς and σ, ı and i, ß and ss) are the same in upper case.
const folded = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toUpperCase();

/** Let the reader choose among the threads. @param {import("/moa/conversation.js").Conversation} conversation */
export function offerHistory(conversation) {
  const dialog = at("history");
  const search = at("history-search");
  const list = at("history-list");
  const note = at("history-note");
  let threads = [];

  function show() {
    const words = folded(search.value).split(/\s+/).filter(Boolean);
    const found = threads.filter(({ metadata }) => {
      const text = folded([metadata.moa_title ?? "", ...(metadata.moa_questions ?? [])].join(" "));
      return words.every((word) => text.includes(word));
    });
    list.replaceChildren(...found.slice(0, 200).map(entry));
    const more = found.length > 200 ? " The first 200 are shown." : "";
    note.textContent = threads.length
      ? `${found.length} of ${threads.length} threads.${more}`
      : "No thread yet.";
  }

  function entry({ thread_id, metadata, updated_at, status }) {
    const title = metadata.moa_title || "A thread without a title";
    const when = new Date(updated_at);
    const open = el(
      "button",
      { type: "button", class: "entry", "aria-current": thread_id === conversation.thread.id ? "true" : null },
      el("span", { class: "title", dir: "auto", text: title }),
      el("time", { datetime: updated_at, text: when.toLocaleString([], { dateStyle: "medium", timeStyle: "short" }) }),
      WORDS[status] ? el("span", { class: "status", text: WORDS[status] }) : null,
    );
    open.addEventListener("click", async () => {
      dialog.close();
      try {
        await conversation.open(thread_id);
      } catch (error) {
        at("notice").textContent = problemWords(error);
      }
    });
    const remove = button("Delete", () => drop(thread_id, title), {
      class: "quiet", "aria-label": `Delete: ${title}`,
    });
    return el("li", {}, open, remove);
  }

  async function drop(id, title) {
    if (!confirm(`Delete the thread “${title}” from the server?`)) return;
    try {
      await api.deleteThread(id);
    } catch (error) {
      note.textContent = problemWords(error);
      return;
    }
    threads = threads.filter(({ thread_id }) => thread_id !== id);
    if (id === conversation.thread.id) conversation.clear();
    show();
  }

  search.addEventListener("input", show);
  at("history-open").addEventListener("click", async () => {
    search.value = "";
    note.textContent = "Reading …";
    list.replaceChildren();
    dialog.showModal();
    search.focus();
    try {
      threads = await allThreads();
      show();
    } catch (error) {
      note.textContent = problemWords(error);
    }
  });
}
