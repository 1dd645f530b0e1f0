"""The command `llm`, with a model of an OpenAI-compatible endpoint."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from serving import PNG, Client, Weather, serve

COMMAND = Path(sys.executable).with_name("llm")
TOOL = '''
def search(query: str) -> str:
    """Search the city's events."""
    return f"found {query}"
'''
MODEL = """
- model_id: {model}
  model_name: {model}
  api_base: {base}
  api_key_name: moa
  vision: true
  supports_tools: true
  supports_schema: true
"""


class Llm(Client):
    def __init__(self, url, key):
        self._base = f"{url}/v1"
        self._temporary = tempfile.TemporaryDirectory()
        self._folder = Path(self._temporary.name)
        (self._folder / "keys.json").write_text(json.dumps({"moa": key}))

    def _start(self, model, question, *options):
        models = MODEL.format(model=model, base=self._base)
        (self._folder / "extra-openai-models.yaml").write_text(models)
        return subprocess.Popen(
            [COMMAND, "--model", model, "--no-log", "--usage", *options, question],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
            env={**os.environ, "LLM_USER_PATH": str(self._folder)},
        )  # fmt: skip

    def _ended(self, process):
        said = process.stderr.read()
        if process.wait():
            raise RuntimeError(said)
        if told := re.search(r"Token usage: ([\d,]+) input, ([\d,]+) output", said):
            self.usage = tuple(int(number.replace(",", "")) for number in told.groups())

    def _ask(self, model, question, *options):
        with self._start(model, question, "--no-stream", *options) as process:
            text = process.stdout.read()
            self._ended(process)
        return text.removesuffix("\n")

    def text(self, model, question):
        return self._ask(model, question)

    def stream(self, model, question):
        with self._start(model, question) as process:
            try:
                while piece := os.read(process.stdout.fileno(), 1000).decode():
                    yield piece.removesuffix("\n")
                self._ended(process)
            finally:
                process.send_signal(signal.SIGINT)

    def tools(self, model, question):
        return self._ask(model, question, "--functions", TOOL)

    def structured(self, model, question):
        schema = json.dumps(Weather.model_json_schema())
        return json.loads(self._ask(model, question, "--schema", schema))

    def images(self, model, question):
        path = self._folder / "picture.png"
        path.write_bytes(base64.b64decode(PNG))
        return self._ask(model, question, "--attachment", str(path))


serve(Llm)
