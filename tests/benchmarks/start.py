"""`moa ask` on embedded models: from the start of the process to the aggregator's first token.

The models' own time is that of a process that does nothing but load the same weights with llama.cpp,
generate the same proposals at the same time, and read the aggregator's prompt up to its first token.
Both in turn, so that a busy machine slows both. Needs `moa-graph[local]`; the weights are fetched
before.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from langchain_core.messages import BaseMessage, convert_to_openai_messages
from langchain_core.runnables import RunnableLambda
from matplotlib.axes import Axes

from moa_graph import create_moa
from moa_graph.models import local
from moa_graph.presets import Configuration
from tests.benchmarks.report import Table
from tests.benchmarks.server import Server

QUESTION = "hi"
MODELS = ("qwen2.5-coder-0.5b", "smollm2-135m")
PROPOSERS, TOKENS = 3, 32
ROUNDS, QUICK = 7, 3


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """Seconds to the first token, and their ratio, for each model."""
    rows = {}
    for model in MODELS:
        path = local.fetch(model)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "mixture.toml")
            _configuration(model).save(file)
            pairs = [(_own(model, path), _asked(file)) for _ in range(QUICK if quick else ROUNDS)]
        rows[model] = {
            "own": statistics.median(own for own, _ in pairs),
            "moa ask": statistics.median(ours for _, ours in pairs),
            "ratio": statistics.median(ours / own for own, ours in pairs),
        }
    return {"proposers": PROPOSERS, "tokens": TOKENS, "seconds": rows}


def _configuration(model: str) -> Configuration:
    # Seeds, so that both generate the same.
    proposers = [
        {"model": f"local:{model}", "params": {"seed": seed, "max_tokens": TOKENS}}
        for seed in range(PROPOSERS)
    ]
    return Configuration(proposers=proposers, aggregator=f"local:{model}", layers=2)


def _asked(file: Path) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "moa_graph", "ask", "--config", str(file), QUESTION]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert os.read(process.stdout.fileno(), 1), "it has no answer"
        seconds = time.perf_counter() - started
        process.kill()
    return seconds


def _own(model: str, path: Path) -> float:
    weights = local.LOCAL_MODELS[model]
    threads = local._threads_for_one_more(local._cpus(), [])
    settings = {
        "weights": str(path), "threads": threads, "slots": local.SLOTS,
        "context": weights.context, "sampling": dict(weights.sampling),
    }  # fmt: skip
    job = {"settings": settings, "tokens": TOKENS, **_messages()}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-P", "-c", OWN], input=json.dumps(job), text=True, check=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return time.perf_counter() - started


def _messages() -> dict[str, Any]:
    """What the proposers and the aggregator are asked; `@0@` stands for the first proposal."""
    asked: list[list[BaseMessage]] = []
    graph = create_moa(
        [RunnableLambda(lambda _, n=n: f"@{n}@", name=f"p{n}") for n in range(PROPOSERS)],
        RunnableLambda(lambda messages: asked.append(messages) or "answer", name="aggregator"),
        layers=2,
    )
    graph.invoke({"messages": QUESTION})
    return {
        "proposers": [[{"role": "user", "content": QUESTION}]] * PROPOSERS,
        "aggregator": convert_to_openai_messages(asked[0]),
    }


OWN = """
import http.client, json, os, sys
from concurrent.futures import ThreadPoolExecutor
import xllamacpp
job = json.loads(sys.stdin.read())
settings = job["settings"]
params = xllamacpp.CommonParams()
params.model.path = settings["weights"]
params.n_parallel = settings["slots"]
params.n_ctx = settings["slots"] * settings["context"]
params.port, params.verbosity, params.fit_params = 0, -1, False
for name, value in settings["sampling"].items():
    setattr(params.sampling, name, value)
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = settings["threads"]
server = xllamacpp.Server(params)
def post(messages, **options):
    connection = http.client.HTTPConnection(server.listening_address.partition("//")[2])
    body = json.dumps({"messages": messages, **options})
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    return connection.getresponse()
def propose(seed):
    answer = json.load(post(job["proposers"][seed], seed=seed, max_tokens=job["tokens"]))
    return answer["choices"][0]["message"]["content"]
with ThreadPoolExecutor() as threads:
    proposals = list(threads.map(propose, range(len(job["proposers"]))))
told = json.dumps(job["aggregator"])
for number, text in enumerate(proposals):
    told = told.replace(f"@{number}@", json.dumps(text)[1:-1])
for line in post(json.loads(told), stream=True):
    if line.startswith(b"data: {") and json.loads(line[6:])["choices"][0]["delta"].get("content"):
        os._exit(0)
os._exit(1)
"""


def tables(result: dict[str, Any]) -> list[Table]:
    """Seconds, and the ratio, which is the median of those of the pairs."""
    table = Table(
        f"{PROPOSERS} proposals of at most {TOKENS} tokens: seconds to the aggregator's first token",
        ["the models' own", "moa ask", "ratio"],
    )
    for model, row in result["seconds"].items():
        table.add(model, [row["own"], row["moa ask"], row["ratio"]])
    return [table]


def plot(result: dict[str, Any], axes: Axes) -> None:
    """Seconds to the first token."""
    for place, kind in enumerate(("own", "moa ask")):
        values = [row[kind] for row in result["seconds"].values()]
        axes.bar([n + 0.4 * place for n in range(len(values))], values, 0.4, label=kind)
    axes.set_xticks([n + 0.2 for n in range(len(MODELS))], MODELS)
    axes.set(ylabel="seconds", title="From the start of the process to the first token")
    axes.legend()
