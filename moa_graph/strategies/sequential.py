"""Self-MoA-Seq: aggregate any number of samples with prompts of limited length."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from moa_graph.calling.references import BYTES_PER_TOKEN, estimated_tokens, trimmed
from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes.aggregator import AnswerNode, as_answer
from moa_graph.nodes.ask import ask
from moa_graph.nodes.plan import AGGREGATOR, Plan
from moa_graph.nodes.settings import aggregator_settings
from moa_graph.nodes.step import Step
from moa_graph.state import AGGREGATOR_RECORD, Draft, Proposal, TrimmedReference, total_usage
from moa_graph.strategies.aggregate import AnswerStrategy
from moa_graph.strategies.checks import check_whole

_SO_FAR = "synthesis"


class SelfMoASeq(AnswerStrategy):
    """Aggregate the references in a sliding window that includes the synthesis so far.

    The first call sees `window` references. Each later call sees the previous synthesis and
    `window - 1` new references, until all references have been used. A prompt never has more than
    `window` references, and their total length is at most `window` times the longest reference.
    The graph visits the aggregator once per window, so an interrupted run continues with the next
    window. Only the tokens of the last window are streamed as the answer.

    Args:
        writer: Model that synthesizes.
        window: Number of references in a prompt, including the synthesis so far; at least 2.

    Raises:
        TypeError: If `writer` is not a model, or `window` is not an integer.
        ValueError: If `window` is less than 2.

    Example:
        ```python
        create_moa([Proposer(model, samples=40)], SelfMoASeq(model, window=6))
        ```

    Source: Li, Lin, Xia, Jin (arXiv 2502.00674), section 5.
    """

    comes_back = True

    def __init__(self, writer: ModelLike, *, window: int = 6) -> None:
        check_whole("SelfMoASeq(window=…)", window, least=2)
        self._model = as_model(writer, "SelfMoASeq(writer=…)")
        self.window = window

    @property
    def models(self) -> Sequence[Model]:
        """See `AnswerStrategy`."""
        return [self._model]

    @property
    def writer(self) -> Model:
        """See `AnswerStrategy`."""
        return self._model

    def node(self, plan: Plan) -> AnswerNode:
        """See `AnswerStrategy`."""
        return _WindowNode(plan, self._model, self.window)


class _WindowNode(AnswerNode):
    def __init__(self, plan: Plan, model: Model, window: int) -> None:
        super().__init__(plan, model)
        self._model = model
        self._window = window

    async def answer(self, step: Step) -> dict[str, Any]:
        """Aggregate one window."""
        references = step.reading.references()
        draft = step.draft(AGGREGATOR)
        seen = _seen(len(draft["pieces"]), self._window)
        window = self._references(draft, references[seen:], references)
        last = seen + len(window) - bool(draft["pieces"]) >= len(references)
        if not draft["pieces"]:
            self._tell_started(step)
        started = time.perf_counter()
        reply = await ask(
            step,
            self._model,
            lambda model: step.reading.asking(
                model, window, step.reading.conversation(model, own=True)
            ),
            settings=aggregator_settings(step, acts=last),
            writes=True,
            streams=last,
        )
        answer, call = self._written(step, reply)
        update = Draft(
            **{
                **draft,
                "pieces": [*draft["pieces"], answer.text],
                "ended": last,
                "closed": True,
                "usage": total_usage([draft["usage"], call.tokens(answer.message)]),
                "attempts": draft["attempts"] + call.attempts,
                "latency": draft["latency"] + time.perf_counter() - started,
            }
        )
        if not last:
            return {"drafts": {AGGREGATOR: update}}
        step.end_run()
        shortened = _shortened(draft, window)
        message = as_answer(step, answer, self._model, call, shortened, update["usage"])
        message.response_metadata[AGGREGATOR_RECORD]["attempts"] = update["attempts"]
        return {"drafts": {AGGREGATOR: update}, "messages": [message]}

    def _references(
        self, draft: Draft, rest: Sequence[Proposal], all_of_them: Sequence[Proposal]
    ) -> list[Proposal]:
        """Return the references of a window: the synthesis so far, if any, and new samples."""
        if not draft["pieces"]:
            return list(rest[: self._window])
        samples = list(rest[: self._window - 1])
        longest = max(len(p["content"].encode()) for p in all_of_them)
        room = self._window * longest - sum(len(p["content"].encode()) for p in samples)
        text = trimmed(draft["pieces"][-1], room // BYTES_PER_TOKEN)
        so_far: Proposal = {**all_of_them[0], "proposer": _SO_FAR, "content": text}
        return [so_far, *samples]


def _shortened(draft: Draft, window: Sequence[Proposal]) -> list[TrimmedReference]:
    """Return a record of the synthesis so far if it was shortened to fit the window."""
    if not draft["pieces"] or window[0]["content"] == draft["pieces"][-1]:
        return []
    whole, kept = (estimated_tokens(text) for text in (draft["pieces"][-1], window[0]["content"]))
    return [TrimmedReference(proposer=_SO_FAR, tokens=whole, kept=kept)]


def _seen(windows: int, size: int) -> int:
    """Return the number of references that the first `windows` windows have used."""
    return 0 if windows == 0 else size + (windows - 1) * (size - 1)
