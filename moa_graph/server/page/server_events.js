// Server-sent events (WHATWG HTML, 9.2.6), their data being JSON.

/**
 * @typedef {{name: string, id: string, data: any}} ServerEvent
 */

/**
 * The events of a response as they arrive.
 * @param {Response} response
 * @returns {AsyncGenerator<ServerEvent>}
 */
export async function* serverEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  let id = "";
  let event = { name: "message", data: [] };
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const lines = (rest + value).split(/\r\n|\n|\r(?!$)/);
    rest = lines.pop();
    for (const line of lines) {
      const [, field, text] = /^([^:]*):? ?(.*)$/.exec(line);
      if (line === "") {
        if (event.data.length) {
          yield { name: event.name, id, data: JSON.parse(event.data.join("\n")) };
        }
        event = { name: "message", data: [] };
      } else if (field === "event") event.name = text;
      else if (field === "id") id = text;
      else if (field === "data") event.data.push(text);
    }
  }
}
