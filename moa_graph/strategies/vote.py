"""The answer is what most proposals say; of structured ones, each field for itself."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args
from uuid import uuid4

from langchain_core.messages import AIMessage
from pydantic import BaseModel, TypeAdapter, ValidationError

from moa_graph.calling import sync
from moa_graph.calling.answer import NoAnswer
from moa_graph.errors import nearest
from moa_graph.models import Model, ModelLike, as_model
from moa_graph.nodes.aggregator import AnswerNode
from moa_graph.nodes.decision import decided
from moa_graph.nodes.plan import AGGREGATOR, Plan
from moa_graph.nodes.step import Step
from moa_graph.state import Decision, Proposal
from moa_graph.strategies.aggregate import AnswerStrategy, ChoosingNode, word_for_word
from moa_graph.strategies.judge import Case, Verdict, judge, numbers_in
from moa_graph.strategies.rank import RANKER
from moa_graph.strategies.schemas import model_of_schema
from moa_graph.strategies.similarity import majority, most_frequent, normalize

TieRule: TypeAlias = Literal["first", "shortest", "longest"]

Parse: TypeAlias = Callable[[str], Any]
"""From a proposal's text to its answer; None, or an error, where there is none in it."""


class NothingToCount(NoAnswer):
    """There are proposals, but no answer in any of them."""


class Vote(AnswerStrategy):
    """Answer with the majority of the proposals (self-consistency); calls no model.

    Two proposals give the same answer if `parse` makes the same of both. What it can make
    nothing of has no vote. The answer is the first proposal of the majority, word for word.

    With a `schema`, proposals are JSON (as `model.with_structured_output(…)` gives them), and
    each field is voted on for itself: the answer is the object of the most frequent values, in
    JSON, and `additional_kwargs["parsed"]` has it as data.

    Args:
        parse: From a proposal's text to its answer, such as the number in it. By default the
            text without case, spaces, punctuation around it, and what stands before "answer:".
        tie: Who wins among answers that are as frequent: the one given by the `"first"`
            proposer, the `"shortest"` or `"longest"` proposal, or a model that judges.
        schema: A pydantic model, a TypedDict, a dataclass or a JSON schema: what the proposals
            are.
        weights: What the vote of each proposer counts, by its name or its model's, such as the
            logarithm of the odds that it is right; above 0, and 1 for who is not named. Where a
            fallback answered, its model's weight comes first.

    Raises:
        TypeError: If `parse` cannot be called, or `tie` is neither a rule nor a model.
        ValueError: If both `parse` and `schema` are given, or `schema` and a judge or weights, or
            a weight is not above 0.

    Source: Wang et al., self-consistency (arXiv 2203.11171); the paper's MATH table uses it.
    """

    whole = True

    def __init__(
        self,
        *,
        parse: Parse | None = None,
        tie: TieRule | ModelLike = "first",
        schema: type | Mapping[str, Any] | None = None,
        weights: Mapping[str, float] | None = None,
    ) -> None:
        if parse is not None and schema is not None:
            raise ValueError("Vote() takes parse or schema: fields of a schema need no parsing.")
        if parse is not None and not callable(parse):
            raise TypeError(f"Vote(parse={parse!r}) must be a function from a text to an answer.")
        if isinstance(tie, str) and tie not in get_args(TieRule) and ":" not in tie:
            rules = ", ".join(map(repr, get_args(TieRule)))
            raise ValueError(f"Vote(tie={tie!r}) must be one of {rules}, or a model that judges.")
        self.parse = parse or normalize
        self.tie: TieRule | Model = (
            tie if tie in get_args(TieRule) else as_model(tie, "Vote(tie=…)")  # type: ignore[assignment]
        )
        if schema is not None and isinstance(self.tie, Model):
            raise ValueError(
                "Vote(schema=…) cannot ask a judge about each field: give tie='first'."
            )
        if schema is not None and weights is not None:
            raise ValueError("Vote() takes weights or schema: fields have one vote each.")
        _check_weights(weights)
        if not isinstance(schema, type | Mapping | None):
            raise TypeError(f"Vote(schema={schema!r}) must be a class, or a JSON schema.")
        self.schema = model_of_schema(schema) if isinstance(schema, Mapping) else schema
        self.weights = dict(weights or {})

    @property
    def models(self) -> Sequence[Model]:
        """As `AnswerStrategy`."""
        return [self.tie] if isinstance(self.tie, Model) else []

    def weight(self, proposal: Proposal) -> float:
        """Return what the vote of a proposal counts."""
        names = [proposal["proposer"], proposal["model"]]
        if "asked_model" in proposal:
            names.reverse()
        return next((self.weights[name] for name in names if name in self.weights), 1.0)

    def check(self, proposers: Collection[str]) -> None:
        """As `AnswerStrategy`."""
        for name in self.weights:
            if name not in proposers:
                raise ValueError(
                    f"Vote(weights=…) names {name!r}, which is neither a proposer of the last "
                    f"layer nor a model of one.{nearest(name, proposers)} There are: "
                    f"{', '.join(sorted(proposers))}."
                )

    def node(self, plan: Plan) -> AnswerNode:
        """As `AnswerStrategy`."""
        return _VoteNode(plan, self) if self.schema is None else _FieldsNode(plan, self)


def _check_weights(weights: Any) -> None:
    if not isinstance(weights, Mapping | None):
        raise TypeError(f"Vote(weights={weights!r}) must be a mapping from names to numbers.")
    for name, weight in (weights or {}).items():
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise TypeError(f"Vote(weights={{{name!r}: {weight!r}}}) must be a number.")
        if not (math.isfinite(weight) and weight > 0):
            raise ValueError(f"Vote(weights={{{name!r}: {weight}}}) must be above 0.")


class _VoteNode(ChoosingNode):
    def __init__(self, plan: Plan, vote: Vote) -> None:
        super().__init__(plan, "Vote")
        self._vote = vote

    async def choose(self, references: list[Proposal], step: Step) -> tuple[AIMessage, Decision]:
        answers, unparsed = await sync.in_thread(parsed_answers, references, self._vote.parse)
        if not answers:
            raise NothingToCount("no proposal has an answer that can be counted (Vote(parse=…))")
        voters = [p for p in references if p["proposer"] in answers]
        keys = [_comparable(answers[p["proposer"]]) for p in voters]
        weights = [self._vote.weight(proposal) for proposal in voters]
        groups = most_frequent(keys, weights)
        places = groups[0]
        verdict: Verdict[list[int]] = Verdict(None, None, None, 0)
        by = "weighted votes" if self._vote.weights else "votes"
        if len(groups) > 1:
            firsts = [voters[group[0]] for group in groups]
            place, verdict, by = await self._break(firsts, step)
            places = groups[place]
        winner = voters[places[0]]
        agreed = {voters[i]["proposer"] for i in places}
        left_out = {p["proposer"]: "another answer" for p in voters if p["proposer"] not in agreed}
        decision = decided(
            step,
            AGGREGATOR,
            winner["layer"],
            "chosen",
            kept=[p for p in voters if p["proposer"] in agreed],
            left_out=left_out | unparsed,
            by=by,
            error=verdict.error,
            usage=verdict.usage,
            attempts=verdict.attempts,
        )
        return word_for_word(winner), decision

    async def _break(self, tied: list[Proposal], step: Step) -> tuple[int, Verdict[list[int]], str]:
        tie = self._vote.tie
        none: Verdict[list[int]] = Verdict(None, None, None, 0)
        if isinstance(tie, Model):
            verdict = await judge(
                step,
                tie,
                Case(step.asked, tied, RANKER),
                lambda said: numbers_in(said, len(tied), 1),
                f"Reply with one number from 1 to {len(tied)}, and nothing else.",
            )
            if verdict.value is not None:
                return verdict.value[0] - 1, verdict, "judge"
            return 0, verdict, "tie: first"
        return _by_rule(tie, [p["content"] for p in tied]), none, f"tie: {tie}"


class _FieldsNode(ChoosingNode):
    """Votes on each field of structured proposals."""

    def __init__(self, plan: Plan, vote: Vote) -> None:
        super().__init__(plan, "Vote")
        assert vote.schema is not None
        self._schema: TypeAdapter[Any] = TypeAdapter(vote.schema)
        self._rule: TieRule = vote.tie  # type: ignore[assignment]

    async def choose(
        self,
        references: list[Proposal],
        step: Step,
    ) -> tuple[AIMessage, Decision]:
        objects, unparsed = parsed_answers(references, self._object)
        if not objects:
            raise NothingToCount("no proposal is an object of the schema (Vote(schema=…))")
        merged, ties = field_majority(list(objects.values()), self._rule)
        try:
            self._schema.validate_json(json.dumps(merged))
        except ValidationError as error:
            # Fields that are right one by one may contradict each other: then a whole one wins.
            whole = [json.dumps(o, sort_keys=True) for o in objects.values()]
            merged = list(objects.values())[majority(whole)[0][0]]
            ties = [f"the fields together are not valid ({error.error_count()} errors)"]
        text = json.dumps(merged, ensure_ascii=False)
        message = AIMessage(text, id=f"run--{uuid4()}", additional_kwargs={"parsed": merged})
        voters = [p for p in references if p["proposer"] in objects]
        by = "votes on fields" + (f"; ties: {', '.join(ties)}" if ties else "")
        layer = references[0]["layer"]
        return message, decided(
            step, AGGREGATOR, layer, "chosen", kept=voters, left_out=unparsed, by=by
        )

    def _object(self, text: str) -> dict[str, Any]:
        # As the proposer wrote it: a dump has other names than its aliases, and computed fields.
        text = _without_fence(text)
        self._schema.validate_json(text)
        return dict(json.loads(text))


def parsed_answers(
    references: Sequence[Proposal], parse: Parse
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the answer in each proposal, and which have none.

    Args:
        references: The proposals.
        parse: From a text to its answer; None, an empty text or an error if there is none.

    Returns:
        By proposer, the answers, and the reasons why others have none.
    """
    answers: dict[str, Any] = {}
    without: dict[str, str] = {}
    for proposal in references:
        try:
            answer = parse(proposal["content"])
        except Exception as error:
            without[proposal["proposer"]] = f"no answer in it ({type(error).__name__})"
            continue
        if answer is None or answer == "":
            without[proposal["proposer"]] = "no answer in it"
        elif isinstance(answer, BaseModel):
            answers[proposal["proposer"]] = answer.model_dump_json()
        else:
            answers[proposal["proposer"]] = answer
    return answers, without


def field_majority(
    objects: Sequence[dict[str, Any]], tie: TieRule = "first"
) -> tuple[dict[str, Any], list[str]]:
    """Return the object of the most frequent values, field by field.

    Args:
        objects: Plain JSON data, at least one; each object gives each of its fields one vote.
            Objects inside are voted on as fields of their own.
        tie: Which value wins of those as frequent.

    Returns:
        The object, and the names of the fields that were tied.
    """
    merged: dict[str, Any] = {}
    ties: list[str] = []
    for name in dict.fromkeys(name for o in objects for name in o):
        values = [o[name] for o in objects if name in o]
        if all(isinstance(value, dict) for value in values):
            merged[name], inner = field_majority(values, tie)
            ties += [f"{name}.{field}" for field in inner]
            continue
        texts = [json.dumps(value, sort_keys=True, ensure_ascii=False) for value in values]
        keys = [
            normalize(value) if isinstance(value, str) else text
            for value, text in zip(values, texts, strict=True)
        ]
        firsts = [group[0] for group in most_frequent(keys)]
        if len(firsts) > 1:
            ties.append(name)
        merged[name] = values[firsts[_by_rule(tie, [texts[i] for i in firsts])]]
    return merged, ties


def _comparable(answer: Any) -> Any:
    """Return the answer, or where it is a list or the like, a text that says the same."""
    try:
        hash(answer)
    except TypeError:
        return json.dumps(answer, sort_keys=True, default=str)
    return answer


def _by_rule(rule: TieRule, texts: Sequence[str]) -> int:
    if rule == "first":
        return 0
    sign = 1 if rule == "shortest" else -1
    return min(range(len(texts)), key=lambda i: (sign * len(texts[i]), i))


def _without_fence(text: str) -> str:
    """JSON without the code fence that models like to put around it."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json").strip()
    return text
