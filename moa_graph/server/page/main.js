// The page: what the reader does.

import * as api from "/moa/api.js";
import { Conversation } from "/moa/conversation.js";
import { askForKeys, closeDialogs } from "/moa/dialogs.js";
import { at } from "/moa/dom.js";
import { offerBuilder } from "/moa/builder.js";
import { offerExports } from "/moa/exports.js";
import { offerHistory } from "/moa/history.js";
import { problemWords } from "/moa/words.js";

const place = new URL(location.href).searchParams;
const conversation = new Conversation(remember);

// The address names the assistant and the thread, so that a reload shows them again.
function remember() {
  const address = new URL(location.href);
  const { id, title } = conversation.thread;
  address.search = new URLSearchParams({
    ...(at("assistant").value && { assistant: at("assistant").value }),
    ...(id && { thread: id }),
  });
  history.replaceState(null, "", address);
  document.title = title ? `${title} – Mixture-of-Agents` : "Mixture-of-Agents";
}

const notice = (problem) => (at("notice").textContent = problem ? problemWords(problem) : "");

async function ask(question) {
  notice(null);
  at("question").value = "";
  try {
    await conversation.ask(question);
  } catch (error) {
    at("question").value ||= question; // it was not asked, so it is not lost
    notice(error);
  }
}

at("stop").addEventListener("click", () => conversation.stop());
at("new").addEventListener("click", () => conversation.clear());
at("assistant").addEventListener("change", remember);
at("anonymous").checked = conversation.anonymous.on;
at("anonymous").addEventListener("change", ({ target }) => conversation.anonymous.set(target.checked));
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (question && !conversation.busy) ask(question);
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || document.querySelector("dialog[open]")) return;
  const menu = event.target.closest?.("details.menu[open]");
  if (menu) {
    menu.open = false;
    menu.querySelector("summary").focus();
  } else if (conversation.busy) conversation.stop();
});
document.addEventListener("click", (event) => {
  for (const menu of document.querySelectorAll("details.menu[open]")) {
    if (!menu.contains(event.target)) menu.open = false;
  }
});

let assistants = [];

/** List the assistants anew. @param {string} [chosen] The id of the one to choose. */
async function listAssistants(chosen) {
  const found = await api.assistants();
  found.sort((a, b) => a.name.localeCompare(b.name));
  at("assistant").replaceChildren(
    ...found.map(({ assistant_id, name, description }) => {
      const option = new Option(name, assistant_id);
      option.title = description ?? "";
      return option;
    }),
  );
  assistants = found;
  const first = found.find(({ graph_id }) => graph_id === "mixture") ?? found[0];
  const known = found.some(({ assistant_id }) => assistant_id === chosen);
  at("assistant").value = known ? chosen : (first?.assistant_id ?? "");
}

async function begin() {
  askForKeys();
  closeDialogs();
  offerHistory(conversation);
  offerExports(conversation);
  const chosen = () => assistants.find(({ assistant_id }) => assistant_id === at("assistant").value);
  offerBuilder(chosen, async (id) => {
    await listAssistants(id);
    remember();
  });
  try {
    await listAssistants(place.get("assistant"));
    if (place.get("thread")) await conversation.open(place.get("thread"));
  } catch (error) {
    notice(error);
    if (error.status === 404 || error.status === 422) conversation.clear(); // it is gone, or was never ours
  }
  at("question").focus();
}

begin();
