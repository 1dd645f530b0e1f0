// The AI SDK with one of its providers.
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import { DESCRIPTION, PARAMETERS, PNG, WEATHER, search, serve, user } from "./serving.mjs";

const PROVIDERS = {
  responses: (options) => createOpenAI(options),
  chat: (options) => createOpenAI(options).chat,
  messages: (options) => createAnthropic(options),
  compatible: (options) =>
    createOpenAICompatible({
      ...options,
      name: "moa",
      includeUsage: true,
      supportsStructuredOutputs: true,
    }),
};

class AiSdk {
  constructor(url, key, provider) {
    this.provider = PROVIDERS[provider]({ baseURL: `${url}/v1`, apiKey: key });
  }

  asked(model, question) {
    // By default, the SDK repeats all requests that failed with a status of 500 or more.
    return { model: this.provider(model), prompt: question, maxRetries: 0 };
  }

  told(usage) {
    this.usage = [usage.inputTokens, usage.outputTokens];
  }

  async text(model, question) {
    const told = await generateText(this.asked(model, question));
    this.told(told.usage);
    return told.text;
  }

  async *stream(model, question) {
    const abort = new AbortController();
    const asked = { ...this.asked(model, question), abortSignal: abort.signal, onError: () => {} };
    const told = streamText(asked);
    try {
      for await (const part of told.fullStream) {
        if (part.type === "text-delta") yield part.text;
        if (part.type === "error") throw part.error;
      }
      this.told(await told.usage);
    } finally {
      abort.abort();
    }
  }

  async tools(model, question) {
    const told = await generateText({
      ...this.asked(model, question),
      tools: {
        search: tool({
          description: DESCRIPTION,
          inputSchema: jsonSchema(PARAMETERS),
          execute: search,
        }),
      },
      stopWhen: stepCountIs(5),
    });
    return told.text;
  }

  async structured(model, question) {
    const output = Output.object({ schema: jsonSchema(WEATHER) });
    return (await generateText({ ...this.asked(model, question), output })).output;
  }

  async images(model, question) {
    const content = [
      { type: "text", text: question },
      { type: "image", image: PNG, mediaType: "image/png" },
    ];
    const { prompt, ...asked } = this.asked(model, question);
    return (await generateText({ ...asked, messages: [user(content)] })).text;
  }
}

await serve((...given) => new AiSdk(...given));
