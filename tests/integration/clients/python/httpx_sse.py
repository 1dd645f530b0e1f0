"""HTTP by hand: requests to Chat Completions with httpx, and server-sent events line by line."""

from __future__ import annotations

import json

import httpx
from serving import DATA_URL, FUNCTION, Client, Weather, search, serve


class Http(Client):
    def __init__(self, url, key):
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=60)

    def _ask(self, model, messages, **given):
        body = {"model": model, "messages": messages, **given}
        return _checked(self._http.post("/v1/chat/completions", json=body))

    def text(self, model, question):
        told = self._ask(model, [{"role": "user", "content": question}])
        self._told(told["usage"])
        return told["choices"][0]["message"]["content"]

    def _told(self, usage):
        self.usage = (usage["prompt_tokens"], usage["completion_tokens"])

    def stream(self, model, question):
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        with self._http.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.is_error:
                answer.read()
                _checked(answer)
            for line in answer.iter_lines():
                data = line.removeprefix("data: ")
                if data == "[DONE]":
                    return
                if data == line:
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise RuntimeError(chunk["error"]["message"])
                if chunk.get("usage"):
                    self._told(chunk["usage"])
                for choice in chunk["choices"]:
                    yield choice["delta"].get("content")
        raise RuntimeError("the stream ended without [DONE]")

    def tools(self, model, question):
        messages = [{"role": "user", "content": question}]
        tools = [{"type": "function", "function": FUNCTION}]
        while True:
            message = self._ask(model, messages, tools=tools)["choices"][0]["message"]
            messages.append(message)
            if not message.get("tool_calls"):
                return message["content"]
            for call in message["tool_calls"]:
                result = search(**json.loads(call["function"]["arguments"]))
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": result})

    def structured(self, model, question):
        schema = {"name": "weather", "schema": Weather.model_json_schema()}
        form = {"type": "json_schema", "json_schema": schema}
        told = self._ask(model, [{"role": "user", "content": question}], response_format=form)
        return json.loads(told["choices"][0]["message"]["content"])

    def images(self, model, question):
        image = {"type": "image_url", "image_url": {"url": DATA_URL}}
        content = [{"type": "text", "text": question}, image]
        told = self._ask(model, [{"role": "user", "content": content}])
        return told["choices"][0]["message"]["content"]


def _checked(answer):
    if answer.is_error:
        raise RuntimeError(answer.json()["error"]["message"])
    return answer.json()


serve(Http)
