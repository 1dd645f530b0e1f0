"""Quotas of several processes that share their storage, and after a restart."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import httpx
import pytest
from langgraph_sdk.client import LangGraphClient
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from moa_graph.server.checks import quotas, writes
from moa_graph.server.checks.writes import Writes
from moa_graph.server.guard import USER
from moa_graph.server.settings import Settings

SMALL = Settings(max_threads=10, max_items=40, max_stored_bytes=2000)
USERS = ("alice", "bob")


class Storage:
    """What all processes share, and the routes of one of them; `counts` as LangGraph Server's."""

    def __init__(self, counts: bool) -> None:
        self.threads: dict[str, list[str]] = {user: [] for user in USERS}
        self.items: dict[str, dict[str, dict]] = {user: {} for user in USERS}
        self.reads = 0
        routes = [
            Route("/threads", self.create, methods=["POST"]),
            Route("/threads/search", self.search, methods=["POST"]),
            Route("/threads/{thread_id}", self.get, methods=["GET"]),
            Route("/store/items", self.put, methods=["PUT"]),
            Route("/store/items", self.delete, methods=["DELETE"]),
            Route("/store/items/search", self.list_items, methods=["POST"]),
        ]
        if counts:
            routes.insert(0, Route("/threads/count", self.count, methods=["POST"]))
        self.app = Starlette(routes=routes)

    def process(self) -> Writes:
        """A process that has just been started."""
        return Writes(self.app)

    async def create(self, request):
        await asyncio.sleep(0.001)
        own = self.threads[request.scope[USER]]
        own.append(f"thread {len(own)}")
        return JSONResponse({"thread_id": own[-1]})

    async def get(self, request):
        own = self.threads[request.scope[USER]]
        there = request.path_params["thread_id"] in own
        return JSONResponse({"metadata": {}} if there else {}, 200 if there else 404)

    async def count(self, request):
        temporary = (await request.json()).get("metadata")
        return JSONResponse(0 if temporary else len(self.threads[request.scope[USER]]))

    async def search(self, request):
        body = await request.json()
        own = [] if body.get("metadata") else self.threads[request.scope[USER]]
        return JSONResponse(own[body["offset"] : body["offset"] + body["limit"]])

    async def put(self, request):
        body = await request.json()
        self.items[request.scope[USER]][body["key"]] = body
        return Response(status_code=204)

    async def delete(self, request):
        del self.items[request.scope[USER]][(await request.json())["key"]]
        return Response(status_code=204)

    async def list_items(self, request):
        self.reads += 1
        body = await request.json()
        user = request.scope[USER]
        own = [
            {**item, "namespace": [user, *item["namespace"]]} for item in self.items[user].values()
        ]
        return JSONResponse({"items": own[body["offset"] : body["offset"] + body["limit"]]})


def client_of(app, user):
    async def known(scope, receive, send):
        await app({**scope, USER: user}, receive, send)

    transport = httpx.ASGITransport(app=known)
    return httpx.AsyncClient(transport=transport, base_url="http://server")


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(quotas, "SETTINGS", SMALL)
    monkeypatch.setattr(quotas, "_rooms", {})
    monkeypatch.setattr(
        writes,
        "Itself",
        lambda scope: SimpleNamespace(
            client=LangGraphClient(client_of(scope["app"], scope[USER])), headers={}
        ),
    )


@pytest.fixture(params=[True, False], ids=["counts", "lists"])
def storage(request):
    return Storage(request.param)


async def threads_at_once(storage, processes, user="alice", wanted=50):
    clients = [client_of(in_app(storage, process), user) for process in processes]
    sent = (clients[i % len(clients)].post("/threads", json={}) for i in range(wanted))
    return [response.status_code for response in await asyncio.gather(*sent)]


def in_app(storage, process):
    """The process, with the application in its scope as Starlette sets it."""

    async def app(scope, receive, send):
        await process({**scope, "app": storage.app}, receive, send)

    return app


async def test_one_process_never_exceeds_the_quota(storage):
    statuses = await threads_at_once(storage, [storage.process()])
    assert statuses.count(200) == len(storage.threads["alice"]) == SMALL.max_threads
    assert set(statuses) == {200, 403}


async def test_several_processes_exceed_it_by_less_than_one_each(storage):
    processes = [storage.process() for _ in range(3)]
    await threads_at_once(storage, processes)
    assert SMALL.max_threads <= len(storage.threads["alice"]) < SMALL.max_threads + len(processes)


async def test_a_restart_and_another_process_forget_nothing(storage):
    await threads_at_once(storage, [storage.process()])
    assert set(await threads_at_once(storage, [storage.process()], wanted=5)) == {403}
    storage.threads["alice"].pop()
    assert (await threads_at_once(storage, [storage.process()], wanted=3)).count(200) == 1
    assert set(await threads_at_once(storage, [storage.process()], "bob", wanted=3)) == {200}


async def put(client, key, **value):
    item = {"namespace": ["notes"], "key": key, "value": value}
    return (await client.put("/store/items", json=item)).status_code


async def test_items_are_counted_by_all_processes_together(storage, monkeypatch):
    processes = [storage.process() for _ in range(2)]
    clients = [client_of(in_app(storage, process), "alice") for process in processes]
    rooms = [{}, {}]
    for number in range(60):
        monkeypatch.setattr(quotas, "_rooms", rooms[number % 2])
        await put(clients[number % 2], f"{number}")
    assert len(storage.items["alice"]) == SMALL.max_items
    # Each of the first ones did not read what was there.
    assert storage.reads < 45
    monkeypatch.setattr(quotas, "_rooms", {})  # a restart
    assert await put(clients[0], "new") == 403
    assert await put(clients[0], "1", x=1) == 204
    assert (await clients[0].request("DELETE", "/store/items", json={"key": "1"})).is_success
    assert await put(clients[0], "new") == 204
    assert await put(clients[0], "newer") == 403


async def test_bytes_are_counted_too(storage):
    client = client_of(in_app(storage, storage.process()), "alice")
    assert await put(client, "a", x="y" * 1500) == 204
    assert await put(client, "b", x="y" * 1000) == 403
    assert await put(client, "a", x="z" * 1800) == 204
    assert await put(client, "c", x="y" * 3000) == 403
    assert await put(client_of(in_app(storage, storage.process()), "bob"), "b", x="y" * 1000) == 204


async def test_what_is_there_can_be_replaced_also_above_the_quota(storage, monkeypatch):
    client = client_of(in_app(storage, storage.process()), "alice")
    for number in range(4):
        assert await put(client, f"{number}", x="y" * 300) == 204
    monkeypatch.setattr(quotas, "SETTINGS", Settings(max_items=2, max_stored_bytes=500))
    monkeypatch.setattr(quotas, "_rooms", {})
    assert await put(client, "1", x="z" * 300) == 204
    assert await put(client, "1", x="z" * 301) == 403
    assert await put(client, "5") == 403
    assert await put(client, "1", x="z") == 204
