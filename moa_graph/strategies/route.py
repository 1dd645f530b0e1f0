"""Routing: a cheap first pass answers alone if it is confident; otherwise the mixture runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from langgraph.types import Overwrite

from moa_graph.calling import sync
from moa_graph.calling.answer import Answer
from moa_graph.calling.references import Question
from moa_graph.models import Model, ModelLike, as_model, without_llm_cache
from moa_graph.nodes.ask import ask
from moa_graph.nodes.decision import DecidingNode, decided
from moa_graph.nodes.plan import Plan
from moa_graph.nodes.settings import must_act, proposer_settings
from moa_graph.nodes.step import Step
from moa_graph.state import Proposal, total_usage
from moa_graph.strategies.base import Strategy
from moa_graph.strategies.checks import check_share, check_whole
from moa_graph.strategies.judge import Case, judge, yes_or_no
from moa_graph.strategies.similarity import majority, normalize
from moa_graph.strategies.vote import Parse

NODE = "first_pass"

_SURE = (
    "You decide whether a response to a user's query is good enough to be sent as it is. Say no "
    "if anything in it may be wrong, if it leaves out a part of the query, or if the query is hard "
    "enough that several opinions would help. Reply with yes or no and nothing else."
)


class Route(Strategy):
    """Let a cheap model answer first; run the mixture only if that model is not confident.

    The first pass is confident if its samples agree (self-consistency), or if a judge accepts its
    answer. If the first pass fails or the judge gives no verdict, the mixture runs and the reason
    is recorded. Every run records its route; `route_rates` counts the routes.

    Args:
        model: The cheap model.
        judge: Model that decides whether the first pass's answer can be sent.
        samples: Number of answers of the cheap model to compare, at least 2. Use it instead of
            `judge`; with a judge there is 1 answer.
        share: Share of the samples that must give the same answer, above 0 and at most 1.
        parse: Function from the text of a sample to its answer, see `Vote`.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If a value is out of range, or not exactly one of `judge` and `samples` is
            given.
    """

    def __init__(
        self,
        model: ModelLike,
        *,
        judge: ModelLike | None = None,
        samples: int | None = None,
        share: float = 1.0,
        parse: Parse | None = None,
    ) -> None:
        if judge is None and samples is None:
            raise ValueError(
                "Route needs judge or samples to check the first answer: use judge=model, or "
                "samples=3 for self-consistency."
            )
        if judge is not None and samples is not None:
            raise ValueError("Route takes judge or samples, not both.")
        if samples is not None:
            check_whole("Route(samples=…)", samples, least=2)
        check_share("Route(share=…)", share)
        if parse is not None and not callable(parse):
            raise TypeError(f"Route(parse={parse!r}) must be a function from a text to an answer.")
        self.model = as_model(model, "Route(model=…)")
        self.judge = None if judge is None else as_model(judge, "Route(judge=…)")
        self.samples = samples or 1
        self.share = share
        self.parse = parse or normalize

    @property
    def models(self) -> Sequence[Model]:
        """Models that the strategy calls."""
        return [self.model, self.judge] if self.judge else [self.model]


def route_rates(states: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return how often the first pass answered alone, and how often the mixture ran.

    Args:
        states: Final states of runs of a graph with a `Route`.

    Returns:
        `{"alone": …, "mixture": …}`, shares from 0 to 1 of the routed runs; an empty dict if no
        run was routed.

    Example:
        ```python
        route_rates(moa.batch([{"messages": question} for question in questions]))
        ```
    """
    ways = Counter(
        decision["outcome"]
        for state in states
        for decision in state.get("decisions", ())
        if decision["step"] == NODE
    )
    total = sum(ways.values())
    return {way: ways[way] / total for way in ("alone", "mixture")} if total else {}


class RouteNode(DecidingNode):
    """Node of the first pass.

    Args:
        plan: Plan shared by all nodes of the graph.
        route: The routing strategy.
    """

    def __init__(self, plan: Plan, route: Route) -> None:
        super().__init__(plan, NODE, 0)
        self._route = route

    async def decide(self, step: Step) -> dict[str, Any]:
        """See `DecidingNode`."""
        for needed in self.plan.models:
            await needed.ready()
        if must_act(step):
            # Only the aggregator can call tools or return structured output.
            reason = "the answer may call tools, or has a form"
            return {"decisions": [decided(step, NODE, 0, "mixture", by=reason)]}
        answers, usages, attempts, errors = await self._answers(step)
        sure, by = False, "samples"
        if self._route.judge and answers:
            draft = _as_proposal(answers[0], self._route.model)
            verdict = await judge(
                step,
                self._route.judge,
                Case(step.asked, [draft], _SURE),
                yes_or_no,
                "Reply with yes or no, and nothing else.",
            )
            sure, by = bool(verdict.value), "judge"
            usages.append(verdict.usage)
            attempts += verdict.attempts
            errors += [verdict.error] if verdict.error else []
        elif answers:
            parsed = [await sync.in_thread(self._parsed, answer.text) for answer in answers]
            places, _ = majority(parsed)
            sure = len(places) >= self._route.share * self._route.samples
            answers = [answers[places[0]], *answers]
        decision = decided(
            step,
            NODE,
            0,
            "alone" if sure else "mixture",
            by=by,
            error="; ".join(dict.fromkeys(errors)) or None,
            usage=total_usage(usages),
            attempts=attempts,
            texts={self._route.model.name: answers[0].text} if answers else None,
        )
        if not sure:
            return {"decisions": [decision]}
        step.end_run()
        message = answers[0].message.model_copy(update={"usage_metadata": None})
        if message.id in {m.id for m in step.messages}:
            message.id = None
        # Remove the proposals of an earlier turn: they do not belong to this answer.
        return {
            "messages": [message],
            "decisions": [decision],
            "proposals": Overwrite([]),
        }

    def _parsed(self, text: str) -> str:
        try:
            return str(self._route.parse(text))
        except Exception:
            return text

    async def _answers(self, step: Step) -> tuple[list[Answer], list[Any], int, list[str]]:
        runnable = await self._route.model.here()
        models = [runnable] + [without_llm_cache(runnable)] * (self._route.samples - 1)
        replies = await sync.gather(
            ask(
                step,
                self._route.model,
                lambda tuned: Question(step.reading.conversation(tuned, own=True)),
                settings=proposer_settings(step),
                runnable=model,
            )
            for model in models
        )
        answers = [r.answer for r in replies if r.answer is not None and not r.why_unusable]
        errors = [f"The first pass failed: {r.why_unusable}" for r in replies if r.why_unusable]
        return answers, [r.usage for r in replies], sum(r.attempts for r in replies), errors


def _as_proposal(answer: Answer, model: Model) -> Proposal:
    return Proposal(
        layer=0,
        proposer=NODE,
        model=model.name,
        content=answer.text,
        status="ok",
        error=None,
        usage=None,
        latency=0.0,
        attempts=1,
    )
