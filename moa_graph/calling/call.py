"""Ask one model one question: retries, budget and error messages."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import UsageMetadata, add_ai_message_chunks
from langchain_core.runnables import Runnable, RunnableConfig

from moa_graph._compat import inherited
from moa_graph.calling import sync
from moa_graph.calling.answer import Answer, read_answer
from moa_graph.calling.budget import Amount, Ledger
from moa_graph.calling.callbacks import ModelRuns, with_handlers
from moa_graph.calling.references import Question, estimated_prompt
from moa_graph.calling.retries import (
    can_pass,
    is_of_another_loop,
    is_too_long,
    may_be_too_long,
    retried_by_client,
    seconds_before_retry,
)
from moa_graph.calling.slots import CallSlots
from moa_graph.context import MoAContext
from moa_graph.errors import explain, status_of
from moa_graph.limits import Price
from moa_graph.models import (
    NO_SETTINGS,
    Settings,
    input_for,
    is_same_model,
    max_tokens_of,
    nested_graph,
    own_retries,
    repeats_by_itself,
    secrets_of,
)
from moa_graph.state import total_usage

_DEFAULT_RETRIES = 2  # as in OpenAI's client
_MOST_LOST = 100  # most connections of other event loops that one call tries in turn


@dataclass(frozen=True)
class Account:
    """Budget and prices for a call.

    Args:
        ledger: Ledger of the run.
        price: Price of the model; the highest price if several models may answer.
        prices: Prices of all models that may answer, by name.
        always: Whether to make the call even if the budget has no room for it.
    """

    ledger: Ledger
    price: Price = (0.0, 0.0)
    prices: Mapping[str, Price] = field(default_factory=dict)
    always: bool = False

    def spent(self, used: Mapping[str, UsageMetadata]) -> Amount:
        """Return the cost of a call, given the tokens that each model used."""
        total = Amount(0, 0.0)
        for name, usage in used.items():
            known = next((self.prices[n] for n in self.prices if is_same_model(n, name)), None)
            total += Amount.used(usage, known or self.price)
        return total


@dataclass(frozen=True, slots=True)
class CallTerms:
    """Limits and retries for the calls of one model.

    Args:
        retries: Maximum number of retries after a transient error (at least 0). If None, the
            number that is set on the provider's client, at least 2.
        slots: Limits of concurrent calls.
        names: Names of the model in `slots`: its provider, and `"provider:model"`.
        account: Budget and prices; None without a budget.
        once_shown: Whether a call is not retried once tokens were streamed.
    """

    retries: int | None = 0
    slots: CallSlots = field(default_factory=lambda: CallSlots({}))
    names: Sequence[str] = ()
    account: Account | None = None
    once_shown: bool = False


class Call:
    """One question to one model.

    Args:
        model: The model.
        question: The question.
        config: Configuration of the run that makes the call.
        terms: Limits and retries.
        settings: Settings of the run. Settings that the provider rejects are left out.
        context: Context of the run.
        callbacks: Callbacks in addition to those of the run.
        until: Deadline for the answer (of `time.monotonic`); no retry starts after it.
    """

    # Thousands of calls may wait at once.
    __slots__ = (
        "_callbacks",
        "_config",
        "_context",
        "_given",
        "_limit",
        "_lost",
        "_retried",
        "_runs",
        "_settings",
        "_terms",
        "_until",
        "dropped",
        "question",
        "started",
    )

    def __init__(
        self,
        model: Runnable[Any, Any],
        question: Question,
        config: RunnableConfig,
        terms: CallTerms,
        *,
        settings: Settings = NO_SETTINGS,
        context: MoAContext | None = None,
        callbacks: Sequence[BaseCallbackHandler] = (),
        until: float | None = None,
    ) -> None:
        self.question = question
        self.started = time.perf_counter()
        """Start time, in seconds of `time.perf_counter`."""
        self.dropped: list[str] = []
        """Names of settings that were left out because the provider rejected them."""
        self._given = model
        self._settings = settings
        self._context = context
        self._terms = terms
        self._config = config
        self._callbacks = callbacks
        self._until = until
        self._runs: list[ModelRuns] = []
        self._retried = 0
        self._lost = 0
        self._limit: Amount | None = None
        if terms.account:
            self._limit_by(terms.account)

    @property
    def attempts(self) -> int:
        """Number of requests so far, including those of fallbacks and the provider's client."""
        return sum(runs.requests for runs in self._runs)

    @property
    def answered(self) -> tuple[str | None, str | None]:
        """Names of the model that answered, see `ModelRuns`."""
        named = [runs.answered for runs in self._runs if any(runs.answered)]
        return named[-1] if named else (None, None)

    @property
    def _model(self) -> Runnable[Any, Any]:
        return self._settings.without(self.dropped).applied(self._given)

    async def ask(self, sink: Callable[[Any], None] | None = None) -> Answer:
        """Ask the model, and retry until it answers.

        Args:
            sink: Function that receives each chunk; if given, the model streams.

        Returns:
            The answer.

        Raises:
            Exception: If the last request fails; the error is that of the last request.
        """
        slots, names = self._terms.slots, self._terms.names
        while True:
            try:
                if not slots.names:
                    return await self._request((), sink)
                async with slots.hold(*names):
                    with slots.inside(*names) as limits:
                        return await self._request(limits, sink)
            except Exception as error:
                wait = self._seconds_before_retry(error)
                if wait is None:
                    raise
            await sync.sleep(wait)

    def tokens(self, message: AIMessage | None = None) -> UsageMetadata | None:
        """Return the tokens of all model calls behind this one; an agent makes several."""
        counted = total_usage(
            usage for runs in self._runs for usage in runs.usage_metadata.values()
        )
        return counted or (message.usage_metadata if message else None)

    def explain(self, error: BaseException) -> str:
        """Return a readable one-line description of an error, without secrets."""
        return explain(error, secrets_of(self._given))

    async def _request(
        self, limits: Sequence[BaseCallbackHandler], sink: Callable[[Any], None] | None
    ) -> Answer:
        """Make one request, count its tokens and charge them to the budget."""
        settle = self._reserve()
        runs = ModelRuns()
        self._runs.append(runs)
        config = with_handlers(self._config, [*limits, runs, *self._callbacks])
        try:
            with inherited(config):
                answer = read_answer(await self._output(config, sink))
        except sync.Cancelled as error:
            await runs.cancelled(config.get("callbacks"), error)
            raise
        except Exception as error:
            if settle and status_of(error) is not None:
                settle(Amount(0, 0.0))  # rejected requests are not billed
            raise
        if settle and self._terms.account:
            told = answer.message.usage_metadata
            if used := runs.usage_metadata or ({"": told} if told else {}):  # "" if unknown
                settle(self._terms.account.spent(used))
        return answer

    def _output(
        self, config: RunnableConfig, sink: Callable[[Any], None] | None
    ) -> Coroutine[Any, Any, Any]:
        model = self.question.prepare(self._model)
        given, arguments = self._input(), self._arguments()
        if sink is None:
            in_thread = nested_graph(self._given) is not None
            return sync.call(model, given, config, in_thread=in_thread, **arguments)
        return _streamed(model.astream(given, config, **arguments), sink)

    def _input(self) -> Any:
        return input_for(self._given, self.question.messages)

    def _arguments(self) -> dict[str, Any]:
        graph = nested_graph(self._given)
        schema = graph.context_schema if graph is not None else None
        if isinstance(schema, type) and issubclass(schema, MoAContext):
            # LangGraph would pass on this run's context, which is not meant for another mixture.
            return {"context": MoAContext()}
        if graph is not None and self._context is not None and self._context.call_options:
            # This run's tools are not meant for a mixture nested deeper either.
            return {"context": self._context.with_call_options({})}
        return {}

    def _limit_by(self, account: Account) -> None:
        """Limit the answer to the model's share of the budget, if its own limit is not lower.

        The limit of the model that writes the run's answer is never lowered.
        """
        prompt = estimated_prompt(self.question.messages)
        longest = max_tokens_of(self.question.prepare(self._model))
        if longest is None or not (self.question.is_part or account.always):
            share = account.ledger.longest_answer(
                prompt, account.price, own=longest, always=account.always
            )
            if share is not None and (longest is None or share < longest):
                longest = share
                self._settings = self._settings.with_(max_tokens=longest)
        elif not self.question.is_part:
            account.ledger.expect_one_call_less()
        self._limit = Amount.of(prompt, longest or 0, account.price)

    def _reserve(self) -> Callable[[Amount], None] | None:
        if self._terms.account is None or self._limit is None:
            return None
        return self._terms.account.ledger.reserve(self._limit, always=self._terms.account.always)

    def _can_be_helped(self, error: Exception) -> bool:
        """Change the request so that it can be repeated at once; return whether that worked."""
        # Fallbacks raise only the first error; the one that can be fixed may be another.
        errors = [error, *(self._runs[-1].errors if self._runs else ())]
        if any(map(is_too_long, errors)) and self.question.shorten():
            return True
        settings = self._settings.without(self.dropped)
        if refused := set[str]().union(*map(settings.refused, errors)):
            self.dropped += sorted(refused)
            return True
        if any(map(may_be_too_long, errors)) and self.question.shorten(guess=True):
            return True
        self._lost += is_of_another_loop(error)  # the request did not reach the provider
        return is_of_another_loop(error) and self._lost < _MOST_LOST

    @property
    def _retries(self) -> int:
        if self._terms.retries is not None:
            return self._terms.retries
        return max(own_retries(self._given) or 0, _DEFAULT_RETRIES)

    def _seconds_before_retry(self, error: Exception) -> float | None:
        """Return the seconds to wait before the next attempt; None for no further attempt."""
        if self._can_be_helped(error):
            return 0.0
        by_itself = retried_by_client(error) or repeats_by_itself(self._given)
        shown = self._terms.once_shown and any(runs.streamed for runs in self._runs)
        if by_itself or shown or self._retried >= self._retries or not can_pass(error):
            return None
        wait = seconds_before_retry(error, self._retried + 1)
        if wait is None or (self._until is not None and time.monotonic() + wait >= self._until):
            return None
        self._retried += 1
        return wait


async def _streamed(stream: AsyncIterator[Any], sink: Callable[[Any], None]) -> Any:
    chunks = []
    async for chunk in stream:
        sink(chunk)
        chunks.append(chunk)
    return _joined(chunks)


def _joined(chunks: Sequence[Any]) -> Any:
    if chunks and all(isinstance(chunk, AIMessageChunk) for chunk in chunks):
        return add_ai_message_chunks(*chunks)
    whole = chunks[0] if chunks else AIMessageChunk(content="")
    for chunk in chunks[1:]:
        whole += chunk
    return whole
