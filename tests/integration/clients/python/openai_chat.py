"""OpenAI's package: Chat Completions."""

from __future__ import annotations

import json

from openai import OpenAI
from serving import DATA_URL, FUNCTION, Client, Weather, search, serve


class Chat(Client):
    def __init__(self, url, key):
        self._chat = OpenAI(base_url=f"{url}/v1", api_key=key).chat.completions

    def _told(self, usage):
        self.usage = (usage.prompt_tokens, usage.completion_tokens)

    def text(self, model, question):
        told = self._chat.create(model=model, messages=[{"role": "user", "content": question}])
        self._told(told.usage)
        return told.choices[0].message.content

    def stream(self, model, question):
        messages = [{"role": "user", "content": question}]
        options = {"include_usage": True}
        with self._chat.create(
            model=model, messages=messages, stream=True, stream_options=options
        ) as stream:
            for chunk in stream:
                if chunk.usage:
                    self._told(chunk.usage)
                for choice in chunk.choices:
                    yield choice.delta.content

    def tools(self, model, question):
        messages = [{"role": "user", "content": question}]
        tools = [{"type": "function", "function": FUNCTION}]
        while True:
            told = self._chat.create(model=model, messages=messages, tools=tools)
            message = told.choices[0].message
            if not message.tool_calls:
                return message.content
            messages.append(message)
            for call in message.tool_calls:
                result = search(**json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

    def structured(self, model, question):
        messages = [{"role": "user", "content": question}]
        told = self._chat.parse(model=model, messages=messages, response_format=Weather)
        return told.choices[0].message.parsed

    def images(self, model, question):
        content = [
            {"type": "text", "text": question},
            {"type": "image_url", "image_url": {"url": DATA_URL}},
        ]
        told = self._chat.create(model=model, messages=[{"role": "user", "content": content}])
        return told.choices[0].message.content


serve(Chat)
