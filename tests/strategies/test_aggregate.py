"""Ways to an answer other than synthesis: chosen, counted, analysed, or through a window."""

from __future__ import annotations

import json
import re

import pytest
from langchain_core.runnables import RunnableLambda
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel, Field, model_validator
from typing_extensions import TypedDict

from moa_graph import (
    AggregationFailed,
    ChatMoA,
    NotEnoughProposals,
    Proposer,
    References,
    RunLimits,
    create_moa,
)
from moa_graph.strategies import (
    Analyse,
    DropoutAndCluster,
    DropoutAndVote,
    MostCentral,
    Rank,
    SelfMoASeq,
    Vote,
)
from moa_graph.strategies.vote import field_majority
from tests.nodes.test_nodes import MODES, run

QUESTION = {"messages": "What is the capital of Australia?"}
ODD = " \t2. Ignore the others!\r\n```{x}```\u2028 %s \x00 ümläut 🎉\n\n"


def three(chat) -> list:
    return [chat(name) for name in ("a", "b", "c")]


def chosen(state) -> dict:
    return next(d for d in state["decisions"] if d["step"] == "aggregator")


# --- rank ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("says", ["2", "Response 2", "**2**.", "The best is 2"])
async def test_the_chosen_proposal_is_the_answer_byte_for_byte(chat, server, mode, says):
    server.answers |= {"judge": says, "b": ODD}
    state = await run(create_moa(three(chat), Rank(chat("judge"))), mode, QUESTION)
    assert state["messages"][-1].content == ODD
    assert (chosen(state)["by"], chosen(state)["kept"]) == ("judge", ["b"])
    said = state["messages"][-1].response_metadata["chosen_proposal"]
    assert said == {"proposer": "b", "layer": 1}


@pytest.mark.parametrize("says", ["All of them.", "4", "1 or 2", ""])
async def test_a_judge_that_talks_nonsense_is_retried_once_then_agreement_decides(
    chat, server, says
):
    server.answers |= {"a": "Sydney, mate.", "b": "Canberra, of course.", "c": "Canberra it is."}
    server.answers["judge"] = says or " "
    state = await create_moa(three(chat), Rank(chat("judge"))).ainvoke(QUESTION)
    assert "Canberra" in state["messages"][-1].text
    assert chosen(state)["by"] == "agreement"
    assert "no verdict in 2 attempts" in chosen(state)["error"]
    assert len(server.of("judge")) == 2


async def test_a_judge_that_comes_to_its_senses_decides(chat, server):
    replies = iter(["Hard to say", "3"])
    judge = RunnableLambda(lambda _: next(replies))
    state = await create_moa(three(chat), Rank(judge)).ainvoke(QUESTION)
    assert chosen(state)["kept"] == ["c"]
    assert chosen(state)["error"] is None
    assert chosen(state)["attempts"] == 2


async def test_a_single_proposal_needs_no_judge(chat, server):
    state = await create_moa([chat("a"), chat("b?status=400")], Rank(chat("judge"))).ainvoke(
        QUESTION
    )
    assert not server.of("judge")
    assert chosen(state)["kept"] == ["a"]


async def test_what_agrees_most_is_the_answer_without_any_call(chat, server):
    server.answers |= {"a": "Perth.", "b": "It is Canberra.", "c": "Canberra, of course."}
    state = await create_moa(three(chat), MostCentral()).ainvoke(QUESTION)
    assert state["messages"][-1].text in ("It is Canberra.", "Canberra, of course.")
    assert len(server.calls) == 3


async def test_a_chosen_answer_is_streamed_once_and_its_usage_counted_once(chat, server):
    server.answers |= {"judge": "1", "a": "Canberra."}
    model = ChatMoA(graph=create_moa(three(chat), Rank(chat("judge"))))
    chunks = [chunk async for chunk in model.astream("Which?")]
    assert "".join(chunk.text for chunk in chunks) == "Canberra."
    answer = await model.ainvoke("Which?")
    record = answer.response_metadata["moa"]
    assert record["decisions"][0]["by"] == "judge"
    usages = [p["usage"]["total_tokens"] for p in record["proposals"]]
    usages += [d["usage"]["total_tokens"] for d in record["decisions"]]
    assert answer.usage_metadata["total_tokens"] == sum(usages)


async def test_what_chooses_cannot_be_given_tools(chat):
    model = ChatMoA(graph=create_moa(three(chat), Rank(chat("judge"))))
    with pytest.raises(
        ValueError, match=r"Rank\(judge\) selects one of the proposals.*tools cannot be bound"
    ):
        model.bind_tools([{"type": "function", "function": {"name": "f", "parameters": {}}}])
    with pytest.raises(ValueError, match="a schema"):
        model.with_structured_output({"title": "x", "type": "object", "properties": {}})


# --- vote ----------------------------------------------------------------------------------------


async def test_the_majority_of_normalized_answers_wins(chat, server):
    server.answers |= {"a": "41", "b": "The answer is: **42**.", "c": "  42 "}
    state = await create_moa(three(chat), Vote()).ainvoke(QUESTION)
    assert state["messages"][-1].text == "The answer is: **42**."
    assert chosen(state)["kept"] == ["b", "c"]
    assert chosen(state)["left_out"] == {"a": "another answer"}


async def test_answers_are_parsed_and_what_has_none_has_no_vote(chat, server):
    server.answers |= {"a": "It is 7", "b": "seven?", "c": "maybe 7 or so"}

    def number(text: str) -> int:
        return int("".join(filter(str.isdigit, text)))

    state = await create_moa(three(chat), Vote(parse=number)).ainvoke(QUESTION)
    assert chosen(state)["kept"] == ["a", "c"]
    assert "no answer in it" in chosen(state)["left_out"]["b"]
    server.answers |= {"a": "none", "c": "nothing"}
    with pytest.raises(AggregationFailed, match="no proposal has an answer") as caught:
        await create_moa(three(chat), Vote(parse=number)).ainvoke(QUESTION)
    assert len(caught.value.proposals) == 3


@pytest.mark.parametrize(("tie", "wins"), [("first", "a"), ("shortest", "b"), ("longest", "c")])
async def test_a_tie_is_broken_by_its_rule(chat, server, tie, wins):
    server.answers |= {"a": "Canberra", "b": "Perth", "c": "Alice Springs"}
    state = await create_moa(three(chat), Vote(tie=tie)).ainvoke(QUESTION)
    assert state["messages"][-1].text == server.answers[wins]
    assert chosen(state)["by"] == f"tie: {tie}"


async def test_a_tie_is_broken_by_a_judge(chat, server):
    server.answers |= {"a": "Perth", "b": "Canberra", "c": "Sydney", "judge": "2"}
    state = await create_moa(three(chat), Vote(tie=chat("judge"))).ainvoke(QUESTION)
    assert state["messages"][-1].text == "Canberra"
    server.answers["judge"] = "?"
    state = await create_moa(three(chat), Vote(tie=chat("judge"))).ainvoke(QUESTION)
    assert (state["messages"][-1].text, chosen(state)["by"]) == ("Perth", "tie: first")
    assert chosen(state)["error"]


class City(BaseModel):
    name: str
    people: int
    where: dict[str, str] = {}


async def test_structured_answers_are_voted_on_field_by_field(chat, server):
    server.answers |= {
        "a": json.dumps({"name": "Canberra", "people": 470, "where": {"state": "ACT"}}),
        "b": json.dumps({"name": "canberra ", "people": 460, "where": {"state": "NSW"}}),
        "c": "```json\n" + json.dumps({"name": "Sydney", "people": 470, "where": {"state": "ACT"}})
        + "\n```",
        "d": "no object",
    }  # fmt: skip
    graph = create_moa([*three(chat), chat("d")], Vote(schema=City))
    state = await graph.ainvoke(QUESTION)
    parsed = {"name": "Canberra", "people": 470, "where": {"state": "ACT"}}
    assert json.loads(state["messages"][-1].text) == parsed
    assert state["messages"][-1].additional_kwargs["parsed"] == parsed
    assert set(chosen(state)["left_out"]) == {"d"}


async def test_proposers_with_a_structured_output_can_be_voted_on(chat, server):
    structured = [chat(n).with_structured_output(City) for n in ("a", "b", "c")]
    state = await create_moa(structured, Vote(schema=City)).ainvoke({"messages": "How many: 12?"})
    assert json.loads(state["messages"][-1].text)["people"] == 12


def test_ties_of_fields_are_named():
    merged, ties = field_majority(
        [{"a": 1, "b": {"c": "x"}}, {"a": 2, "b": {"c": "y"}}, {"b": {"c": "Y "}}], "first"
    )
    assert merged == {"a": 1, "b": {"c": "y"}}
    assert ties == ["a"]


class Range(BaseModel):
    low: int
    high: int

    @model_validator(mode="after")
    def _in_order(self):
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


async def test_fields_that_contradict_each_other_give_way_to_a_whole_answer(chat, server):
    server.answers |= {
        "a": '{"low": 5, "high": 9}',
        "b": '{"low": 5, "high": 6}',
        "c": '{"low": 1, "high": 3}',
        "d": '{"low": 2, "high": 3}',
    }
    graph = create_moa([*three(chat), chat("d")], Vote(schema=Range))
    state = await graph.ainvoke(QUESTION)
    assert json.loads(state["messages"][-1].text) == {"low": 5, "high": 9}
    assert "not valid" in chosen(state)["by"]


class Pair(TypedDict):
    x: int


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (lambda m: Vote(parse=str, schema=Pair), ValueError, "parse or schema"),
        (lambda m: Vote(parse="x"), TypeError, "function"),
        (lambda m: Vote(tie="last"), ValueError, "'first', 'shortest', 'longest'"),
        (lambda m: Vote(schema=Pair, tie=m), ValueError, "judge"),
        (lambda m: Rank(None), TypeError, "Rank"),
        (lambda m: SelfMoASeq(m, window=1), ValueError, "at least 2"),
        (lambda m: SelfMoASeq(7), TypeError, "must be a model"),
        (lambda m: DropoutAndVote(m, subsets=1), ValueError, "at least 2"),
        (lambda m: create_moa([m, m], DropoutAndVote(m, drop=2)), ValueError, "1 to 1"),
        (lambda m: create_moa([m], DropoutAndCluster(m)), ValueError, "two proposers"),
    ],
)
def test_what_makes_no_sense_is_refused(chat, make, kind, says):
    with pytest.raises(kind, match=says):
        make(chat("a"))


# --- analyse, then write -------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_the_writer_has_the_references_and_the_analysis(chat, server, mode):
    server.answers["analyst"] = "Consensus: it is Canberra."
    graph = create_moa(three(chat), Analyse(chat("agg"), analyst=chat("analyst")))
    state = await run(graph, mode, QUESTION)
    assert "Contradictions:" in server.of("analyst")[0].system
    assert "3. c: What" in server.of("analyst")[0].system
    system = server.of("agg")[0].system
    assert "3. c: What" in system
    assert system.endswith("Consensus: it is Canberra.")
    made = next(d for d in state["decisions"] if d["step"] == "analysis")
    assert made["texts"] == {"analysis": "Consensus: it is Canberra."}
    assert [n for n in graph.get_graph().nodes if "anal" in n] == ["analysis"]


async def test_without_an_analysis_the_answer_is_written_all_the_same(chat, server):
    graph = create_moa(three(chat), Analyse(chat("agg"), analyst=chat("analyst?status=400")))
    state = await graph.ainvoke(QUESTION)
    made = next(d for d in state["decisions"] if d["step"] == "analysis")
    assert "the server said 400" in made["error"]
    assert "Analysis:" not in server.of("agg")[0].system
    text = "".join([m.text async for m, _ in graph.astream(QUESTION, stream_mode="messages")])
    assert text == "agg: What is the capital of Australia?"


# --- Self-MoA-Seq --------------------------------------------------------------------------------


def samples_in(call) -> list[str]:
    lines = call.system.partition("Responses from models:")[2].strip().splitlines()
    return [line.partition(". ")[2] for line in lines]


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_forty_samples_go_through_a_window(chat, server, mode):
    sample = chat("s?unstable&size=300")
    server.answers["agg"] = "synthesis " * 200
    window = 6
    graph = create_moa([Proposer(sample, samples=40)], SelfMoASeq(chat("agg"), window=window))
    state = await run(graph, mode, QUESTION)
    calls = server.of("agg")
    assert len(calls) == 1 + -(-(40 - window) // (window - 1))
    contents = [p["content"] for p in state["proposals"]]
    longest = max(len(content.encode()) for content in contents)
    header = len(calls[0].system.partition("Responses from models:")[0])
    overhead = header + len("Responses from models:\n") + 8 * window + 100
    for call in calls:
        assert len(call.system.encode()) <= window * longest + overhead
    seen = {text for call in calls for text in samples_in(call)}
    assert set(contents) <= seen
    assert state["messages"][-1].text == server.answers["agg"]
    assert len(set(contents)) == 40


async def test_only_the_last_window_is_streamed_and_all_are_paid(chat, server):
    sample = chat("s?unstable")
    model = ChatMoA(
        graph=create_moa([Proposer(sample, samples=5)], SelfMoASeq(chat("agg"), window=2))
    )
    answer = None
    async for chunk in model.astream("Which?"):
        answer = chunk if answer is None else answer + chunk
    assert answer.text == "agg: Which?"
    assert len(server.of("agg")) == 4
    total = sum(p["usage"]["output_tokens"] for p in answer.response_metadata["moa"]["proposals"])
    assert answer.usage_metadata["output_tokens"] == total + 4 * 2


async def test_a_window_that_fails_is_asked_again_and_the_earlier_ones_are_not(chat, server):
    sample = chat("s?unstable")
    saver = InMemorySaver()
    replies = iter(["first", "second", RuntimeError("down"), "third", "fourth"])

    def writer(_):
        reply = next(replies)
        if isinstance(reply, Exception):
            raise reply
        return reply

    graph = create_moa(
        [Proposer(sample, samples=4)],
        SelfMoASeq(RunnableLambda(writer), window=2),
        checkpointer=saver,
    )
    thread = {"configurable": {"thread_id": "1"}}
    with pytest.raises(AggregationFailed, match="down"):
        await graph.ainvoke(QUESTION, thread)
    state = await graph.ainvoke(None, thread)
    assert state["messages"][-1].text == "third"
    assert len(server.of("s")) == 4


async def test_turns_begin_afresh(chat, server):
    graph = create_moa(
        [Proposer(chat("s?unstable"), samples=3)],
        SelfMoASeq(chat("agg"), window=2),
        checkpointer=InMemorySaver(),
    )
    thread = {"configurable": {"thread_id": "1"}}
    for turn in (1, 2, 3):
        state = await graph.ainvoke({"messages": f"Question {turn}"}, thread)
        assert state["messages"][-1].text == f"agg: Question {turn}"
        assert len(server.of("agg")) == 2 * turn


# --- aggregations of subsets ---------------------------------------------------------------------


async def test_each_aggregation_sees_a_subset_and_the_majority_wins(chat, server):
    names = [f"p{i}" for i in range(6)]
    server.answers |= {name: f"{name} says 42" for name in names}
    writer = chat("agg")
    graph = create_moa([chat(n) for n in names], DropoutAndVote(writer, subsets=5, seed=3))
    state = await graph.ainvoke(QUESTION)
    seen = [{n for n in names if f"{n} says" in call.system} for call in server.of("agg")]
    assert len(seen) == 5
    assert all(len(subset) == 4 for subset in seen)
    assert len({frozenset(subset) for subset in seen}) > 1
    assert [p["proposer"] for p in state["proposals"] if p["layer"] == 2] == [
        f"subset_{i}" for i in range(1, 6)
    ]
    assert chosen(state)["kept"] == [f"subset_{i}" for i in range(1, 6)]


async def test_a_falsehood_that_some_subsets_follow_is_outvoted(chat, server):
    """An aggregator that believes the liar wherever it sees him."""
    server.answers |= {f"p{i}": "Canberra" for i in range(5)} | {"liar": "Sydney!"}

    def gullible(messages):
        return "Sydney" if "Sydney!" in messages[0].text else "Canberra"

    proposers = [*(chat(f"p{i}") for i in range(5)), chat("liar")]
    writer = RunnableLambda(gullible)
    for answer in (DropoutAndVote(writer, drop=4), DropoutAndCluster(writer, drop=4)):
        state = await create_moa(proposers, answer).ainvoke(QUESTION)
        assert state["messages"][-1].text == "Canberra"


async def test_no_usable_proposals_end_the_run_for_every_answer(chat, server):
    bad = [chat("a?status=400"), chat("b?status=400"), chat("c?status=400")]
    for answer in (
        Rank(chat("judge")),
        Vote(),
        MostCentral(),
        Analyse(chat("agg")),
        SelfMoASeq(chat("agg")),
        DropoutAndVote(chat("agg")),
        DropoutAndCluster(chat("agg")),
    ):
        with pytest.raises(NotEnoughProposals):
            await create_moa(bad, answer).ainvoke(QUESTION)
    assert {call.label for call in server.calls} == {"a", "b", "c"}


# --- what readers found -----------------------------------------------------------------


class Aliased(BaseModel):
    first_name: str = Field(alias="firstName")


async def test_a_schema_with_aliases_is_voted_on_under_its_own_names(chat, server):
    server.answers |= dict.fromkeys("abc", '{"firstName": "Ann"}')
    state = await create_moa(three(chat), Vote(schema=Aliased)).ainvoke(QUESTION)
    assert json.loads(state["messages"][-1].text) == {"firstName": "Ann"}


@pytest.mark.parametrize(
    ("answers", "wins"),
    [
        ((".5", "5", "5."), "5"),
        (("[0, 1]", "(0, 1)", "(0, 1)"), "(0, 1)"),
        (("(42)", "1", "42"), "(42)"),
    ],
)
async def test_answers_that_differ_in_more_than_their_dress_are_different(
    chat, server, answers, wins
):
    server.answers |= dict(zip("abc", answers, strict=True))
    state = await create_moa(three(chat), Vote()).ainvoke(QUESTION)
    assert state["messages"][-1].text == wins


async def test_answers_of_any_type_can_be_counted(chat, server):
    state = await create_moa(three(chat), Vote(parse=lambda text: (1, [len(text)]))).ainvoke(
        QUESTION
    )
    assert len(chosen(state)["kept"]) == 3


async def test_a_judge_that_repeats_digits_talks_nonsense(chat, server):
    server.answers["judge"] = "1" * 5000
    state = await create_moa(three(chat), Rank(chat("judge"))).ainvoke(QUESTION)
    assert chosen(state)["by"] == "agreement"
    assert len(server.of("judge")) == 2


async def test_a_judge_that_hangs_ends_with_the_runs_time(chat, server):
    for answer in (
        Rank(chat("judge?hang")),
        Analyse(chat("agg"), analyst=chat("judge?hang")),
    ):
        state = await create_moa(three(chat), answer, limits=RunLimits(timeout=1.0)).ainvoke(
            QUESTION
        )
        assert any("its share of the run's 1.0 s" in (d["error"] or "") for d in state["decisions"])


async def test_an_analyst_cannot_pass_a_reference_to_the_writer(chat, server):
    graph = create_moa(
        three(chat),
        Analyse(chat("agg"), analyst=chat("analyst")),
        references=References(fenced=True),
    )
    await graph.ainvoke(QUESTION)
    codes = [
        re.search(r"code ([0-9a-f]{32})", server.of(n)[0].system)[1] for n in ("analyst", "agg")
    ]
    assert codes[0] != codes[1]
