// The page: a thread of turns, the run that goes on, and what the user does.

import * as api from "/moa/api.js";
import { Turn, textOf } from "/moa/turn.js";

const at = (id) => document.getElementById(id);
const place = new URL(location.href).searchParams;
let thread = place.get("thread");
let run = null; // the id of the run that goes on
let busy = false;

function remember() {
  const address = new URL(location.href);
  address.search = new URLSearchParams({
    ...(at("assistant").value && { assistant: at("assistant").value }),
    ...(thread && { thread }),
  });
  history.replaceState(null, "", address);
}

function say(text) {
  if (text) at("status").textContent = text;
}

function setBusy(now) {
  busy = now;
  at("send").hidden = now;
  at("stop").hidden = !now;
  at("stop").disabled = false;
  at("assistant").disabled = now;
  at("new").disabled = now;
}

function show(turn) {
  at("empty").hidden = true;
  at("turns").append(turn.root);
}

function followsEnd() {
  const page = document.scrollingElement;
  return page.scrollHeight - page.scrollTop - page.clientHeight < 80;
}

function scrollToEnd() {
  document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
}

// --- a run ---------------------------------------------------------------------------

async function follow(turn, events) {
  setBusy(true);
  try {
    for await (const event of events) {
      const end = followsEnd();
      if (event.name === "metadata") run = event.data.run_id;
      say(turn.take(event));
      if (end) scrollToEnd();
    }
    say("Done.");
  } catch (error) {
    turn.fail(`The connection ended: ${error.message}`);
  } finally {
    turn.stopped();
    run = null;
    setBusy(false);
  }
}

async function ask(question) {
  const assistant = at("assistant").value;
  setBusy(true);
  let turn = new Turn(question, null, openCard);
  try {
    turn = new Turn(question, await api.graph(assistant), openCard);
    show(turn);
    thread ??= (await api.createThread()).thread_id;
    remember();
  } catch (error) {
    show(turn);
    turn.fail(error.message);
    setBusy(false);
    return;
  }
  scrollToEnd();
  await follow(turn, api.start(thread, assistant, question));
}

async function stop() {
  if (!run) return;
  at("stop").disabled = true;
  say("Stopping.");
  try {
    await api.cancel(thread, run);
  } catch (error) {
    say(error.message);
    at("stop").disabled = false;
  }
}

// --- the thread as the server has it -------------------------------------------------

async function restore() {
  if (!thread) return;
  let states;
  let latest;
  try {
    [states, [latest]] = await Promise.all([api.history(thread), api.runs(thread)]);
  } catch {
    newThread(); // it is gone, or was never ours
    return;
  }
  const turns = turnsOf(states);
  const goesOn = latest && ["pending", "running"].includes(latest.status);
  const current = goesOn ? turns.pop() : null;
  for (const { question, proposals, answer } of turns) {
    const turn = new Turn(question, null, openCard);
    for (const proposal of proposals) turn.takeProposal(proposal);
    turn.takeAnswer(answer);
    show(turn);
  }
  scrollToEnd();
  if (!goesOn) return;
  const drawing = await api.graph(latest.assistant_id).catch(() => null);
  const turn = new Turn(current?.question ?? "", drawing, openCard);
  show(turn);
  await follow(turn, api.join(thread, latest.run_id));
}

// Each question with the answer that follows it, and the proposals of the last state before the
// next question.
function turnsOf(states) {
  const turns = [];
  const oldestFirst = states.toReversed();
  for (const { values, tasks } of oldestFirst) {
    const messages = values?.messages ?? [];
    const questions = messages.filter((message) => message.type === "human");
    if (!questions.length) continue;
    const last = messages.at(-1);
    const pending = (tasks ?? []).flatMap((task) => task.result?.proposals ?? []);
    turns[questions.length - 1] = {
      question: textOf(questions.at(-1)),
      proposals: belongsTo(turns, questions.length, [...(values.proposals ?? []), ...pending]),
      answer: last.type === "ai" ? last : null,
    };
  }
  return turns.filter(Boolean);
}

// The first state of a turn still has the proposals of the turn before.
function belongsTo(turns, number, proposals) {
  const before = turns[number - 2]?.proposals[0]?.turn ?? 0;
  return proposals.filter((proposal) => (proposal.turn ?? 0) > before);
}

function newThread() {
  thread = null;
  at("turns").querySelectorAll(".turn").forEach((turn) => turn.remove());
  at("empty").hidden = false;
  remember();
  at("question").focus();
}

// --- what the user does --------------------------------------------------------------

function openCard(card) {
  at("full-name").textContent = `${card.proposer}, layer ${card.layer}`;
  at("full-facts").textContent = [card.model, card.facts.textContent].filter(Boolean).join(" · ");
  at("full-text").textContent = [card.error, card.text].filter(Boolean).join("\n\n");
  at("full").showModal();
}

at("close").addEventListener("click", () => at("full").close());
at("full").addEventListener("click", (event) => {
  if (event.target === at("full")) at("full").close(); // beside it
});
at("stop").addEventListener("click", stop);
at("new").addEventListener("click", newThread);
at("assistant").addEventListener("change", remember);
at("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    at("ask").requestSubmit();
  }
});
at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const question = at("question").value.trim();
  if (!question || busy) return;
  at("question").value = "";
  ask(question);
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && busy && !document.querySelector("dialog[open]")) stop();
});

api.onKeyNeeded(
  (reason) =>
    new Promise((resolve, reject) => {
      at("key-reason").textContent = reason;
      at("key-value").value = "";
      at("key").onclose = () => {
        const key = at("key-value").value.trim();
        if (key) resolve(key);
        else reject(new Error(reason));
      };
      at("key").showModal();
    }),
);

async function begin() {
  try {
    const found = await api.assistants();
    found.sort((a, b) => a.name.localeCompare(b.name));
    for (const { assistant_id, name, description } of found) {
      const option = new Option(name, assistant_id);
      option.title = description ?? "";
      at("assistant").append(option);
    }
    const wanted = place.get("assistant");
    const first = found.find(({ graph_id }) => graph_id === "mixture") ?? found[0];
    at("assistant").value = found.some((a) => a.assistant_id === wanted)
      ? wanted
      : (first?.assistant_id ?? "");
    await restore();
  } catch (error) {
    at("empty").textContent = `The server does not answer: ${error.message}`;
  }
  at("question").focus();
}

begin();
