// Anthropic's package.
import Anthropic from "@anthropic-ai/sdk";
import { betaTool } from "@anthropic-ai/sdk/helpers/beta/json-schema";
import { jsonSchemaOutputFormat } from "@anthropic-ai/sdk/helpers/json-schema";
import { DESCRIPTION, PARAMETERS, PNG, WEATHER, search, serve, user } from "./serving.mjs";

class Messages {
  constructor(url, key) {
    this.client = new Anthropic({ baseURL: url, apiKey: key });
  }

  asked(model, content, more = {}) {
    return { model, max_tokens: 1000, messages: [user(content)], ...more };
  }

  told(message) {
    this.usage = [message.usage.input_tokens, message.usage.output_tokens];
    return message.content[0].text;
  }

  async text(model, question) {
    return this.told(await this.client.messages.create(this.asked(model, question)));
  }

  async *stream(model, question) {
    const stream = this.client.messages.stream(this.asked(model, question));
    for await (const event of stream)
      if (event.delta?.type === "text_delta") yield event.delta.text;
    this.told(await stream.finalMessage());
  }

  async tools(model, question) {
    const tool = betaTool({
      name: "search",
      description: DESCRIPTION,
      inputSchema: PARAMETERS,
      run: search,
    });
    const asked = this.asked(model, question, { tools: [tool] });
    return (await this.client.beta.messages.toolRunner(asked)).content[0].text;
  }

  async structured(model, question) {
    const format = jsonSchemaOutputFormat(WEATHER);
    const asked = this.asked(model, question, { output_config: { format } });
    return (await this.client.messages.parse(asked)).parsed_output;
  }

  async images(model, question) {
    const source = { type: "base64", media_type: "image/png", data: PNG };
    const content = [
      { type: "image", source },
      { type: "text", text: question },
    ];
    return this.told(await this.client.messages.create(this.asked(model, content)));
  }
}

await serve((...given) => new Messages(...given));
