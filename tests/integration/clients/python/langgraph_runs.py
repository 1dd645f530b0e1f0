"""The server's own API: LangGraph's SDK, and RemoteGraph."""

from __future__ import annotations

import json

from langgraph.pregel.remote import RemoteGraph
from langgraph_sdk import get_client
from serving import DATA_URL, FUNCTION, Client, Weather, search, serve


def of_user(content):
    return {"role": "user", "content": content}


class Runs(Client):
    def __init__(self, url, key):
        self._runs = get_client(url=url, api_key=key).runs

    async def _values(self, model, messages, **options):
        return await self._runs.wait(
            None, model, input={"messages": messages}, context={"aggregator_options": options}
        )

    async def _events(self, model, messages):
        async for part in self._runs.stream(
            None, model, input={"messages": messages}, on_disconnect="cancel",
            stream_mode=["messages-tuple", "values"],
        ):  # fmt: skip
            if part.event == "error":
                raise RuntimeError(part.data["message"])
            yield part.event.replace("messages-tuple", "messages"), part.data

    def _told(self, values):
        used = [
            values["messages"][-1],
            *({"usage_metadata": p["usage"]} for p in values["proposals"]),
        ]
        told = [part["usage_metadata"] for part in used]
        self.usage = tuple(
            sum(part[name] for part in told) for name in ("input_tokens", "output_tokens")
        )

    async def text(self, model, question):
        values = await self._values(model, [of_user(question)])
        self._told(values)
        return values["messages"][-1]["content"]

    async def stream(self, model, question):
        async for event, data in self._events(model, [of_user(question)]):
            if event == "messages" and data[1]["langgraph_node"] == "aggregator":
                yield data[0]["content"]
            elif event == "values":
                values = data
        self._told(values)

    async def tools(self, model, question):
        messages = [of_user(question)]
        tools = [{"type": "function", "function": FUNCTION}]
        while True:
            messages = (await self._values(model, messages, tools=tools))["messages"]
            calls = messages[-1].get("tool_calls")
            if not calls:
                return messages[-1]["content"]
            messages += [
                {"role": "tool", "tool_call_id": call["id"], "content": search(**call["args"])}
                for call in calls
            ]

    async def structured(self, model, question):
        schema = {"name": "weather", "schema": Weather.model_json_schema()}
        form = {"type": "json_schema", "json_schema": schema}
        values = await self._values(model, [of_user(question)], response_format=form)
        return json.loads(values["messages"][-1]["content"])

    async def images(self, model, question):
        image = {"type": "image_url", "image_url": {"url": DATA_URL}}
        content = [{"type": "text", "text": question}, image]
        return (await self._values(model, [of_user(content)]))["messages"][-1]["content"]


class Remote(Runs):
    def __init__(self, url, key):
        self._graph = lambda model: RemoteGraph(model, url=url, api_key=key)

    async def _values(self, model, messages, **options):
        return await self._graph(model).ainvoke(
            {"messages": messages}, context={"aggregator_options": options}
        )

    async def _events(self, model, messages):
        async for part in self._graph(model).astream(
            {"messages": messages}, stream_mode=["messages", "values"], on_disconnect="cancel"
        ):
            yield part.event, part.data


serve(lambda url, key, kind: {"sdk": Runs, "remote": Remote}[kind](url, key))
