"""One contender in a process of its own: reads a job from stdin, writes what it took to stdout.

It runs in the environment of the contender, so it imports nothing but the standard library and
what it measures. A job: `{"contender", "url", "layers", "proposers", "latency", "runs",
"at_once", "options"}`; `layers` counts the aggregator's. A model's name tells the fake server what
to do, and the question names the run.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any

KEY = "sk-benchmark"
PROMPT = "Synthesize the responses into a single, high-quality response.\n\nResponses from models:"


def models(job: dict[str, Any]) -> tuple[list[str], str]:
    """The names of the proposers' models, and the aggregator's."""
    names = [f"p{i}?{job['behaviour']}" for i in range(job["proposers"])]
    return names, f"agg?{job.get('aggregator_behaviour', job['behaviour'])}"


def messages(question: str, references: list[str]) -> list[dict[str, str]]:
    """What the plain scripts send."""
    asked = [{"role": "user", "content": question}]
    if not references:
        return asked
    lines = "".join(f"\n{i}. {text}" for i, text in enumerate(references, start=1))
    return [{"role": "system", "content": PROMPT + lines}, *asked]


def openai_script(job: dict[str, Any], *, aiohttp: bool = False) -> Any:
    """The plain asyncio script, on the provider's own SDK."""
    from openai import AsyncOpenAI

    client = AsyncOpenAI(base_url=job["url"], api_key=KEY, http_client=http_client(aiohttp))
    proposers, aggregator = models(job)

    async def call(model: str, question: str, references: list[str]) -> str:
        answer = await client.chat.completions.create(
            model=model, messages=messages(question, references)
        )
        return answer.choices[0].message.content

    async def run(question: str) -> str:
        references: list[str] = []
        for _ in range(job["layers"] - 1):
            calls = (call(model, question, references) for model in proposers)
            references = list(await asyncio.gather(*calls))
        return await call(aggregator, question, references)

    return run


def langchain_script(job: dict[str, Any]) -> Any:
    """The plain asyncio script, on LangChain's chat models."""
    proposers, aggregator = chat_models(job)

    async def run(question: str) -> str:
        references: list[str] = []
        for _ in range(job["layers"] - 1):
            given = messages(question, references)
            answers = await asyncio.gather(*(model.ainvoke(given) for model in proposers))
            references = [answer.text for answer in answers]
        return (await aggregator.ainvoke(messages(question, references))).text

    return run


def http_client(aiohttp: bool) -> Any:
    """The SDK's HTTP client through aiohttp; None for its default."""
    from openai import DefaultAioHttpClient

    return DefaultAioHttpClient() if aiohttp else None


def langgraph_script(job: dict[str, Any], *, aiohttp: bool = False) -> Any:
    """A graph written by hand, on LangChain's chat models; without any handling of failures."""
    import operator

    from langgraph.graph import END, START, StateGraph, add_messages
    from typing_extensions import TypedDict

    proposers, aggregator = chat_models(job, http_async_client=http_client(aiohttp))
    fields = {
        "messages": Annotated[list, add_messages],
        "proposals": Annotated[list, operator.add],
    }
    state_type = TypedDict("State", fields)

    def proposer(model: Any, layer: int) -> Any:
        async def node(state: Any) -> dict[str, Any]:
            before = [text for number, text in state["proposals"] if number == layer - 1]
            answer = await model.ainvoke(messages(state["messages"][-1].text, before))
            return {"proposals": [(layer, answer.text)]}

        return node

    async def aggregate(state: Any) -> dict[str, Any]:
        last = [text for number, text in state["proposals"] if number == job["layers"] - 1]
        given = messages(state["messages"][-1].text, last)
        return {"messages": [await aggregator.ainvoke(given)]}

    builder = StateGraph(state_type)
    before = [START]
    for layer in range(1, job["layers"]):
        names = [f"layer_{layer}_{i}" for i in range(len(proposers))]
        for name, model in zip(names, proposers, strict=True):
            builder.add_node(name, proposer(model, layer))
            for start in before:
                builder.add_edge(start, name)
        before = names
    builder.add_node("aggregator", aggregate)
    for start in before:
        builder.add_edge(start, "aggregator")
    builder.add_edge("aggregator", END)
    graph = builder.compile()

    async def run(question: str) -> str:
        return (await graph.ainvoke({"messages": question}))["messages"][-1].text

    return run


def moa_graph(job: dict[str, Any], *, objects: bool = False) -> Any:
    """This package, with models given as strings or as objects."""
    from moa_graph import Layer, create_moa

    os.environ |= {"OPENAI_BASE_URL": job["url"], "OPENAI_API_KEY": KEY}
    names, writer = models(job)
    proposers, aggregator = [f"openai:{name}" for name in names], f"openai:{writer}"
    if objects:
        proposers, aggregator = chat_models(job)
    layer = Layer(proposers, **job["options"])
    graph = create_moa(layer, aggregator, layers=job["layers"])

    async def run(question: str) -> str:
        return (await graph.ainvoke({"messages": question}))["messages"][-1].text

    return run


def chat_models(job: dict[str, Any], **options: Any) -> tuple[list[Any], Any]:
    from langchain_openai import ChatOpenAI

    options |= {"base_url": job["url"], "api_key": KEY}
    names, aggregator = models(job)
    made = [ChatOpenAI(model=name, **options) for name in names]
    return made, ChatOpenAI(model=aggregator, **options)


def mixture_llm(job: dict[str, Any]) -> Any:
    """The package mixture-llm, on the provider's SDK."""
    from mixture_llm import Aggregate, Propose, Synthesize, run
    from openai import AsyncOpenAI

    sdk = AsyncOpenAI(base_url=job["url"], api_key=KEY)
    proposers, aggregator = models(job)

    async def client(*, model: str, messages: Any, temp: float, max_tokens: int) -> Any:
        answer = await sdk.chat.completions.create(
            model=model, messages=messages, temperature=temp, max_tokens=max_tokens
        )
        usage = answer.usage
        return answer.choices[0].message.content, usage.prompt_tokens, usage.completion_tokens

    steps = [Propose(proposers), *[Synthesize(proposers)] * (job["layers"] - 2)]

    async def ask(question: str) -> str:
        return (await run([*steps, Aggregate(aggregator)], question, client))[0]

    return ask


def conclave_cli(job: dict[str, Any]) -> Any:
    """The package conclave-cli, on its own HTTP client; it has two layers only."""
    from conclave import Council
    from conclave.config import ConclaveConfig, CustomEndpoint

    os.environ["BENCHMARK_KEY"] = KEY
    endpoint = CustomEndpoint(
        completions_url=job["url"] + "/chat/completions", env_var="BENCHMARK_KEY"
    )
    proposers, aggregator = models(job)
    names = {name.partition("?")[0]: f"bench/{name}" for name in (*proposers, aggregator)}
    config = ConclaveConfig(models=names, endpoints={"bench": endpoint})
    members = [name for name in names if name != "agg"]

    async def ask(question: str) -> str:
        council = Council(members, "agg", config=config, cache=False, extract_verdict=False)
        answer = await council.ask(question)
        assert answer.synthesis, answer.synthesis_error
        return answer.synthesis

    return ask


def swarms(job: dict[str, Any]) -> Any:
    """The package swarms, on litellm and threads: one instance a run, as runs share its state."""
    os.environ |= {"SWARMS_TELEMETRY_ON": "false", "WORKSPACE_DIR": "/tmp"}
    from swarms import Agent, MixtureOfAgents

    proposers, aggregator = models(job)

    def agent(name: str) -> Any:
        return Agent(
            agent_name=name.partition("?")[0],
            model_name=f"openai/{name}",
            llm_base_url=job["url"],
            llm_api_key=KEY,
            max_loops=1,
            print_on=False,
            persistent_memory=False,
        )

    def ask(question: str) -> str:
        mixture = MixtureOfAgents(
            agents=[agent(name) for name in proposers],
            aggregator_agent=agent(aggregator),
            layers=job["layers"] - 1,
            max_workers=len(proposers),
        )
        return str(mixture.run(question))

    threads = ThreadPoolExecutor(job["at_once"])

    async def run(question: str) -> str:
        return await asyncio.get_running_loop().run_in_executor(threads, ask, question)

    return run


CONTENDERS = {
    "openai script": openai_script,
    "openai script, aiohttp": partial(openai_script, aiohttp=True),
    "langchain script": langchain_script,
    "langgraph script": langgraph_script,
    "langgraph script, aiohttp": partial(langgraph_script, aiohttp=True),
    "moa-graph, model objects": partial(moa_graph, objects=True),
    "moa-graph": moa_graph,
    "mixture-llm": mixture_llm,
    "conclave-cli": conclave_cli,
    "swarms": swarms,
}


async def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Wall time of each run, and CPU time of all of them."""
    run = CONTENDERS[job["contender"]](job)
    walls: dict[str, float] = {}
    errors: list[str] = []

    async def timed(number: int) -> None:
        question = f"run-{job['name']}-{number} What is a cat?"
        started = time.perf_counter()
        try:
            assert await run(question)
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}"[:200])
        walls[f"run-{job['name']}-{number}"] = time.perf_counter() - started

    async def batch(first: int, count: int) -> None:
        for start in range(first, first + count, job["at_once"]):
            end = min(start + job["at_once"], first + count)
            await asyncio.gather(*(timed(number) for number in range(start, end)))

    await batch(1_000_000, job.get("warmup", job["at_once"]))
    walls.clear()
    began, cpu = time.perf_counter(), time.process_time()
    await batch(0, job["runs"])
    return {
        "walls": walls,
        "wall": time.perf_counter() - began,
        "cpu": (time.process_time() - cpu) / job["runs"],
        "errors": errors,
    }


if __name__ == "__main__":
    random.seed(0)
    given = json.load(sys.stdin)
    out = Path(f"/dev/fd/{os.dup(1)}")
    with out.open("w") as stdout:
        os.dup2(2, 1)  # what contenders print is not a result
        json.dump(asyncio.run(measure(given)), stdout)
    os._exit(0)  # some leave threads behind
