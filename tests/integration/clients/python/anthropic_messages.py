"""Anthropic's package."""

from __future__ import annotations

from anthropic import Anthropic, beta_tool
from serving import PNG, Client, Weather, search, serve

IMAGE = {
    "type": "image",
    "source": {"type": "base64", "media_type": "image/png", "data": PNG},
}


class Messages(Client):
    def __init__(self, url, key):
        client = Anthropic(base_url=url, api_key=key)
        self._messages, self._runner = client.messages, client.beta.messages.tool_runner

    def _ask(self, model, content, **given):
        return self._messages.create(
            model=model, max_tokens=1000, messages=[{"role": "user", "content": content}], **given
        )

    def _told(self, message):
        self.usage = (message.usage.input_tokens, message.usage.output_tokens)

    def text(self, model, question):
        told = self._ask(model, question)
        self._told(told)
        return told.content[0].text

    def stream(self, model, question):
        messages = [{"role": "user", "content": question}]
        with self._messages.stream(model=model, max_tokens=1000, messages=messages) as stream:
            yield from stream.text_stream
            self._told(stream.get_final_message())

    def tools(self, model, question):
        runner = self._runner(
            model=model, max_tokens=1000, messages=[{"role": "user", "content": question}],
            tools=[beta_tool(search)],
        )  # fmt: skip
        return runner.until_done().content[0].text

    def structured(self, model, question):
        return self._messages.parse(
            model=model, max_tokens=1000, messages=[{"role": "user", "content": question}],
            output_format=Weather,
        ).parsed_output  # fmt: skip

    def images(self, model, question):
        return self._ask(model, [IMAGE, {"type": "text", "text": question}]).content[0].text


serve(Messages)
