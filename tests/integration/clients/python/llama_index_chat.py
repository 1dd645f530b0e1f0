"""LlamaIndex: OpenAILike."""

from __future__ import annotations

import base64

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from serving import PNG, Client, Weather, search, serve


class LlamaIndex(Client):
    def __init__(self, url, key):
        self._model = lambda model, **given: OpenAILike(
            model=model, api_base=f"{url}/v1", api_key=key, is_chat_model=True,
            is_function_calling_model=True, should_use_structured_outputs=True,
            # By default, it repeats all requests that failed with a status of 500.
            max_retries=0, **given,
        )  # fmt: skip

    def text(self, model, question):
        told = self._model(model).chat([ChatMessage(question)])
        usage = told.raw.usage
        self.usage = (usage.prompt_tokens, usage.completion_tokens)
        return told.message.content

    async def stream(self, model, question):
        options = {"stream_options": {"include_usage": True}}
        llm = self._model(model, additional_kwargs=options)
        async for told in await llm.astream_chat([ChatMessage(question)]):
            if usage := told.raw.usage:
                self.usage = (usage.prompt_tokens, usage.completion_tokens)
            yield told.delta

    def tools(self, model, question):
        tool = FunctionTool.from_defaults(search)
        llm, messages = self._model(model), [ChatMessage(question)]
        while True:
            told = llm.chat_with_tools(
                [tool], chat_history=messages, allow_parallel_tool_calls=True
            )
            messages.append(told.message)
            calls = llm.get_tool_calls_from_response(told, error_on_no_tool_call=False)
            if not calls:
                return told.message.content
            for call in calls:
                result = tool(**call.tool_kwargs).content
                about = {"tool_call_id": call.tool_id}
                messages.append(ChatMessage(result, role="tool", additional_kwargs=about))

    def structured(self, model, question):
        return self._model(model).as_structured_llm(Weather).complete(question).raw

    def images(self, model, question):
        blocks = [
            TextBlock(text=question),
            ImageBlock(image=base64.b64decode(PNG), image_mimetype="image/png"),
        ]
        return self._model(model).chat([ChatMessage(blocks=blocks)]).message.content


serve(LlamaIndex)
