// LangChain's chat models: ChatOpenAI with either API, and ChatAnthropic.
import { ChatAnthropic } from "@langchain/anthropic";
import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { ChatOpenAI } from "@langchain/openai";
import { DATA_URL, DESCRIPTION, PARAMETERS, WEATHER, search, serve } from "./serving.mjs";

// By default, LangChain repeats all requests that failed with a status of 500 or more.
const ONCE = { maxRetries: 0 };

function openai(url, apiKey, model, more) {
  return new ChatOpenAI({
    model,
    apiKey,
    configuration: { baseURL: `${url}/v1` },
    ...ONCE,
    ...more,
  });
}

const KINDS = {
  chat: (url, key, model) => openai(url, key, model, {}),
  responses: (url, key, model) => openai(url, key, model, { useResponsesApi: true }),
  messages: (url, apiKey, model) =>
    new ChatAnthropic({ model, apiKey, anthropicApiUrl: url, maxTokens: 1000, ...ONCE }),
};
const TOOL = tool(search, { name: "search", description: DESCRIPTION, schema: PARAMETERS });

class ChatModel {
  constructor(url, key, kind) {
    this.model = (model) => KINDS[kind](url, key, model);
  }

  told(message) {
    const usage = message.usage_metadata;
    if (usage) this.usage = [usage.input_tokens, usage.output_tokens];
    return message.text;
  }

  async text(model, question) {
    return this.told(await this.model(model).invoke(question));
  }

  async *stream(model, question) {
    const abort = new AbortController();
    let whole;
    try {
      for await (const chunk of await this.model(model).stream(question, {
        signal: abort.signal,
      })) {
        whole = whole ? whole.concat(chunk) : chunk;
        yield chunk.text;
      }
      this.told(whole);
    } finally {
      abort.abort();
    }
  }

  async tools(model, question) {
    const bound = this.model(model).bindTools([TOOL]);
    const messages = [new HumanMessage(question)];
    for (;;) {
      const told = await bound.invoke(messages);
      if (!told.tool_calls.length) return told.text;
      messages.push(told);
      for (const call of told.tool_calls) messages.push(await TOOL.invoke(call));
    }
  }

  async structured(model, question) {
    return await this.model(model).withStructuredOutput(WEATHER).invoke(question);
  }

  async images(model, question) {
    const content = [
      { type: "text", text: question },
      { type: "image_url", image_url: { url: DATA_URL } },
    ];
    return this.told(await this.model(model).invoke([new HumanMessage({ content })]));
  }
}

await serve((...given) => new ChatModel(...given));
