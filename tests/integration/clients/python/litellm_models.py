"""LiteLLM, with OpenAI's Chat Completions and with Anthropic's Messages."""

from __future__ import annotations

import json
import os

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # prices would be fetched at import

import litellm
from serving import DATA_URL, FUNCTION, Client, Weather, search, serve

TOOLS = [{"type": "function", "function": FUNCTION}]


class Litellm(Client):
    def __init__(self, url, key, provider):
        self._provider = provider
        self._base = f"{url}/v1" if provider == "openai" else url
        self._key = key

    async def _ask(self, model, messages, **given):
        return await litellm.acompletion(
            f"{self._provider}/{model}", messages, api_base=self._base, api_key=self._key,
            max_tokens=1000, **given,
        )  # fmt: skip

    def _told(self, usage):
        self.usage = (usage.prompt_tokens, usage.completion_tokens)

    async def text(self, model, question):
        told = await self._ask(model, [{"role": "user", "content": question}])
        self._told(told.usage)
        return told.choices[0].message.content

    async def stream(self, model, question):
        messages = [{"role": "user", "content": question}]
        stream = await self._ask(
            model, messages, stream=True, stream_options={"include_usage": True}
        )
        try:
            async for chunk in stream:
                if getattr(chunk, "usage", None):
                    self._told(chunk.usage)
                for choice in chunk.choices:
                    yield choice.delta.content
        finally:
            await stream.aclose()

    async def tools(self, model, question):
        messages = [{"role": "user", "content": question}]
        while True:
            told = await self._ask(model, messages, tools=TOOLS)
            message = told.choices[0].message
            if not message.tool_calls:
                return message.content
            messages.append(message)
            for call in message.tool_calls:
                result = search(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

    async def structured(self, model, question):
        messages = [{"role": "user", "content": question}]
        told = await self._ask(model, messages, response_format=Weather)
        return json.loads(told.choices[0].message.content)

    async def images(self, model, question):
        image = {"type": "image_url", "image_url": {"url": DATA_URL}}
        content = [{"type": "text", "text": question}, image]
        told = await self._ask(model, [{"role": "user", "content": content}])
        return told.choices[0].message.content


serve(Litellm)
