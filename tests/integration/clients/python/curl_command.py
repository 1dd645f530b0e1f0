"""The command `curl`: requests to Responses."""

from __future__ import annotations

import json
import subprocess

from serving import DATA_URL, FUNCTION, Client, Weather, search, serve


class Curl(Client):
    def __init__(self, url, key):
        self._command = [
            "curl", "--no-buffer", "--silent", "--show-error", "--fail-with-body", "--json", "@-",
            "--header", f"Authorization: Bearer {key}", f"{url}/v1/responses",
        ]  # fmt: skip

    def _start(self, model, given, **more):
        process = subprocess.Popen(
            self._command, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        json.dump({"model": model, "input": given, **more}, process.stdin)
        process.stdin.close()
        return process

    def _ask(self, model, given, **more):
        with self._start(model, given, **more) as process:
            told = process.stdout.read()
            if process.wait():
                raise RuntimeError(told or process.stderr.read())
        return json.loads(told)

    def _told(self, response):
        self.usage = (response["usage"]["input_tokens"], response["usage"]["output_tokens"])

    def text(self, model, question):
        told = self._ask(model, question)
        self._told(told)
        return _text(told)

    def stream(self, model, question):
        with self._start(model, question, stream=True) as process:
            try:
                yield from self._pieces(process)
            finally:
                process.terminate()

    def _pieces(self, process):
        other, completed = "", False
        for line in process.stdout:
            if not line.startswith("data: "):
                other += line
                continue
            event = json.loads(line.removeprefix("data: "))
            if event["type"] == "response.output_text.delta":
                yield event["delta"]
            elif event["type"] == "error":
                raise RuntimeError(event["message"])
            elif event["type"] == "response.completed":
                completed = True
                self._told(event["response"])
        if process.wait() or not completed:
            raise RuntimeError(other or process.stderr.read())

    def tools(self, model, question):
        given = [{"role": "user", "content": question}]
        tools = [{"type": "function", **FUNCTION}]
        while True:
            told = self._ask(model, given, tools=tools, store=False)
            calls = [item for item in told["output"] if item["type"] == "function_call"]
            if not calls:
                return _text(told)
            given += told["output"]
            for call in calls:
                result = search(**json.loads(call["arguments"]))
                about = {"type": "function_call_output", "call_id": call["call_id"]}
                given.append({**about, "output": result})

    def structured(self, model, question):
        form = {"type": "json_schema", "name": "weather", "schema": Weather.model_json_schema()}
        return json.loads(_text(self._ask(model, question, text={"format": form})))

    def images(self, model, question):
        content = [
            {"type": "input_text", "text": question},
            {"type": "input_image", "image_url": DATA_URL},
        ]
        return _text(self._ask(model, [{"role": "user", "content": content}]))


def _text(response):
    return response["output"][0]["content"][0]["text"]


serve(Curl)
