"""Instructor, with OpenAI's package."""

from __future__ import annotations

import instructor
from instructor.processing.multimodal import Image
from openai import OpenAI
from serving import DATA_URL, Client, Weather, serve


class Instructor(Client):
    def __init__(self, url, key):
        self._client = instructor.from_openai(OpenAI(base_url=f"{url}/v1", api_key=key))

    def _ask(self, model, content, form, **given):
        messages = [{"role": "user", "content": content}]
        return self._client.create(model=model, messages=messages, response_model=form, **given)

    def _told(self, usage):
        self.usage = (usage.prompt_tokens, usage.completion_tokens)

    def text(self, model, question):
        told = self._ask(model, question, None)
        self._told(told.usage)
        return told.choices[0].message.content

    def stream(self, model, question):
        options = {"include_usage": True}
        with self._ask(model, question, None, stream=True, stream_options=options) as stream:
            for chunk in stream:
                if chunk.usage:
                    self._told(chunk.usage)
                for choice in chunk.choices:
                    yield choice.delta.content

    def structured(self, model, question):
        return self._ask(model, question, Weather)

    def images(self, model, question):
        content = [question, Image.autodetect(DATA_URL)]
        return self._ask(model, content, None).choices[0].message.content


serve(Instructor)
