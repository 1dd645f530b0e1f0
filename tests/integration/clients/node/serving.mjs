// The frame of a client's script: a request a line on standard input, a result a line on output.
// The requests and results are those of python/serving.py.
import { Console } from "node:console";
import { createInterface } from "node:readline";

globalThis.console = new Console(process.stderr); // some packages print advice

export const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==";
export const DATA_URL = `data:image/png;base64,${PNG}`;
export const DESCRIPTION = "Search the city's events.";
export const PARAMETERS = {
  type: "object",
  properties: { query: { type: "string" } },
  required: ["query"],
  additionalProperties: false,
};
export const WEATHER = {
  type: "object",
  properties: { city: { type: "string" }, degrees: { type: "integer" } },
  required: ["city", "degrees"],
  additionalProperties: false,
};

export function search({ query }) {
  return `found ${query}`;
}

export function user(content) {
  return { role: "user", content };
}

/**
 * Carry out the requests.
 *
 * @param make Makes a client of the URL of a server, an API key and a kind: an object
 *   with the methods text, stream (a generator), tools, structured and images, and with the
 *   `usage` of the last answer.
 */
export async function serve(make) {
  const clients = {};
  for await (const line of createInterface({ input: process.stdin })) {
    const { do: what, model, question, url, key, kind } = JSON.parse(line);
    const result = {};
    try {
      const client = (clients[[url, key, kind]] ??= make(url, key, kind));
      client.usage = null;
      if (what === "stream" || what === "cancel") {
        result.pieces = [];
        for await (const piece of client.stream(model, question)) {
          if (piece) result.pieces.push(piece);
          if (piece && what === "cancel") break;
        }
      } else if (what === "structured") {
        result.value = await client.structured(model, question);
      } else {
        result.text = await client[what](model, question);
      }
      result.usage = client.usage;
    } catch (error) {
      result.error = error.constructor.name;
      result.message = [...messages(error)].join(" ");
    }
    process.stdout.write(`${JSON.stringify(result)}\n`);
  }
  process.exit(0);
}

function* messages(error) {
  for (; error; error = error.cause) yield String(error.message ?? error);
}
