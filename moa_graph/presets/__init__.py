"""Presets: mixtures by name, or from a configuration file.

A configuration file is accepted in place of a preset's name, see `configuration.py`:

    proposers = [
      "together:openai/gpt-oss-120b",
      { model = "together:zai-org/GLM-5.2", name = "critic", prompt = "Look for errors." },
    ]
    aggregator = "together:deepseek-ai/DeepSeek-V4-Pro"
    layers = 3
"""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import ValidationError

from moa_graph.errors import nearest, what_is_wrong
from moa_graph.layers import References
from moa_graph.limits import CallPolicy, RunLimits
from moa_graph.presets.configuration import Configuration
from moa_graph.presets.families import ALL_KEYS, FAMILIES, TOGETHER_MODELS, family
from moa_graph.presets.files import SUFFIXES, read_data
from moa_graph.presets.servers import SERVERS, running_server


def load_preset(name_or_path: str | Path) -> Configuration:
    """Return the configuration of a preset, or of a TOML or YAML file.

    Args:
        name_or_path: A name in `preset_names()`, or the path of a file that ends in `.toml`,
            `.yaml` or `.yml`.

    Raises:
        TypeError: If it is neither a name nor a path.
        ValueError: If the preset does not exist or cannot be made here, or the file is not a
            valid configuration. The message has the invalid field and the nearest valid one.
        FileNotFoundError: If the file does not exist.
    """
    if isinstance(name_or_path, str) and name_or_path in PRESETS:
        return PRESETS[name_or_path]
    if isinstance(name_or_path, str) and name_or_path in (*FAMILIES, ALL_KEYS):
        return family(name_or_path, os.environ)
    if isinstance(name_or_path, str) and name_or_path in preset_names():
        return running_server(name_or_path, os.environ).configuration()
    if not isinstance(name_or_path, str | Path):
        raise TypeError(
            f"load_preset() takes a name or the path of a file, not {type(name_or_path).__name__}. "
            "To build a graph of models, use create_moa([model, …], aggregator)."
        )
    path = Path(name_or_path)
    if path.suffix.lower() not in SUFFIXES:
        names = preset_names()
        raise ValueError(
            f"There is no preset {str(name_or_path)!r}.{nearest(str(name_or_path), names)} "
            f"Presets are: {', '.join(names)}. To use a configuration file, give a path that "
            "ends in .toml or .yaml."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {path}.")
    data = read_data(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold the fields {', '.join(Configuration.model_fields)}.")
    try:
        return Configuration.model_validate({"name": path.stem, **data})
    except ValidationError as error:
        raise ValueError(f"{path}: {what_is_wrong(error, Configuration, _ENTRIES)}") from None


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets.

    They are those in `PRESETS`, those of providers, and those of model servers on this machine.
    The latter two depend on the installed packages, the keys that are set, and what runs here.
    """
    return (*PRESETS, *FAMILIES, ALL_KEYS, *(server.name for server in SERVERS))


_ENTRIES: dict[str, type] = {"references": References, "limits": RunLimits, "calls": CallPolicy}

_PAPER_PROPOSERS = [
    "together:microsoft/WizardLM-2-8x22B",
    "together:Qwen/Qwen1.5-110B-Chat",
    "together:Qwen/Qwen1.5-72B-Chat",
    "together:meta-llama/Llama-3-70b-chat-hf",
    "together:mistralai/Mixtral-8x22B-Instruct-v0.1",
    "together:databricks/dbrx-instruct",
]
_NOT_SERVED = (
    " Together no longer serves all of these models: for reference, or your own endpoints."
)

PRESETS: dict[str, Configuration] = {
    "moa": Configuration(
        name="moa",
        description="The paper's MoA: six open models, three layers." + _NOT_SERVED,
        proposers=_PAPER_PROPOSERS,
        aggregator="together:Qwen/Qwen1.5-110B-Chat",
        layers=3,
        temperature=0.7,
        max_tokens=2048,
    ),
    "moa-gpt4o": Configuration(
        name="moa-gpt4o",
        description="The paper's MoA with GPT-4o as the aggregator." + _NOT_SERVED,
        proposers=_PAPER_PROPOSERS,
        aggregator="openai:gpt-4o",
        layers=3,
        temperature=0.7,
        max_tokens=2048,
    ),
    "moa-lite": Configuration(
        name="moa-lite",
        description="The paper's MoA-Lite: two layers and a smaller aggregator." + _NOT_SERVED,
        proposers=_PAPER_PROPOSERS,
        aggregator="together:Qwen/Qwen1.5-72B-Chat",
        layers=2,
        temperature=0.7,
        max_tokens=2048,
    ),
    "moa-50-lines": Configuration(
        name="moa-50-lines",
        description="The 50-line script of the paper's repository (moa.py)." + _NOT_SERVED,
        proposers=[
            "together:Qwen/Qwen2-72B-Instruct",
            "together:Qwen/Qwen1.5-72B-Chat",
            "together:mistralai/Mixtral-8x22B-Instruct-v0.1",
            "together:databricks/dbrx-instruct",
        ],
        aggregator="together:mistralai/Mixtral-8x22B-Instruct-v0.1",
        layers=2,
        temperature=0.7,
        max_tokens=512,
    ),
    "together": Configuration(
        name="together",
        description="Four open models on Together, two layers. Needs TOGETHER_API_KEY.",
        proposers=list(TOGETHER_MODELS),
        aggregator=TOGETHER_MODELS[0],
        layers=2,
        temperature=0.7,
        max_tokens=8192,
    ),
    "self-moa": Configuration(
        name="self-moa",
        description="Self-MoA: six samples of one model. Needs TOGETHER_API_KEY.",
        proposers=[{"model": TOGETHER_MODELS[0], "samples": 6}],
        aggregator=TOGETHER_MODELS[0],
        layers=2,
        temperature=0.7,
        max_tokens=8192,
    ),
    # Not validated: without scikit-learn, the strategy is refused, and no preset could be listed.
    "local": Configuration.model_construct(
        name="local",
        description="Three samples of a small model on this machine, and the most central of them; "
        "no key: to try the pipeline, not for good answers.",
        proposers=[
            {
                "model": "local:qwen2.5-coder-0.5b",
                "samples": 3,
                "prompt": "You are a helpful assistant. Answer briefly.",
            }
        ],
        aggregator="most_central",
        layers=2,
        # Of 120 samples of ten simple questions, four were wrong at 0.3, and none at 0.2.
        temperature=0.2,
        max_tokens=200,
    ),
    "local-vote": Configuration(
        name="local-vote",
        description="Four samples of the smallest local model, and the majority of their numbers.",
        proposers=[
            {"model": "local:smollm2-135m", "samples": 4, "prompt": "You are a helpful assistant."}
        ],
        aggregator={"strategy": "vote", "parse": "number"},
        layers=2,
        temperature=0.7,
        max_tokens=128,
    ),
    "local-tiny": Configuration(
        name="local-tiny",
        description="The smallest local model three times, no key: a 93 MB download.",
        proposers=[
            {"model": "local:smollm2-135m", "samples": 3, "prompt": "You are a helpful assistant."}
        ],
        aggregator="local:smollm2-135m",
        layers=2,
        temperature=0.7,
        max_tokens=128,
    ),
}
"""Presets by name.

The paper's presets are from arXiv 2406.04692, section 3.1, with the temperature and length of the
reference code. `moa presets --check` asks the providers which models they still serve. If a model
has been retired, its proposer fails with an error, and the others continue.
"""
