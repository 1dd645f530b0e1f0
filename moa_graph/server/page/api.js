// LangGraph Server's API, as far as the page needs it, and the routes of the page itself.

import { serverEvents } from "/moa/server_events.js";

/** An answer of the server that is no success. */
export class Refused extends Error {
  /** @param {number} status @param {string} detail */
  constructor(status, detail) {
    super(detail || `The server answered ${status}.`);
    this.status = status;
  }
}

// Asks the reader for the server's API key; main.js says how.
let askForKey;
export const onKeyNeeded = (ask) => (askForKey = ask);

// A request with the key, which is kept for this tab alone.
async function send(path, options) {
  for (;;) {
    const key = sessionStorage.getItem("moa-api-key");
    const headers = { ...options.headers, ...(key && { "X-Api-Key": key }) };
    const response = await fetch(path, { ...options, headers });
    if (response.ok) return response;
    const text = await response.text();
    let detail = text;
    try {
      const said = JSON.parse(text);
      // LangGraph Server's word, Aegra's, and that of the routes here
      detail = said.detail ?? said.message ?? said.error?.message ?? text;
    } catch {
      // no JSON: the text itself
    }
    if (typeof detail !== "string") detail = JSON.stringify(detail);
    if (response.status !== 401) throw new Refused(response.status, detail);
    sessionStorage.setItem("moa-api-key", await askForKey(detail));
  }
}

const request = (method, path, body, options = {}) =>
  send(path, {
    method,
    headers: { "Content-Type": "application/json", ...options.headers },
    body: body === undefined ? undefined : JSON.stringify(body),
  });

const json = async (...call) => (await request(...call)).json();
const query = (given) => new URLSearchParams(given).toString();

// --- assistants --------------------------------------------------------------------------

export const assistants = () => json("POST", "/assistants/search", { limit: 1000 });
export const graph = (assistant) => json("GET", `/assistants/${assistant}/graph`);
export const createAssistant = (name, context) =>
  json("POST", "/assistants", { graph_id: "mixture", name, context });
export const updateAssistant = (id, name, context) =>
  json("PATCH", `/assistants/${id}`, { name, context });

// --- threads -----------------------------------------------------------------------------

export const createThread = (metadata) => json("POST", "/threads", { metadata });
export const thread = (id) => json("GET", `/threads/${id}`);
export const describeThread = (thread, metadata) =>
  json("PATCH", `/threads/${thread}`, { metadata });
export const deleteThread = (thread) => request("DELETE", `/threads/${thread}`);
export const threads = (metadata, offset) =>
  json("POST", "/threads/search", {
    metadata,
    offset,
    limit: 100,
    select: ["thread_id", "metadata", "updated_at", "status"],
    sort_by: "updated_at",
    sort_order: "desc",
  });
export const state = (thread) => json("GET", `/threads/${thread}/state`);

/** The states of a thread whose metadata has these entries, the newest first. */
export async function states(thread, metadata, limit) {
  const read = (body) => json("POST", `/threads/${thread}/history`, body);
  const has = (state) =>
    Object.entries(metadata).every(([name, value]) => state.metadata?.[name] === value);
  const found = await read({ limit, metadata });
  if (found.every(has)) return found;
  return (await read({ limit: 1000 })).filter(has).slice(0, limit); // a server that does not select
}

// --- runs --------------------------------------------------------------------------------

export const runs = (thread) => json("GET", `/threads/${thread}/runs?limit=1000`);
export const cancel = (thread, run) =>
  request("POST", `/threads/${thread}/runs/${run}/cancel?wait=false&action=interrupt`);

/**
 * The events of a new run. It goes on when the page is left, and can be joined again.
 * @param {string} thread
 * @param {{assistant: string, messages: object[]|null, checkpoint?: object, metadata: object}} asked
 *   Without messages, the run goes on from the checkpoint, or from the thread's latest.
 */
export async function* start(thread, { assistant, messages, checkpoint, metadata }) {
  const body = {
    assistant_id: assistant,
    input: messages && { messages },
    ...(checkpoint && { checkpoint }),
    metadata,
    context: { stream_proposals: true },
    stream_mode: ["messages-tuple", "updates", "custom"],
    stream_resumable: true,
    on_disconnect: "continue",
    multitask_strategy: "reject",
  };
  yield* serverEvents(await request("POST", `/threads/${thread}/runs/stream`, body));
}

/** The events of a run behind the one with this id, or from its first. */
export async function* join(thread, run, after = "-1") {
  const headers = { "Last-Event-ID": after };
  const path = `/threads/${thread}/runs/${run}/stream`;
  yield* serverEvents(await request("GET", path, undefined, { headers }));
}

// --- the page's own routes ---------------------------------------------------------------

/** Markdown as HTML in which nothing runs; see markdown.py. */
export const markdown = async (text) =>
  (await send("/moa/markdown", { method: "POST", body: text })).text();

/** Dollars per million input and output tokens of models, by name; null where unknown. */
export const prices = (models) =>
  json("GET", `/moa/prices?${query(models.map((model) => ["model", model]))}`);

/** The models, the strategies and the bounds of this server. */
export const offer = () => json("GET", "/moa/offer");

/** A mixture as a file (TOML) and as code (Python). */
export const exported = (name, context) => json("POST", "/moa/export", { name, context });

/** Keep the reader's vote for a proposal. */
export const vote = (given) => json("POST", "/moa/votes", given);
