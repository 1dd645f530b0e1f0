// The server's own API: LangGraph's SDK.
import { Client } from "@langchain/langgraph-sdk";
import { DATA_URL, DESCRIPTION, PARAMETERS, WEATHER, search, serve, user } from "./serving.mjs";

const TOOL = { name: "search", description: DESCRIPTION, parameters: PARAMETERS };

class Runs {
  constructor(apiUrl, apiKey) {
    this.runs = new Client({ apiUrl, apiKey }).runs;
  }

  async values(model, messages, options = {}) {
    const context = { aggregator_options: options };
    return await this.runs.wait(null, model, { input: { messages }, context });
  }

  told({ messages, proposals }) {
    const used = [messages.at(-1).usage_metadata, ...proposals.map(({ usage }) => usage)];
    this.usage = ["input_tokens", "output_tokens"].map((name) =>
      used.reduce((sum, usage) => sum + usage[name], 0),
    );
    return messages.at(-1).content;
  }

  async text(model, question) {
    return this.told(await this.values(model, [user(question)]));
  }

  async *stream(model, question) {
    const abort = new AbortController();
    let values;
    try {
      for await (const { event, data } of this.runs.stream(null, model, {
        input: { messages: [user(question)] },
        streamMode: ["messages-tuple", "values"],
        onDisconnect: "cancel",
        signal: abort.signal,
      })) {
        if (event === "error") throw new Error(data.message);
        if (event === "values") values = data;
        if (event === "messages" && data[1].langgraph_node === "aggregator") yield data[0].content;
      }
      this.told(values);
    } finally {
      abort.abort();
    }
  }

  async tools(model, question) {
    let messages = [user(question)];
    const tools = [{ type: "function", function: TOOL }];
    for (;;) {
      ({ messages } = await this.values(model, messages, { tools }));
      const { tool_calls: calls, content } = messages.at(-1);
      if (!calls?.length) return content;
      for (const { id, args } of calls)
        messages.push({ role: "tool", tool_call_id: id, content: search(args) });
    }
  }

  async structured(model, question) {
    const json_schema = { name: "weather", schema: WEATHER };
    const options = { response_format: { type: "json_schema", json_schema } };
    return JSON.parse((await this.values(model, [user(question)], options)).messages.at(-1).content);
  }

  async images(model, question) {
    const content = [
      { type: "text", text: question },
      { type: "image_url", image_url: { url: DATA_URL } },
    ];
    return this.told(await this.values(model, [user(content)]));
  }
}

await serve((...given) => new Runs(...given));
