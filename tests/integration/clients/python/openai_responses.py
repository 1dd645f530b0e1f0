"""OpenAI's package: Responses."""

from __future__ import annotations

import json

from openai import OpenAI
from serving import DATA_URL, FUNCTION, Client, Weather, search, serve


class Responses(Client):
    def __init__(self, url, key):
        self._responses = OpenAI(base_url=f"{url}/v1", api_key=key).responses

    def _told(self, response):
        self.usage = (response.usage.input_tokens, response.usage.output_tokens)
        return response.output_text

    def text(self, model, question):
        return self._told(self._responses.create(model=model, input=question))

    def stream(self, model, question):
        with self._responses.stream(model=model, input=question) as stream:
            for event in stream:
                if event.type == "response.output_text.delta":
                    yield event.delta
            self._told(stream.get_final_response())

    def tools(self, model, question):
        given, before = question, None
        while True:
            told = self._responses.create(
                model=model, input=given, tools=[{"type": "function", **FUNCTION}],
                previous_response_id=before,
            )  # fmt: skip
            calls = [item for item in told.output if item.type == "function_call"]
            if not calls:
                return told.output_text
            before = told.id
            given = [
                {
                    "type": "function_call_output",
                    "call_id": call.call_id,
                    "output": search(**json.loads(call.arguments)),
                }
                for call in calls
            ]

    def structured(self, model, question):
        return self._responses.parse(model=model, input=question, text_format=Weather).output_parsed

    def images(self, model, question):
        content = [
            {"type": "input_text", "text": question},
            {"type": "input_image", "image_url": DATA_URL, "detail": "auto"},
        ]
        told = self._responses.create(model=model, input=[{"role": "user", "content": content}])
        return told.output_text


serve(Responses)
