from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_openai import ChatOpenAI
from langgraph.checkpoint.memory import InMemorySaver

from moa_graph import ChatMoA, Layer, Proposer, References, create_moa
from moa_graph.calling.conversation import conversation_for, plain
from moa_graph.strategies import Analyse, JudgedAgreement, PeerReview, Rank, TopK, Vote
from tests.mock_openai import completion, mock_openai, refusal

FOREIGN = {  # by provider, an answer with what it alone understands
    "Anthropic, server tool": [
        {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "x"}},
        {"type": "web_search_tool_result", "tool_use_id": "s1", "content": []},
        {"type": "text", "text": "4", "citations": [{"type": "web_search_result_location"}]},
    ],
    "Anthropic, redacted thinking": [
        {"type": "redacted_thinking", "data": "xyz"},
        {"type": "thinking", "thinking": "5?", "signature": "xyz"},
        {"type": "text", "text": "4"},
    ],
    "OpenAI, web search": [
        {"type": "web_search_call", "id": "ws", "status": "completed"},
        {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "xyz"},
        {"type": "text", "text": "4", "annotations": [{"type": "url_citation"}], "id": "msg"},
    ],
    "Gemini, code": [
        {"type": "executable_code", "executable_code": "print(4)", "language": "PYTHON"},
        {"type": "code_execution_result", "code_execution_result": "4", "outcome": 1},
        {"type": "text", "text": "4", "extras": {"signature": "xyz"}},
    ],
    "LangChain, server tool": [
        {"type": "server_tool_call", "id": "s", "name": "search", "args": {}},
        {"type": "server_tool_result", "tool_call_id": "s", "status": "success", "output": "xyz"},
        {"type": "non_standard", "value": {"xyz": 1}},
        {"type": "text", "text": "4"},
    ],
    "Bedrock, guard content": [
        {"type": "guard_content", "text": "xyz"},
        {"type": "reasoning_content", "reasoning_content": {"signature": "xyz"}},
        {"type": "text", "text": "4"},
    ],
}
OPENAI_TAKES = {"text", "image_url", "input_audio", "file", "refusal"}


def openai(sent: list[Any]) -> ChatOpenAI:
    """OpenAI's API as far as it refuses blocks and empty messages."""

    def serve(body: dict[str, Any], size: int) -> httpx.Response:
        messages = body["messages"]
        sent.append(messages)
        lists = [m["content"] for m in messages if isinstance(m["content"], list)]
        bad = {block["type"] for blocks in lists for block in blocks} - OPENAI_TAKES
        if bad or not all(m["content"] or m.get("tool_calls") for m in messages):
            return refusal(f"Invalid value: {bad}")
        return completion("fine")

    return mock_openai(serve)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("provider", FOREIGN)
async def test_what_one_provider_understands_reaches_others_as_text(provider, mode):
    sent: list[Any] = []
    read: list[Any] = []
    said = iter([AIMessage(FOREIGN[provider]), AIMessage("Yes.")])

    class Writer(GenericFakeChatModel):
        def _generate(self, messages, *args, **kwargs):
            read.append(messages)
            return super()._generate(messages, *args, **kwargs)

    moa = create_moa(
        [openai(sent), openai(sent)], Writer(messages=said), checkpointer=InMemorySaver()
    )
    thread: Any = {"configurable": {"thread_id": "1"}}
    for question, answer in (("2+2?", "4"), ("Sure?", "Yes.")):
        given = {"messages": question}
        state = moa.invoke(given, thread) if mode == "sync" else await moa.ainvoke(given, thread)
        assert state["messages"][-1].text == answer
        assert [p["status"] for p in state["proposals"]] == ["ok", "ok"]
    assert "xyz" not in str(sent)
    assert [m["content"] for m in sent[-1]] == ["2+2?", "4", "Sure?"]
    # Its own model has it all back.
    assert next(m for m in read[-1] if isinstance(m, AIMessage)).content == FOREIGN[provider]


@pytest.mark.parametrize("provider", FOREIGN)
def test_an_answer_becomes_plain(provider):
    message = AIMessage(
        FOREIGN[provider],
        additional_kwargs={"reasoning_content": "xyz", "__gemini_signatures__": "xyz"},
        tool_calls=[{"name": "f", "args": {}, "id": "1"}],
        response_metadata={"model_provider": "someone", "id": "resp_xyz"},
    )
    read = plain(message)
    assert read.content == "4"
    assert read.tool_calls == message.tool_calls
    assert "xyz" not in str(read)


@pytest.mark.parametrize(
    "block",
    [
        {
            "type": "search_result",
            "source": "http://x",
            "title": "T",
            "content": [{"text": "TEXT"}],
        },
        {"type": "document", "source": {"type": "text", "data": "TEXT"}, "title": "T"},
        {"type": "tool_reference", "tool_name": "TEXT", "text": "TEXT"},
        {"type": "text", "text": "TEXT", "cache_control": {"type": "ephemeral"}},
    ],
    ids=lambda block: block["type"],
)
@pytest.mark.parametrize("place", ["question", "result"])
async def test_foreign_blocks_of_questions_and_tools_reach_others_as_text(place, block):
    sent: list[Any] = []
    moa = create_moa([openai(sent)], openai(sent))
    question: list[Any] = [HumanMessage([block] if place == "question" else "hi")]
    if place == "result":
        call = AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}])
        question += [call, ToolMessage([block], tool_call_id="1")]
    await moa.ainvoke({"messages": question})
    assert all("TEXT" in str(messages) for messages in sent)
    assert "cache_control" not in str(sent)


def test_a_placeholder_and_a_variable_have_the_question_once():
    seen: list[Any] = []
    prompt = ChatPromptTemplate(
        [("system", "OWN"), ("placeholder", "{history}"), ("human", "{input}")]
    )
    moa = create_moa([listening([])], prompt | listening(seen))
    moa.invoke({"messages": [HumanMessage("one"), AIMessage("two"), HumanMessage("QUESTION")]})
    texts = [m.text for m in seen[0].to_messages()]
    assert [text.partition("\n")[0] for text in texts] == ["OWN", "one", "two", "QUESTION"]


@pytest.mark.parametrize(
    ("author", "reader", "own"),
    [
        ("openai", "openai", True),
        ("anthropic", "openai", False),
        ("mistralai", "mistral", True),
        ("bedrock_converse", "amazon_bedrock", True),
    ],
)
def test_an_answer_is_known_as_a_models_own(author, reader, own):
    class Reader(GenericFakeChatModel):
        def _get_ls_params(self, stop=None, **kwargs):
            return {"ls_provider": reader}

    blocks = [
        {"type": "thinking", "thinking": "5?", "signature": "xyz"},
        {"type": "text", "text": "4"},
    ]
    message = AIMessage(blocks, response_metadata={"model_provider": author})
    (read,) = conversation_for(Reader(messages=iter([])), [message], own=True)
    assert (read.content == blocks) is own
    (read,) = conversation_for(Reader(messages=iter([])), [message])
    assert read.content == "4"


def test_pictures_and_plain_answers_stay():
    picture = {"type": "image", "url": "http://x/y.png"}
    assert plain(AIMessage([{"type": "text", "text": "4"}, picture])).content == [
        {"type": "text", "text": "4"},
        picture,
    ]
    message = AIMessage("4")
    assert plain(message) is message


def test_an_answer_without_text_is_not_sent_empty():
    blocks = [{"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}]
    assert plain(AIMessage(blocks)).content == "[used: web_search]"
    assert plain(AIMessage([{"type": "thinking", "thinking": "5?"}])).content


async def test_reasoning_in_the_history_reaches_no_proposer():
    sent: list[Any] = []
    moa = create_moa([openai(sent)], openai(sent))
    history = [HumanMessage("2+2?"), AIMessage("<think>SECRET</think>4"), HumanMessage("Sure?")]
    await moa.ainvoke({"messages": history})
    assert "SECRET" not in str(sent[0])


# --- one system message, and first -------------------------------------------------------------

CONVERSATIONS = {
    "a question": [HumanMessage("hi")],
    "a system message first": [SystemMessage("Be kind."), HumanMessage("hi")],
    "two of them": [SystemMessage("Be kind."), SystemMessage("Be brief."), HumanMessage("hi")],
    "one in the middle": [HumanMessage("hi"), SystemMessage("Be kind."), HumanMessage("again")],
    "one at the end": [HumanMessage("hi"), AIMessage("yes"), HumanMessage("a"), SystemMessage("b")],
    "blocks": [SystemMessage([{"type": "text", "text": "Be kind."}]), HumanMessage("hi")],
    "tools": [
        HumanMessage("hi"),
        AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
        ToolMessage("x", tool_call_id="1"),
    ],
}


def listening(seen: list[Any], said: str = "1") -> Any:
    def answer(messages: list[Any]) -> AIMessage:
        seen.append(messages)
        return AIMessage(said)

    return RunnableLambda(answer)


BUILDS = {
    "layers": lambda model: create_moa([Proposer(model, prompt="ROLE")], model, layers=3),
    "rank": lambda model: create_moa([model, model], Rank(model)),
    "vote": lambda model: create_moa([model, model], Vote(tie=model)),
    "analyse": lambda model: create_moa([model, model], Analyse(model)),
    "peer review": lambda model: create_moa([model] * 3, PeerReview(model, top=2)),
    "select": lambda model: create_moa(
        Layer([model] * 3, select=TopK(1, judge=model)), model, layers=3
    ),
    "until": lambda model: create_moa(
        Layer([model] * 2, until=JudgedAgreement(model)), model, layers=3
    ),
    "inside": lambda model: create_moa(
        [ChatMoA(graph=create_moa([model], model))], model, layers=3
    ),
}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("given", CONVERSATIONS)
def test_what_is_added_is_one_system_message_and_first(given, build):
    seen: list[Any] = []
    BUILDS[build](listening(seen)).invoke({"messages": CONVERSATIONS[given]})
    for messages in seen:
        added = any("esponses" in m.text or "ROLE" in m.text for m in messages)
        systems = [i for i, m in enumerate(messages) if isinstance(m, SystemMessage)]
        if added:
            # After a tool's result, references stand behind the question.
            assert systems == [0] or (given == "tools" and not systems)


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("kind", ["agent", "prompt", "fallback", "prompt with a variable"])
def test_a_model_with_a_prompt_of_its_own_gets_no_second_one(kind, build):
    seen: list[Any] = []

    class Listening(GenericFakeChatModel):
        def _generate(self, messages, *args, **kwargs):
            seen.append(messages)
            return super()._generate(messages, *args, **kwargs)

    chat = Listening(messages=iter([AIMessage("1") for _ in range(99)]))
    prompt = ChatPromptTemplate([("system", "OWN"), ("placeholder", "{messages}")])
    variable = ChatPromptTemplate([("system", "OWN"), ("human", "{question}")])
    model = {
        "agent": lambda: create_agent(chat, system_prompt="OWN"),
        "prompt": lambda: prompt | chat,
        "fallback": lambda: (prompt | chat).with_fallbacks([create_agent(chat)]),
        "prompt with a variable": lambda: variable | chat,
    }[kind]()
    BUILDS[build](model).invoke({"messages": "QUESTION"})
    assert seen
    for messages in seen:
        systems = [m for m in messages if isinstance(m, SystemMessage)]
        assert [m.text for m in systems] == ["OWN"]
        assert messages[0] is systems[0]
        assert any("QUESTION" in m.text for m in messages if isinstance(m, HumanMessage))


# --- text that cannot be UTF-8 ------------------------------------------------------------------

HALF = "half \ud83d"


@pytest.mark.parametrize(
    "given",
    [
        [HumanMessage(HALF)],
        [HumanMessage([{"type": "text", "text": HALF}])],
        [SystemMessage(HALF), HumanMessage("hi")],
        [HumanMessage("hi"), AIMessage(HALF), HumanMessage("again")],
        [HumanMessage("hi", name=None, additional_kwargs={"x": HALF})],
    ],
    ids=["question", "block", "system", "answer", "kwargs"],
)
@pytest.mark.parametrize("build", BUILDS)
def test_a_conversation_that_cannot_be_utf8_reaches_models_repaired(given, build):
    seen: list[Any] = []
    BUILDS[build](listening(seen, HALF)).invoke({"messages": given})
    for messages in seen:
        json.dumps([m.model_dump() for m in messages], ensure_ascii=False).encode()


def test_prompts_of_ones_own_are_repaired_too():
    seen: list[Any] = []
    model = listening(seen)
    moa = create_moa([Proposer(model, prompt=HALF)], model, references=References(prompt=HALF))
    moa.invoke({"messages": "hi"}, context={"aggregation_prompt": f"{HALF}!"})
    assert [messages[0].text.split("\n")[0] for messages in seen] == ["half �", "half �!"]
