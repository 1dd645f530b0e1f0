"""One call of a model: what it is given, what it costs, and how its errors read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, AnyMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import merge_configs

from moa_graph.context import MoAContext
from moa_graph.errors import explain
from moa_graph.models import input_for, nested_graph, secrets_of
from moa_graph.state import total_usage
from moa_graph.streaming import inherited

_OPTIONS_KEY = "__moa_call_options"


class _Options(dict[str, Any]):
    """Options that code has set: what a client of a server sends is plain data, never this."""


@dataclass(frozen=True)
class Call:
    """One call of a model, sync or async."""

    model: Runnable[Any, Any]
    messages: Sequence[AnyMessage]
    config: RunnableConfig
    usage: UsageMetadataCallbackHandler
    started: float = field(default_factory=time.perf_counter)
    """When it was made, in seconds of `time.perf_counter`."""

    @classmethod
    def of(
        cls,
        model: Runnable[Any, Any],
        messages: Sequence[AnyMessage],
        config: RunnableConfig,
        callbacks: Sequence[BaseCallbackHandler] = (),
    ) -> Call:
        """A call within the run that `config` belongs to, `callbacks` added to the run's."""
        usage = UsageMetadataCallbackHandler()
        config = merge_configs(config, {"callbacks": [usage, *callbacks]})
        return cls(model, messages, with_options(config, {}), usage)

    def invoke(self) -> Any:
        """What the model returns."""
        with inherited(self.config):
            return self.model.invoke(self._input(), self.config, **self._arguments())

    async def ainvoke(self) -> Any:
        """What the model returns."""
        with inherited(self.config):
            return await self.model.ainvoke(self._input(), self.config, **self._arguments())

    def tokens(self, message: AIMessage | None = None) -> UsageMetadata | None:
        """Tokens of all model calls behind this one; an agent makes several."""
        counted = total_usage(self.usage.usage_metadata.values())
        return counted or (message.usage_metadata if message else None)

    def explain(self, error: BaseException) -> str:
        """What went wrong, in one line for people."""
        return explain(error, secrets_of(self.model))

    def _input(self) -> Any:
        return input_for(self.model, self.messages)

    def _arguments(self) -> dict[str, Any]:
        graph = nested_graph(self.model)
        if graph is not None and graph.context_schema is MoAContext:
            # LangGraph would hand this run's context on; it is not meant for another mixture.
            return {"context": MoAContext()}
        return {}


def with_options(config: RunnableConfig, options: Mapping[str, Any]) -> RunnableConfig:
    """The configuration with what one run gives the aggregator: tools, stop, temperature …"""
    configurable = {**config.get("configurable", {}), _OPTIONS_KEY: _Options(options)}
    return {**config, "configurable": configurable}


def options_in(config: RunnableConfig) -> Mapping[str, Any]:
    """What `with_options` put there; a mixture inside another one finds nothing."""
    options = config.get("configurable", {}).get(_OPTIONS_KEY)
    return options if isinstance(options, _Options) else {}
