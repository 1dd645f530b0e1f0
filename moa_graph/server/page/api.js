// LangGraph Server's API, as far as the page needs it; any Agent Protocol server has the same.

// Asks the user for the server's API key; main.js says how.
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
      detail = said.detail ?? said.message ?? text; // LangGraph Server's word, and Aegra's
    } catch {
      // no JSON: the text itself
    }
    if (response.status !== 401) {
      throw new Error(detail || `The server answered ${response.status}.`);
    }
    sessionStorage.setItem("moa-api-key", await askForKey(detail));
  }
}

const request = (method, path, body, options = {}) =>
  send(path, {
    method,
    headers: { "Content-Type": "application/json", ...options.headers },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal: options.signal,
  });

const json = async (...call) => (await request(...call)).json();

export const assistants = () => json("POST", "/assistants/search", { limit: 100 });
export const graph = (assistant) => json("GET", `/assistants/${assistant}/graph`);
export const createThread = () => json("POST", "/threads", {});
export const history = (thread) => json("POST", `/threads/${thread}/history`, { limit: 500 });
export const runs = (thread) => json("GET", `/threads/${thread}/runs?limit=1`);
export const cancel = (thread, run) =>
  request("POST", `/threads/${thread}/runs/${run}/cancel?wait=false&action=interrupt`);

// The events of a new run. It goes on when the page is left, and can be joined again.
export async function* start(thread, assistant, question) {
  const body = {
    assistant_id: assistant,
    input: { messages: [{ role: "user", content: question }] },
    context: { stream_proposals: true },
    stream_mode: ["messages-tuple", "updates", "custom"],
    stream_resumable: true,
    on_disconnect: "continue",
    multitask_strategy: "reject",
  };
  yield* events(await request("POST", `/threads/${thread}/runs/stream`, body));
}

// The events of a run that goes on, from its first.
export async function* join(thread, run) {
  const headers = { "Last-Event-ID": "-1" };
  const path = `/threads/${thread}/runs/${run}/stream`;
  yield* events(await request("GET", path, undefined, { headers }));
}

// Server-sent events (WHATWG HTML, 9.2.6), their data being JSON.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let event = { name: "message", data: [] };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
      if (line === "") {
        if (event.data.length) yield { name: event.name, data: JSON.parse(event.data.join("\n")) };
        event = { name: "message", data: [] };
      } else if (field === "event") event.name = text;
      else if (field === "data") event.data.push(text);
    }
  }
}

// Markdown as HTML in which nothing runs; see app.py.
export const markdown = async (text) =>
  (await send("/moa/markdown", { method: "POST", body: text })).text();
