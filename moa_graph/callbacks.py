"""What LangChain's callbacks tell about a call of a model, and what tracers are told in turn."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    BaseCallbackManager,
    Callbacks,
    UsageMetadataCallbackHandler,
)
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult


class ModelRuns(UsageMetadataCallbackHandler):
    """The model runs of one call: an agent has several.

    Attributes:
        usage_metadata: Tokens so far, by model.
        streamed: Whether any token was streamed: what was shown cannot be taken back.
    """

    run_inline = True  # a thread for each event would cost more than what is done in it

    def __init__(self) -> None:
        super().__init__()
        self.streamed = False
        self._open: list[UUID] = []

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        run_id: UUID,
        **kwargs: Any,
    ) -> None:
        self._open.append(run_id)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.streamed = True
        _raise_lost_cancellation()

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        super().on_llm_end(response, **kwargs)
        self._close(**kwargs)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self._close(**kwargs)

    def _close(self, *, run_id: UUID | None = None, **kwargs: Any) -> None:
        if run_id in self._open:
            self._open.remove(run_id)

    async def cancelled(self, callbacks: Callbacks, error: BaseException) -> None:
        """Tell who follows the call that its runs have ended; LangChain does not when they are
        cancelled, and in a trace they would never end.

        Args:
            callbacks: Those that the call had.
            error: Why it was cancelled.
        """
        if isinstance(callbacks, BaseCallbackManager):
            callbacks = callbacks.handlers
        others = [handler for handler in callbacks or [] if handler is not self]
        while self._open:
            run = AsyncCallbackManagerForLLMRun(
                run_id=self._open.pop(), handlers=others, inheritable_handlers=[]
            )
            await run.on_llm_error(error)


def _raise_lost_cancellation() -> None:
    """Stop a call that goes on although it was cancelled.

    Until Python 3.12, `asyncio.wait_for` forgets a cancellation that comes together with the
    result (https://github.com/python/cpython/issues/86296). LangChain's clients wait for each
    piece of an answer in it, and nobody would want the rest of what is paid for by then.

    Raises:
        CancelledError: If the running task has been asked to end.
    """
    try:
        task = asyncio.current_task()
    except RuntimeError:  # a synchronous call
        return
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def mark_run(node: str, error: str | None, **metadata: Any) -> None:
    """Say in LangSmith's trace of a node how it ended, as it does not raise.

    Args:
        node: The node; it must be the one that runs.
        error: What failed, if anything did.
        **metadata: What to find it by.
    """
    from langsmith import get_current_run_tree  # noqa: PLC0415 - takes long, as LangChain knows

    run = get_current_run_tree()
    if run is not None and run.name == node:
        run.add_metadata(metadata)
        run.error = error
