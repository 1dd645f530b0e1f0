// OpenAI's Agents SDK, with Responses.
import {
  Agent,
  OpenAIResponsesModel,
  run,
  setTracingDisabled,
  tool,
} from "@openai/agents";
import OpenAI from "openai";
import { z } from "zod";
import { DATA_URL, DESCRIPTION, search, serve, user } from "./serving.mjs";

setTracingDisabled(true); // traces are sent to OpenAI

class Agents {
  constructor(url, key) {
    this.client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key });
  }

  agent(model, more = {}) {
    return new Agent({
      name: "agent",
      model: new OpenAIResponsesModel(this.client, model),
      ...more,
    });
  }

  told(result) {
    const { usage } = result.state;
    this.usage = [usage.inputTokens, usage.outputTokens];
    return result.finalOutput;
  }

  async text(model, question) {
    return this.told(await run(this.agent(model), question));
  }

  async *stream(model, question) {
    const abort = new AbortController();
    const result = await run(this.agent(model), question, { stream: true, signal: abort.signal });
    try {
      for await (const event of result)
        if (event.data?.type === "output_text_delta") yield event.data.delta;
      await result.completed;
      this.told(result);
    } finally {
      abort.abort();
    }
  }

  async tools(model, question) {
    const tools = [
      tool({
        name: "search",
        description: DESCRIPTION,
        parameters: z.object({ query: z.string() }),
        execute: search,
      }),
    ];
    return (await run(this.agent(model, { tools }), question)).finalOutput;
  }

  async structured(model, question) {
    const outputType = z.object({ city: z.string(), degrees: z.number().int() });
    return (await run(this.agent(model, { outputType }), question)).finalOutput;
  }

  async images(model, question) {
    const content = [
      { type: "input_text", text: question },
      { type: "input_image", image: DATA_URL },
    ];
    return (await run(this.agent(model), [user(content)])).finalOutput;
  }
}

await serve((...given) => new Agents(...given));
