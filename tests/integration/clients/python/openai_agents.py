"""OpenAI's Agents SDK, with Responses and with Chat Completions."""

from __future__ import annotations

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from serving import DATA_URL, Client, Weather, search, serve

set_tracing_disabled(True)  # traces are sent to OpenAI
KINDS = {"responses": OpenAIResponsesModel, "chat": OpenAIChatCompletionsModel}


class Agents(Client):
    def __init__(self, url, key, kind):
        self._kind = KINDS[kind]
        self._client = AsyncOpenAI(base_url=f"{url}/v1", api_key=key)

    def _agent(self, model, **given):
        model = self._kind(model, self._client)
        settings = ModelSettings(include_usage=True)
        return Agent("agent", model=model, model_settings=settings, **given)

    def _told(self, result):
        usage = result.context_wrapper.usage
        self.usage = (usage.input_tokens, usage.output_tokens)

    async def text(self, model, question):
        result = await Runner.run(self._agent(model), question)
        self._told(result)
        return result.final_output

    async def stream(self, model, question):
        result = Runner.run_streamed(self._agent(model), question)
        try:
            async for event in result.stream_events():
                data = getattr(event, "data", None)
                if getattr(data, "type", "") == "response.output_text.delta":
                    yield data.delta
            self._told(result)
        finally:
            result.cancel()

    async def tools(self, model, question):
        agent = self._agent(model, tools=[function_tool(search)])
        return (await Runner.run(agent, question)).final_output

    async def structured(self, model, question):
        agent = self._agent(model, output_type=Weather)
        return (await Runner.run(agent, question)).final_output

    async def images(self, model, question):
        content = [
            {"type": "input_text", "text": question},
            {"type": "input_image", "image_url": DATA_URL, "detail": "auto"},
        ]
        items = [{"role": "user", "content": content}]
        return (await Runner.run(self._agent(model), items)).final_output


serve(Agents)
