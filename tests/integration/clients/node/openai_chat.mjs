// OpenAI's package: Chat Completions.
import OpenAI from "openai";
import { DATA_URL, DESCRIPTION, PARAMETERS, WEATHER, search, serve, user } from "./serving.mjs";

class Chat {
  constructor(url, key) {
    this.chat = new OpenAI({ baseURL: `${url}/v1`, apiKey: key }).chat.completions;
  }

  told(usage) {
    this.usage = [usage.prompt_tokens, usage.completion_tokens];
  }

  async text(model, question) {
    const told = await this.chat.create({ model, messages: [user(question)] });
    this.told(told.usage);
    return told.choices[0].message.content;
  }

  async *stream(model, question) {
    const stream = await this.chat.create({
      model,
      messages: [user(question)],
      stream: true,
      stream_options: { include_usage: true },
    });
    for await (const chunk of stream) {
      if (chunk.usage) this.told(chunk.usage);
      for (const choice of chunk.choices) yield choice.delta.content;
    }
  }

  async tools(model, question) {
    const tool = { name: "search", description: DESCRIPTION, parameters: PARAMETERS };
    const run = this.chat.runTools({
      model,
      messages: [user(question)],
      tools: [{ type: "function", function: { ...tool, function: search, parse: JSON.parse } }],
    });
    return await run.finalContent();
  }

  async structured(model, question) {
    const told = await this.chat.parse({
      model,
      messages: [user(question)],
      response_format: {
        type: "json_schema",
        json_schema: { name: "weather", strict: true, schema: WEATHER },
      },
    });
    return JSON.parse(told.choices[0].message.content);
  }

  async images(model, question) {
    const content = [
      { type: "text", text: question },
      { type: "image_url", image_url: { url: DATA_URL } },
    ];
    const told = await this.chat.create({ model, messages: [user(content)] });
    return told.choices[0].message.content;
  }
}

await serve((...given) => new Chat(...given));
