"""Answer with the majority of the proposals, or with the majority of each structured field."""

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
"""Function from the text of a proposal to its answer; no answer is None or an exception."""


class NothingToCount(NoAnswer):
    """Error for proposals in which no answer can be found."""


class Vote(AnswerStrategy):
    """Answer with the majority of the proposals (self-consistency), without a model call.

    Two proposals have the same answer if `parse` returns equal values for both. A proposal without
    an answer does not vote. The answer is the first proposal of the majority, unchanged.

    With a `schema`, proposals are JSON, as from `model.with_structured_output(…)`, and the vote is
    taken for each field. The answer is a JSON object of the most frequent values;
    `additional_kwargs["parsed"]` has it as data.

    Args:
        parse: Function from the text of a proposal to its answer, such as the number in it. By
            default the answer is the text without case, extra spaces, outer punctuation, and
            everything up to "answer:".
        tie: Rule for a tie: the answer of the `"first"` proposer, of the `"shortest"` or of the
            `"longest"` proposal, or a model that chooses, with one call.
        schema: Type of the proposals: a pydantic model, a TypedDict, a dataclass or a JSON schema.
        weights: Weights of the votes by the name of a proposer or of its model, such as the log
            odds that it is right. A weight is above 0; the default is 1. If a fallback answered,
            the weight of its model has priority.

    Raises:
        TypeError: If `parse` cannot be called, or `tie` is neither a rule nor a model.
        ValueError: If both `parse` and `schema` are given, or `schema` with a judge or weights, or
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
            raise ValueError("Vote() takes parse or schema, not both.")
        if parse is not None and not callable(parse):
            raise TypeError(f"Vote(parse={parse!r}) must be a function from a text to an answer.")
        if isinstance(tie, str) and tie not in get_args(TieRule) and ":" not in tie:
            rules = ", ".join(map(repr, get_args(TieRule)))
            raise ValueError(f"Vote(tie={tie!r}) must be one of {rules}, or a judge model.")
        self.parse = parse or normalize
        self.tie: TieRule | Model = (
            tie if tie in get_args(TieRule) else as_model(tie, "Vote(tie=…)")  # type: ignore[assignment]
        )
        if schema is not None and isinstance(self.tie, Model):
            raise ValueError(
                "Vote(schema=…) cannot ask a judge about each field: give tie='first'."
            )
        if schema is not None and weights is not None:
            raise ValueError("Vote() takes weights or schema, not both.")
        _check_weights(weights)
        if not isinstance(schema, type | Mapping | None):
            raise TypeError(f"Vote(schema={schema!r}) must be a class, or a JSON schema.")
        self.schema = model_of_schema(schema) if isinstance(schema, Mapping) else schema
        self.weights = dict(weights or {})

    @property
    def models(self) -> Sequence[Model]:
        """See `AnswerStrategy`."""
        return [self.tie] if isinstance(self.tie, Model) else []

    def weight(self, proposal: Proposal) -> float:
        """Return the weight of a proposal's vote."""
        names = [proposal["proposer"], proposal["model"]]
        if "asked_model" in proposal:
            names.reverse()
        return next((self.weights[name] for name in names if name in self.weights), 1.0)

    def check(self, proposers: Collection[str]) -> None:
        """See `AnswerStrategy`."""
        for name in self.weights:
            if name not in proposers:
                raise ValueError(
                    f"Vote(weights=…) names {name!r}, which is neither a proposer of the last "
                    f"layer nor a model of one.{nearest(name, proposers)} There are: "
                    f"{', '.join(sorted(proposers))}."
                )

    def node(self, plan: Plan) -> AnswerNode:
        """See `AnswerStrategy`."""
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
                Case(step.asked, tied, RANKER, choose=1),
                lambda said: numbers_in(said, len(tied), 1),
                f"Reply with one number from 1 to {len(tied)}, and nothing else.",
            )
            if verdict.value is not None:
                return verdict.value[0] - 1, verdict, "judge"
            return 0, verdict, "tie: first"
        return _by_rule(tie, [p["content"] for p in tied]), none, f"tie: {tie}"


class _FieldsNode(ChoosingNode):
    """Node that votes on each field of structured proposals."""

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
            # The most frequent fields may be invalid together: use the most frequent object.
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
        # Keep the proposer's JSON: a dump would replace aliases and add computed fields.
        text = _without_fence(text)
        self._schema.validate_json(text)
        return dict(json.loads(text))


def parsed_answers(
    references: Sequence[Proposal], parse: Parse
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the answer of each proposal, and the proposals without an answer.

    Args:
        references: The proposals.
        parse: Function from a text to its answer; it returns None or an empty string, or raises,
            if there is none.

    Returns:
        The answers by proposer, and the reasons for missing answers by proposer.
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
    """Return an object with the most frequent value of each field.

    Args:
        objects: Objects of plain JSON data, at least one. Each object has one vote for each of its
            fields. The fields of nested objects are voted on separately.
        tie: Rule for a tie between values.

    Returns:
        The object, and the names of the tied fields.
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
    """Return the answer, or its JSON text if it is not hashable, such as a list."""
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
    """Return JSON without the code fence that models often add."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```"):
        text = text[3:-3].removeprefix("json").strip()
    return text
