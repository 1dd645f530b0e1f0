"""What LangChain's callbacks tell about a call of a model, and what tracers are told in turn."""

from __future__ import annotations

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

from moa_graph.calling import sync
from moa_graph.calling.retries import retried_by_client


class ModelRuns(UsageMetadataCallbackHandler):
    """The model runs of one call: an agent has several, and so have fallbacks.

    Attributes:
        usage_metadata: Tokens so far, by model.
        streamed: Whether any token was streamed: what was shown cannot be taken back.
        errors: What its models raised, in the order of the requests.
        answered: What the model that answered last calls itself: the name it was asked by, and
            the name that the provider gave; None where it is not known.
    """

    run_inline = True  # a thread for each event would cost more than what is done in it

    def __init__(self) -> None:
        super().__init__()
        self.streamed = False
        self.answered: tuple[str | None, str | None] = (None, None)
        self._open: list[UUID] = []
        self.errors: list[BaseException] = []
        self._ended = 0
        self._asked: dict[UUID, str | None] = {}
        self._parents: dict[UUID, UUID | None] = {}

    @property
    def requests(self) -> int:
        """Requests for one answer: the one that was answered, and all that failed before.

        What the provider's own client has repeated is counted, too.
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
        self._parents[run_id] = parent_run_id

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
        self._parents[run_id] = parent_run_id
        self._open.append(run_id)
        name = (metadata or {}).get("ls_model_name")
        self._asked[run_id] = name if isinstance(name, str) else None

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.streamed = True
        _raise_lost_cancellation()

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        super().on_llm_end(response, **kwargs)
        run_id: UUID = kwargs["run_id"]
        if not self._is_inner(run_id):
            self._ended += 1
            self.answered = (self._asked.get(run_id), _name_in(response))
        self._close(run_id)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        if not self._is_inner(run_id) and isinstance(error, Exception):
            self.errors.append(error)
        self._close(run_id)

    def _is_inner(self, run_id: UUID) -> bool:
        """Return whether the run belongs to a chat model around it, such as a mixture."""
        parent = self._parents.get(run_id)
        while parent is not None:
            if parent in self._asked:
                return True
            parent = self._parents.get(parent)
        return False

    def _close(self, run_id: UUID) -> None:
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


def _name_in(response: LLMResult) -> str | None:
    """Return the name of the model that answered, as its provider says it."""
    for generation in response.generations[0] if response.generations else ():
        metadata = getattr(getattr(generation, "message", None), "response_metadata", {})
        for field in ("model_name", "model", "model_id"):
            if isinstance(name := metadata.get(field), str) and name:
                return name
    return None


def _raise_lost_cancellation() -> None:
    """Stop a call that goes on although it was cancelled.

    Until Python 3.12, `asyncio.wait_for` forgets a cancellation that comes together with the
    result (https://github.com/python/cpython/issues/86296). LangChain's clients wait for each
    piece of an answer in it, and nobody would want the rest of what is paid for by then.

    Raises:
        CancelledError: If the running task has been asked to end.
    """
    if sync.is_cancelled():
        raise sync.Cancelled


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
