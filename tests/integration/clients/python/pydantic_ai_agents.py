"""Pydantic AI: agents with Chat Completions, Responses and Messages."""

from __future__ import annotations

import base64

from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from serving import PNG, Client, Weather, search, serve

KINDS = {
    "chat": (OpenAIChatModel, OpenAIProvider, "/v1"),
    "responses": (OpenAIResponsesModel, OpenAIProvider, "/v1"),
    "messages": (AnthropicModel, AnthropicProvider, ""),
}


class Agents(Client):
    def __init__(self, url, key, kind):
        self._model, provider, path = KINDS[kind]
        self._native = kind == "chat"
        self._provider = provider(base_url=url + path, api_key=key)

    def _agent(self, model, **given):
        return Agent(self._model(model, provider=self._provider), **given)

    def _told(self, usage):
        self.usage = (usage.input_tokens, usage.output_tokens)

    async def text(self, model, question):
        result = await self._agent(model).run(question)
        self._told(result.usage)
        return result.output

    async def stream(self, model, question):
        async with self._agent(model).run_stream(question) as result:
            async for piece in result.stream_text(delta=True, debounce_by=None):
                yield piece
            self._told(result.usage)

    async def tools(self, model, question):
        return (await self._agent(model, tools=[search]).run(question)).output

    async def structured(self, model, question):
        form = NativeOutput(Weather) if self._native else Weather
        return (await self._agent(model, output_type=form).run(question)).output

    async def images(self, model, question):
        image = BinaryContent(base64.b64decode(PNG), media_type="image/png")
        return (await self._agent(model).run([question, image])).output


serve(Agents)
