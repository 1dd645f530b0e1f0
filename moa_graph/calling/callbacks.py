"""Collect data about model calls from LangChain's callbacks, and report to tracers."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    BaseCallbackManager,
    Callbacks,
    UsageMetadataCallbackHandler,
)
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables import RunnableConfig

from moa_graph.calling import sync
from moa_graph.calling.retries import retried_by_client


@dataclass(slots=True)
class _Run:
    parent: UUID | None
    of_model: bool = False
    asked: str | None = None
    is_open: bool = False


class ModelRuns(UsageMetadataCallbackHandler):
    """Record the model runs of one call; an agent or fallbacks make several.

    Attributes:
        usage_metadata: Tokens so far, by model.
        streamed: Whether any token was streamed, so that it may have been shown already.
        errors: Errors of the models, in the order of the requests.
        answered: Names of the model that answered last: the name in the request, and the name
            that the provider returned; None if unknown.
    """

    run_inline = True  # a thread per event would cost more than the work itself

    def __init__(self) -> None:
        super().__init__()
        self.streamed = False
        self.answered: tuple[str | None, str | None] = (None, None)
        self.errors: Sequence[BaseException] = ()
        self._ended = 0
        self._runs: dict[UUID, _Run] = {}

    @property
    def requests(self) -> int:
        """Number of requests for one answer: the successful one, and all that failed before it.

        This includes retries of the provider's own client.
        """
        failed = sum(1 + retried_by_client(error) for error in self.errors)
        return max(1, failed + bool(self._ended))

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        self._runs[run_id] = _Run(parent_run_id)

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        name = (metadata or {}).get("ls_model_name")
        asked = name if isinstance(name, str) else None
        self._runs[run_id] = _Run(parent_run_id, of_model=True, asked=asked, is_open=True)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.streamed = True
        _raise_lost_cancellation()

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        super().on_llm_end(response, **kwargs)
        run_id: UUID = kwargs["run_id"]
        if not self._is_inner(run_id):
            self._ended += 1
            run = self._runs.get(run_id)
            self.answered = (run.asked if run else None, _name_in(response))
        self._close(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if not self._is_inner(run_id) and isinstance(error, Exception):
            self.errors = [*self.errors, error]
        self._close(run_id)

    def _is_inner(self, run_id: UUID) -> bool:
        """Return whether the run is inside another chat model's run, such as a mixture."""
        run = self._runs.get(run_id)
        while run is not None and run.parent is not None:
            run = self._runs.get(run.parent)
            if run is not None and run.of_model:
                return True
        return False

    def _close(self, run_id: UUID) -> None:
        if run := self._runs.get(run_id):
            run.is_open = False

    async def cancelled(self, callbacks: Callbacks, error: BaseException) -> None:
        """Report to the callbacks that the open runs have ended.

        LangChain does not do this for a cancelled call, so its runs would stay open in a trace.

        Args:
            callbacks: Callbacks of the call.
            error: The cancellation.
        """
        if isinstance(callbacks, BaseCallbackManager):
            callbacks = callbacks.handlers
        others = [handler for handler in callbacks or [] if handler is not self]
        for run_id, run in reversed(list(self._runs.items())):  # inner runs end first
            if not run.is_open:
                continue
            run.is_open = False
            manager = AsyncCallbackManagerForLLMRun(
                run_id=run_id, handlers=others, inheritable_handlers=[]
            )
            await manager.on_llm_error(error)


def _name_in(response: LLMResult) -> str | None:
    """Return the name of the model that answered, as returned by the provider."""
    for generation in response.generations[0] if response.generations else ():
        metadata = getattr(getattr(generation, "message", None), "response_metadata", {})
        for field in ("model_name", "model", "model_id"):
            if isinstance(name := metadata.get(field), str) and name:
                return name
    return None


def _raise_lost_cancellation() -> None:
    """Stop a call that continues although it was cancelled.

    Before Python 3.12, `asyncio.wait_for` loses a cancellation that arrives together with the
    result (https://github.com/python/cpython/issues/86296). LangChain's clients use it to wait for
    each chunk of an answer, so a cancelled answer would be generated and paid for to its end.

    Raises:
        CancelledError: If the running task was cancelled.
    """
    if sync.is_cancelled():
        raise sync.Cancelled


def with_handlers(
    config: RunnableConfig, handlers: Sequence[BaseCallbackHandler]
) -> RunnableConfig:
    """Return the configuration of a node with further callback handlers, for all runs below it."""
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager):
        return {**config, "callbacks": [*(callbacks or ()), *handlers]}
    manager = copy(callbacks)
    manager.handlers = [*callbacks.handlers, *handlers]
    manager.inheritable_handlers = [*callbacks.inheritable_handlers, *handlers]
    return {**config, "callbacks": manager}


def mark_run(node: str, error: str | None, **metadata: Any) -> None:
    """Record a node's error in its LangSmith run, because the node itself does not raise.

    Args:
        node: Name of the node; it must be the running node.
        error: The error; None if there is none.
        **metadata: Metadata by which the run can be searched.
    """
    from langsmith import get_current_run_tree  # noqa: PLC0415 - the import is slow

    run = get_current_run_tree()
    if run is not None and run.name == node:
        run.add_metadata(metadata)
        run.error = error
