"""Control which tokens are streamed: the aggregator's always, a proposer's only on request."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Self

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig
from pydantic import PrivateAttr

from moa_graph import _compat
from moa_graph.calling import sync
from moa_graph.calling.answer_stream import AnswerStream
from moa_graph.events import ProposerProgress

_PROGRESS_INTERVAL = 0.1  # seconds


def is_message_stream(handler: BaseCallbackHandler) -> bool:
    """Return whether a handler serves `stream_mode="messages"`: LangGraph's own, or our proxy."""
    return isinstance(handler, ProposalTokens) or _compat.is_message_stream(handler)


def with_answer_stream(config: RunnableConfig, *, hold: bool = False) -> RunnableConfig:
    """Return a copy of the configuration in which message streams get answers without reasoning.

    Args:
        config: Configuration of the node that writes the answer.
        hold: Whether its model begins its reasoning without an opening tag.
    """
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager):
        return config
    if not any(map(is_message_stream, callbacks.handlers)):
        return config
    manager = callbacks.copy()
    made: dict[int, BaseCallbackHandler] = {}
    for handlers in (manager.handlers, manager.inheritable_handlers):
        for i, handler in enumerate(handlers):
            if is_message_stream(handler) and not isinstance(handler, ProposalTokens):
                answer = AnswerStream(hold=hold)
                made.setdefault(id(handler), _compat.with_stream(handler, answer.shown))
                handlers[i] = made[id(handler)]
    return {**config, "callbacks": manager}


def is_answer(metadata: Mapping[str, Any]) -> bool:
    """Return whether a streamed message belongs to the graph's answer, by its metadata.

    The answer is usually the aggregator's, but may come from an early exit or a first pass. All
    other messages are those of proposers.
    """
    return "moa_proposer" not in metadata


def without_message_stream(config: RunnableConfig) -> RunnableConfig:
    """Return a copy of the configuration that hides model calls from `stream_mode="messages"`.

    The tag `nostream` is not enough: it hides a chat model's tokens, but not the messages that
    an agent's nodes return when subgraphs are streamed.
    """
    callbacks = config.get("callbacks")
    if isinstance(callbacks, BaseCallbackManager):
        handlers = [*callbacks.handlers, *callbacks.inheritable_handlers]
        if not any(map(is_message_stream, handlers)):
            return config
        manager = callbacks.copy()
        manager.handlers = _others(manager.handlers)
        manager.inheritable_handlers = _others(manager.inheritable_handlers)
        return {**config, "callbacks": manager}
    return {**config, "callbacks": _others(callbacks or [])}


def _others(handlers: Sequence[BaseCallbackHandler]) -> list[BaseCallbackHandler]:
    return [handler for handler in handlers if not is_message_stream(handler)]


def only_message_stream(config: RunnableConfig) -> RunnableConfig | None:
    """Return a copy of the configuration that keeps only handlers of `stream_mode="messages"`.

    Return None if there is no such handler.
    """
    callbacks = config.get("callbacks")
    if not isinstance(callbacks, BaseCallbackManager):
        return None
    manager = callbacks.copy()
    manager.handlers = [h for h in manager.handlers if is_message_stream(h)]
    manager.inheritable_handlers = [h for h in manager.inheritable_handlers if is_message_stream(h)]
    if not manager.handlers and not manager.inheritable_handlers:
        return None
    return {**config, "callbacks": manager}


class WrittenTokens(BaseChatModel):
    """Stream a text that several model calls write as one message.

    This is a chat model that returns the tokens passed to `write`. LangChain and LangGraph
    therefore stream them like those of any other model, once each, in any of their protocols.
    """

    message_id: str
    """Id of the message."""
    _tokens: sync.Channel[str] = PrivateAttr(default_factory=sync.Channel)
    _task: sync.Task[Any] | None = PrivateAttr(default=None)
    _config: RunnableConfig | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, message_id: str, config: RunnableConfig) -> Self:
        """Make the stream of a message, for the message streams in the configuration."""
        tokens = cls(message_id=message_id)
        tokens._config = only_message_stream(config)
        return tokens

    def write(self, text: str) -> None:
        """Stream the next part of the text."""
        if self._config is None or not text:
            return
        self._tokens.write(text)
        if self._task is None:
            self._task = sync.start(self.ainvoke("", self._config))

    async def end(self) -> None:
        """End the current text, and wait until all of it is streamed."""
        task, self._task = self._task, None
        if task is not None:
            self._tokens.write(None)
            await task

    @property
    def _llm_type(self) -> str:
        return "written"

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError  # this model only streams

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[ChatGenerationChunk]:
        async for text in self._tokens.read():
            yield ChatGenerationChunk(message=AIMessageChunk(content=text, id=self.message_id))
        # Without this chunk, LangChain would add a last chunk with another id.
        last = AIMessageChunk(content="", id=self.message_id, chunk_position="last")
        yield ChatGenerationChunk(message=last)


class ProposerTokens(BaseCallbackHandler):
    """Report to the custom stream how many tokens a proposer has written so far."""

    run_inline = True
    ignore_chat_model = True  # skip start events; LangChain would format the prompt for them

    def __init__(
        self, layer: int, proposer: str, write: Callable[[ProposerProgress], None]
    ) -> None:
        self._layer = layer
        self._proposer = proposer
        self._write = write
        self._tokens = 0
        self._told_at = 0.0

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self._tokens += 1
        now = time.monotonic()
        if now - self._told_at >= _PROGRESS_INTERVAL:
            self._told_at = now
            self._write(
                ProposerProgress(
                    type="proposer_progress",
                    layer=self._layer,
                    proposer=self._proposer,
                    tokens=self._tokens,
                )
            )


class ProposalTokens(BaseCallbackHandler):
    """Forward only the proposers' tokens to a message stream outside `ChatMoA`.

    Proposers' tokens reach this handler only in a graph built with `stream_proposals`. The
    stream shows them in the node that calls `ChatMoA`.

    Args:
        stream: Handler that LangGraph attached for `stream_mode="messages"`.
        metadata: Metadata of the run of `ChatMoA`.
    """

    run_inline = True

    def __init__(self, stream: BaseCallbackHandler, metadata: Mapping[str, Any]) -> None:
        self._stream = stream
        self._place = {k: v for k, v in metadata.items() if k.startswith("langgraph_")}

    def on_chat_model_start(
        self,
        serialized: dict[str, Any],
        messages: list[list[BaseMessage]],
        *,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        # The stream needs the metadata of the calling node; outside a graph there is no stream.
        if metadata and "moa_proposer" in metadata and self._place:
            self._stream.on_chat_model_start(
                serialized, messages, metadata={**metadata, **self._place}, **kwargs
            )

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self._stream.on_llm_new_token(token, **kwargs)

    def on_llm_end(self, response: LLMResult, **kwargs: Any) -> None:
        self._stream.on_llm_end(response, **kwargs)

    def on_llm_error(self, error: BaseException, **kwargs: Any) -> None:
        self._stream.on_llm_error(error, **kwargs)
