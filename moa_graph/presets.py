"""Mixtures by name: the paper's, today's, and your own from a file.

A configuration file is TOML or YAML with the fields of `Configuration`, and is accepted
wherever a preset's name is:

    proposers = [
      "together:openai/gpt-oss-120b",
      { model = "together:zai-org/GLM-5.2", name = "critic", prompt = "Look for errors." },
    ]
    aggregator = "together:deepseek-ai/DeepSeek-V4-Pro"
    layers = 3
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from moa_graph.budget import Budget
from moa_graph.compiled import MoAGraph
from moa_graph.completion import Hedge, Quorum
from moa_graph.graph import create_moa
from moa_graph.models import Model
from moa_graph.numerals import last_number
from moa_graph.prompts import AGGREGATE_AND_SYNTHESIZE
from moa_graph.proposers import Proposer
from moa_graph.strategies.answers import AnswerStrategy
from moa_graph.strategies.pieces import Chunkwise, Staircase
from moa_graph.strategies.rank import MostCentral, Rank
from moa_graph.strategies.vote import Vote
from moa_graph.validation import nearest, what_is_wrong

_SUFFIXES = (".toml", ".yaml", ".yml")
_OPTIONS = (  # of `create_moa`, and fields of `Configuration`
    "layers",
    "name",
    "aggregation_prompt",
    "min_proposals",
    "quorum",
    "hedge",
    "layer_timeout",
    "run_timeout",
    "max_retries",
    "max_concurrent_calls",
    "budget",
    "context_window",
    "staircase",
    "chunkwise",
    "fenced",
)


class ModelEntry(BaseModel):
    """A model with settings of its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    """`"provider:model"`."""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """Sampling temperature; the configuration's where None."""
    max_tokens: int | None = Field(default=None, ge=1)
    """The longest answer, in tokens; the configuration's where None."""


class ProposerEntry(ModelEntry):
    """A proposer with settings of its own, as in `Proposer`."""

    name: str | None = None
    prompt: str | None = None
    samples: int = Field(default=1, ge=1)
    timeout: float | None = Field(default=None, gt=0)


class FileModelEntry(ModelEntry):
    """A model in a file of your own, which may say where it is served."""

    params: dict[str, Any] = Field(default_factory=dict, repr=False)
    """What else the provider's chat model takes, such as `base_url` or `top_p`. Keys belong in
    the environment, where every provider looks for its own."""


class FileProposerEntry(ProposerEntry, FileModelEntry):
    """A proposer in a file of your own."""


class AnswerEntry(BaseModel):
    """An answer that is chosen, not written: `{ strategy = "vote", parse = "number" }`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: Literal["vote", "rank", "most_central"]
    """`Vote`, `Rank` or `MostCentral` of `moa_graph.strategies`."""
    parse: Literal["text", "number"] | None = None
    """What a vote counts: short answers as texts (the default), or each proposal's last number."""
    judge: str | FileModelEntry | None = None
    """Who ranks, or breaks a tied vote."""

    @model_validator(mode="after")
    def _consistent(self) -> AnswerEntry:
        if self.strategy == "rank" and self.judge is None:
            raise ValueError('strategy = "rank" needs a judge, such as "openai:gpt-5.2"')
        if self.strategy != "vote" and self.parse is not None:
            raise ValueError('parse goes with strategy = "vote"')
        if self.strategy == "most_central" and self.judge is not None:
            raise ValueError('strategy = "most_central" asks no judge')
        return self


class Configuration(BaseModel):
    """A Mixture-of-Agents in plain data: what a preset is, and what a file holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    proposers: list[str | FileProposerEntry] | list[list[str | FileProposerEntry]] = Field(
        min_length=1
    )
    """One list for every layer, or a list a layer."""
    aggregator: str | FileModelEntry | AnswerEntry
    layers: int | None = Field(default=None, ge=2)
    """How many layers, the aggregator's included; 2 unless `proposers` says otherwise."""
    name: str = "moa"
    description: str = ""
    temperature: float | None = Field(default=None, ge=0, le=2)
    """For every model that has none of its own."""
    max_tokens: int | None = Field(default=None, ge=1)
    """For every model that has none of its own, in tokens."""
    aggregation_prompt: str = Field(default=AGGREGATE_AND_SYNTHESIZE, min_length=1)
    min_proposals: int = Field(default=1, ge=1)
    quorum: int | Quorum | None = None
    hedge: Hedge | None = None
    layer_timeout: float | None = Field(default=None, gt=0)
    run_timeout: float | None = Field(default=None, gt=0)
    max_retries: int | None = Field(default=None, ge=0)
    max_concurrent_calls: dict[str, int] | None = None
    budget: Budget | None = None
    context_window: int | None = Field(default=None, ge=1)
    staircase: Staircase | None = None
    chunkwise: Chunkwise | None = None
    fenced: bool = False

    def create(self, *, proposers: Sequence[Proposer] | None = None, **options: Any) -> MoAGraph:
        """Build the graph.

        Args:
            proposers: Take the place of the configuration's.
            **options: What `create_moa` takes besides, such as `checkpointer`; `layers` and the
                like win over the configuration's.

        Raises:
            ValueError: As `create_moa`.
        """
        return create_moa(
            proposers
            or [
                self._proposer(entry)
                if isinstance(entry, str | FileProposerEntry)
                else [self._proposer(e) for e in entry]
                for entry in self.proposers
            ],  # type: ignore[arg-type]
            self._answer(),
            **{**{name: getattr(self, name) for name in _OPTIONS}, **options},
        )

    def models(self) -> Iterator[str]:
        """Every model, as `"provider:model"`, in the order of the graph, each once."""
        entries: list[str | FileModelEntry] = []
        for entry in self.proposers:
            entries.extend([entry] if isinstance(entry, str | FileProposerEntry) else entry)
        if self.writer is not None:
            entries.append(self.writer)
        return iter(dict.fromkeys(e if isinstance(e, str) else e.model for e in entries))

    @property
    def writer(self) -> str | FileModelEntry | None:
        """The model that aggregates or judges; None where the answer is chosen without one."""
        last = self.aggregator
        return last.judge if isinstance(last, AnswerEntry) else last

    def _answer(self) -> Model | AnswerStrategy:
        entry = self.aggregator
        if not isinstance(entry, AnswerEntry):
            return self._model(entry)
        if entry.strategy == "most_central":
            return MostCentral()
        judge = self._model(entry.judge) if entry.judge is not None else None
        if entry.strategy == "rank":
            assert judge is not None
            return Rank(judge)
        parse = last_number if entry.parse == "number" else None
        return Vote(parse=parse, tie=judge or "first")

    def _proposer(self, entry: str | FileProposerEntry) -> Proposer:
        if isinstance(entry, str):
            return Proposer(self._model(entry))
        own = {name: getattr(entry, name) for name in ("name", "prompt", "samples", "timeout")}
        return Proposer(self._model(entry), **own)

    def settings(self, entry: str | FileModelEntry) -> tuple[str, dict[str, Any]]:
        """A model as `"provider:model"`, and what it is given besides."""
        entry = FileModelEntry(model=entry) if isinstance(entry, str) else entry
        settings = {
            "temperature": self.temperature if entry.temperature is None else entry.temperature,
            "max_tokens": self.max_tokens if entry.max_tokens is None else entry.max_tokens,
        }
        settings = {name: value for name, value in settings.items() if value is not None}
        return entry.model, {**settings, **entry.params}

    def _model(self, entry: str | FileModelEntry) -> Model:
        model, settings = self.settings(entry)
        return Model(model, model, **settings)


def load_preset(name_or_path: str | Path) -> Configuration:
    """A configuration by its preset's name, or from a TOML or YAML file.

    Args:
        name_or_path: A name in `PRESETS`, or the path of a file that ends in `.toml`, `.yaml` or
            `.yml`.

    Raises:
        ValueError: If there is no such preset, or the file is not a configuration; names the
            field and the nearest right one.
        FileNotFoundError: If there is no such file.
    """
    if isinstance(name_or_path, str) and name_or_path in PRESETS:
        return PRESETS[name_or_path]
    path = Path(name_or_path)
    if path.suffix.lower() not in _SUFFIXES:
        raise ValueError(
            f"There is no preset {str(name_or_path)!r}.{nearest(str(name_or_path), PRESETS)} "
            f"Presets are: {', '.join(PRESETS)}. A configuration of your own is a file that ends "
            "in .toml or .yaml."
        )
    if not path.is_file():
        raise FileNotFoundError(f"There is no configuration file {path}.")
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text) if path.suffix.lower() == ".toml" else yaml.safe_load(text)
    except (tomllib.TOMLDecodeError, yaml.YAMLError, UnicodeDecodeError) as error:
        # The line, but not its text: a key may stand in it.
        place = str(getattr(error, "problem_mark", "") or error).strip().splitlines()[-1]
        raise ValueError(f"{path} cannot be read: {place}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{path} must hold the fields {', '.join(Configuration.model_fields)}.")
    try:
        return Configuration.model_validate({"name": path.stem, **data})
    except ValidationError as error:
        raise ValueError(f"{path}: {what_is_wrong(error, Configuration, _ENTRIES)}") from None


_ENTRIES: dict[str, type] = {
    "proposers": FileProposerEntry,
    "aggregator": FileModelEntry,
    "quorum": Quorum,
    "hedge": Hedge,
    "budget": Budget,
    "staircase": Staircase,
    "chunkwise": Chunkwise,
}


def _layer(*proposers: str | FileProposerEntry) -> list[str | FileProposerEntry]:
    return list(proposers)


_PAPER_PROPOSERS = _layer(
    "together:microsoft/WizardLM-2-8x22B",
    "together:Qwen/Qwen1.5-110B-Chat",
    "together:Qwen/Qwen1.5-72B-Chat",
    "together:meta-llama/Llama-3-70b-chat-hf",
    "together:mistralai/Mixtral-8x22B-Instruct-v0.1",
    "together:databricks/dbrx-instruct",
)
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
        proposers=_layer(
            "together:Qwen/Qwen2-72B-Instruct",
            "together:Qwen/Qwen1.5-72B-Chat",
            "together:mistralai/Mixtral-8x22B-Instruct-v0.1",
            "together:databricks/dbrx-instruct",
        ),
        aggregator="together:mistralai/Mixtral-8x22B-Instruct-v0.1",
        layers=2,
        temperature=0.7,
        max_tokens=512,
    ),
    "together": Configuration(
        name="together",
        description="Four of today's open models on Together, two layers. Needs TOGETHER_API_KEY.",
        proposers=_layer(
            "together:deepseek-ai/DeepSeek-V4-Pro",
            "together:zai-org/GLM-5.2",
            "together:MiniMaxAI/MiniMax-M3",
            "together:openai/gpt-oss-120b",
        ),
        aggregator="together:deepseek-ai/DeepSeek-V4-Pro",
        layers=2,
        temperature=0.7,
        max_tokens=8192,
    ),
    "self-moa": Configuration(
        name="self-moa",
        description="Self-MoA: six samples of one model. Needs TOGETHER_API_KEY.",
        proposers=_layer(
            FileProposerEntry(model="together:deepseek-ai/DeepSeek-V4-Pro", samples=6)
        ),
        aggregator="together:deepseek-ai/DeepSeek-V4-Pro",
        layers=2,
        temperature=0.7,
        max_tokens=8192,
    ),
    "local": Configuration(
        name="local",
        description="Small models on this machine, no key: to try the pipeline, not for quality.",
        proposers=_layer(
            FileProposerEntry(model="local:qwen2.5-coder-0.5b", samples=2),
            FileProposerEntry(model="local:smollm2-135m", prompt="You are a helpful assistant."),
        ),
        aggregator="local:qwen2.5-coder-0.5b",
        layers=2,
        temperature=0.7,
        max_tokens=256,
    ),
    "local-vote": Configuration(
        name="local-vote",
        description="Four samples of the smallest local model, and the majority of their numbers.",
        proposers=_layer(
            FileProposerEntry(
                model="local:smollm2-135m", samples=4, prompt="You are a helpful assistant."
            )
        ),
        aggregator=AnswerEntry(strategy="vote", parse="number"),
        layers=2,
        temperature=0.7,
        max_tokens=128,
    ),
    "local-tiny": Configuration(
        name="local-tiny",
        description="The smallest local model three times, no key: a 93 MB download.",
        proposers=_layer(
            FileProposerEntry(
                model="local:smollm2-135m", samples=3, prompt="You are a helpful assistant."
            )
        ),
        aggregator="local:smollm2-135m",
        layers=2,
        temperature=0.7,
        max_tokens=128,
    ),
}
"""Presets by name.

The paper's are arXiv 2406.04692, section 3.1, with the reference code's temperature and length.
The models of `together` and `self-moa` were looked up on 2026-11-23 in public catalogues of
Together's serverless models (newest entries of July and August 2026), not on the live API: where
one has been retired, its proposer fails, says so, and the others go on.
"""
