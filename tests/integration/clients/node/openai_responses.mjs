// OpenAI's package: Responses.
import OpenAI from "openai";
import { DATA_URL, DESCRIPTION, PARAMETERS, WEATHER, search, serve, user } from "./serving.mjs";

const TOOL = { name: "search", description: DESCRIPTION, parameters: PARAMETERS, strict: true };

class Responses {
  constructor(url, key) {
    this.responses = new OpenAI({ baseURL: `${url}/v1`, apiKey: key }).responses;
  }

  told(response) {
    this.usage = [response.usage.input_tokens, response.usage.output_tokens];
    return response.output_text;
  }

  async text(model, question) {
    return this.told(await this.responses.create({ model, input: question }));
  }

  async *stream(model, question) {
    const stream = await this.responses.create({ model, input: question, stream: true });
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") yield event.delta;
      if (event.type === "response.completed") this.told(event.response);
    }
  }

  async tools(model, question) {
    const input = [user(question)];
    for (;;) {
      const told = await this.responses.create({
        model,
        input,
        tools: [{ type: "function", ...TOOL }],
        store: false,
      });
      const calls = told.output.filter((item) => item.type === "function_call");
      if (!calls.length) return told.output_text;
      input.push(...told.output);
      for (const call of calls) {
        const output = search(JSON.parse(call.arguments));
        input.push({ type: "function_call_output", call_id: call.call_id, output });
      }
    }
  }

  async structured(model, question) {
    const format = { type: "json_schema", name: "weather", strict: true, schema: WEATHER };
    return (await this.responses.parse({ model, input: question, text: { format } })).output_parsed;
  }

  async images(model, question) {
    const content = [
      { type: "input_text", text: question },
      { type: "input_image", image_url: DATA_URL, detail: "auto" },
    ];
    return (await this.responses.create({ model, input: [user(content)] })).output_text;
  }
}

await serve((...given) => new Responses(...given));
