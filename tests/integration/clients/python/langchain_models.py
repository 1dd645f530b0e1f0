"""LangChain's chat models: ChatOpenAI with either API, and ChatAnthropic."""

from __future__ import annotations

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from serving import DATA_URL, Client, Weather, search, serve

TOOL = tool(search)


def chat_openai(url, key, model, **given):
    return ChatOpenAI(model=model, base_url=f"{url}/v1", api_key=key, stream_usage=True, **given)


def chat_anthropic(url, key, model):
    return ChatAnthropic(model=model, base_url=url, api_key=key, max_tokens=1000)


KINDS = {
    "chat": chat_openai,
    "responses": lambda *about: chat_openai(*about, use_responses_api=True),
    "messages": chat_anthropic,
}


class ChatModel(Client):
    def __init__(self, url, key, kind):
        self._model = lambda model: KINDS[kind](url, key, model)

    def _told(self, message):
        if message.usage_metadata:
            told = message.usage_metadata
            self.usage = (told["input_tokens"], told["output_tokens"])

    def text(self, model, question):
        told = self._model(model).invoke(question)
        self._told(told)
        return told.text

    async def stream(self, model, question):
        whole = None
        async for chunk in self._model(model).astream(question):
            whole = chunk if whole is None else whole + chunk
            yield chunk.text
        self._told(whole)

    def tools(self, model, question):
        bound = self._model(model).bind_tools([TOOL])
        messages = [HumanMessage(question)]
        while True:
            told = bound.invoke(messages)
            if not told.tool_calls:
                return told.text
            messages += [told, *(TOOL.invoke(call) for call in told.tool_calls)]

    def structured(self, model, question):
        return self._model(model).with_structured_output(Weather).invoke(question)

    def images(self, model, question):
        image = {"type": "image_url", "image_url": {"url": DATA_URL}}
        content = [{"type": "text", "text": question}, image]
        return self._model(model).invoke([HumanMessage(content)]).text


serve(ChatModel)
