"""How soon the first token comes, and the last, when layers begin on the chunks of the one before.

A server gives the first token after 0.3 s and 50 tokens a second; every answer has 512 tokens.
"""

from __future__ import annotations

import asyncio
import gc
import time
from itertools import accumulate
from typing import Any

from langchain_openai import ChatOpenAI

from moa_graph import create_moa
from moa_graph.strategies import Staircase
from moa_graph.strategies.experimental import Chunkwise
from tests.benchmarks.report import Table
from tests.benchmarks.server import Server
from tests.mixtures import mixture_of

LATENCY, TOKENS_PER_SECOND, TOKENS, PROPOSERS = 0.3, 50, 512, 4
QUESTION = {"messages": [("user", "Write 512 words.")]}
ANSWER = " ".join(f"w{i:04}" for i in range(TOKENS))
CONTENDERS: dict[str, dict[str, Any]] = {
    "single model": {},
    "whole answers, 2 layers": {"layers": 2},
    "staircase, 2 layers": {"layers": 2, "progressive": Staircase()},
    "chunk-wise, 2 layers": {"layers": 2, "progressive": Chunkwise()},
    "whole answers, 3 layers": {"layers": 3},
    "staircase, 3 layers": {"layers": 3, "progressive": Staircase()},
}
BOUNDS = {  # the first token over the single model's, the whole time over that of whole answers
    "staircase, 2 layers": (2.6, 0.55),
    "staircase, 3 layers": (3.6, 0.40),
}
PROMPTS = 2.0  # bound of a staircase's prompt tokens over those of whole answers
PREFIX = 0.95  # bound of the share of the text sent again that is sent as a prefix


def run(server: Server, *, quick: bool, peers: bool) -> dict[str, Any]:
    """Every contender once, one after the other; `quick` leaves out the third layer."""
    del peers
    names = [name for name in CONTENDERS if not (quick and "3 layers" in name)]
    rows = {}
    with asyncio.Runner() as runner:  # clients share connections, which belong to a loop
        for name in names:
            # Else the plotting library's objects are searched in somebody's first second.
            gc.collect()
            gc.freeze()
            server.reset()
            server.answer(ANSWER)
            rows[name] = runner.run(_measure(server, CONTENDERS[name]))
            rows[name] |= _cached(server.prompts())
            assert rows[name].pop("text") == ANSWER, name
    return {"rows": rows}


async def _measure(server: Server, options: dict[str, Any]) -> dict[str, Any]:
    def chat(label: str) -> ChatOpenAI:
        behaviour = f"writes&latency={LATENCY}&tps={TOKENS_PER_SECOND}"
        return ChatOpenAI(
            model=f"{label}?{behaviour}",
            base_url=server.url,
            api_key="none",
            stream_usage=True,
        )

    times: list[tuple[float, int]] = []
    if not options:
        model = chat("single")
        await model.ainvoke("warm up", max_tokens=1)
        server.forget_calls()
        started = time.perf_counter()
        text = ""
        usage = None
        async for chunk in model.astream(QUESTION["messages"]):
            usage = chunk.usage_metadata or usage
            if chunk.text:
                text += chunk.text
                times.append((time.perf_counter() - started, len(text.split())))
        usages = [usage]
    else:
        models = [chat(f"p{i}") for i in range(PROPOSERS)]
        moa = mixture_of(models, chat("agg"), **options)
        await create_moa(models, chat("agg"), layers=2).ainvoke(
            QUESTION, context={"proposer_max_tokens": 1, "aggregator_max_tokens": 1}
        )
        server.forget_calls()
        started = time.perf_counter()
        text = ""
        state: dict[str, Any] = {}
        async for mode, event in moa.astream(QUESTION, stream_mode=["messages", "values"]):
            if mode == "values":
                state = event
            elif event[0].text:
                text += event[0].text
                times.append((time.perf_counter() - started, len(text.split())))
        usages = [p["usage"] for p in state["proposals"]]
        usages.append(state["messages"][-1].usage_metadata)
    return {
        "text": text,
        "times": times,
        "first": times[0][0],
        "last": times[-1][0],
        "end": time.perf_counter() - started,
        "prompt_tokens": sum(u["input_tokens"] for u in usages),
        "completion_tokens": sum(u["output_tokens"] for u in usages),
    }


def _cached(prompts: list[tuple[str, str]]) -> dict[str, float | None]:
    """The share of the prompts, and of what was sent before, that a prefix cache serves.

    For each call, the longest beginning that an earlier prompt of the same model has too. Sent
    before is the longest earlier prompt of that model; None if no model is called twice.
    """
    seen: dict[str, list[str]] = {}
    served = again = total = 0
    for model, prompt in prompts:
        earlier = seen.setdefault(model, [])
        served += max((_common(prompt, one) for one in earlier), default=0)
        again += min(len(prompt), max(map(len, earlier), default=0))
        total += len(prompt)
        earlier.append(prompt)
    return {"cached": served / total if total else 0.0, "prefix": served / again if again else None}


def _common(a: str, b: str) -> int:
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _ratios(rows: dict[str, Any], name: str) -> tuple[float, float | None, float | None]:
    """Of the first token, of the whole time, and of the prompt tokens."""
    first = rows[name]["first"] / rows["single model"]["first"]
    if (whole := rows.get(f"whole answers, {name.partition(', ')[2]}")) is None:
        return first, None, None
    time, tokens = (rows[name][key] / whole[key] for key in ("end", "prompt_tokens"))
    return first, time, tokens


def tables(result: dict[str, Any]) -> list[Table]:
    """Seconds and tokens, and what they are in ratios."""
    rows = result["rows"]
    title = (
        f"{PROPOSERS} proposers, first token after {LATENCY} s, {TOKENS_PER_SECOND} tokens a second, "
        f"answers of {TOKENS} tokens"
    )
    table = Table(
        title,
        ["first token, s", "over single", "bound", "whole, s", "over whole answers", "bound",
         "prompt tokens", "over whole answers", "bound", "cacheable", "again as prefix", "bound",
         "completion tokens"],
    )  # fmt: skip
    for name, row in rows.items():
        first, whole, prompts = _ratios(rows, name)
        bounds = (*BOUNDS[name], PROMPTS, PREFIX) if name in BOUNDS else (None,) * 4
        table.add(
            name,
            [row["first"], first, bounds[0], row["end"], whole, bounds[1],
             row["prompt_tokens"], prompts, bounds[2], row["cached"], row["prefix"], bounds[3],
             row["completion_tokens"]],
        )  # fmt: skip
    return [table]


def plot(result: dict[str, Any], axes: Any) -> None:
    """Tokens of the answer against time."""
    for name, row in result["rows"].items():
        seconds = [0.0, *(t for t, _ in row["times"])]
        tokens = list(accumulate([0, *(n for _, n in row["times"])], max))
        axes.step(seconds, tokens, "--" if "whole" in name else "-", where="post", label=name)
    axes.set_xlabel("seconds since the question")
    axes.set_ylabel("tokens of the answer")
    axes.set_title("Staircase streaming")
    axes.legend(fontsize=7)
