"""What a user with API keys may store on the server."""

from __future__ import annotations

import asyncio
import uuid

import httpx
import pytest

from moa_graph.server.checks.quotas import TEMPORARY
from moa_graph.server.checks.writes import check_of
from tests.integration.keyed import (
    INPUT,
    MIXTURE,
    MOST,
    MOST_ITEMS,
    MOST_METADATA,
    MOST_STORED,
    MOST_VERSIONS,
    client_of,
    http_of,
)

AT_ONCE = 50


async def refused(status: int, says: str, call) -> None:
    with pytest.raises(httpx.HTTPStatusError) as error:
        await call
    assert error.value.response.status_code == status, error.value.response.text
    assert says in error.value.response.text


async def at_once(client, method, path, bodies):
    """The statuses of requests at once, and what the refused ones say."""
    sent = (client.request(method, path, json=body) for body in bodies)
    responses = await asyncio.gather(*sent)
    said = {r.json()["detail"] for r in responses if r.is_error}
    return [r.status_code for r in responses], said


async def test_threads_have_a_quota_which_stateless_runs_do_not_use(guarded):
    full = f"This key has {MOST} threads; the maximum on this server is {MOST} (MOA_MAX_THREADS)"
    slow = {**MIXTURE, "proposers": ["openai:a?latency=1"]}
    async with client_of(guarded.url, "threads") as client, http_of(guarded.url, "threads") as http:
        first = (await client.threads.create())["thread_id"]
        running = asyncio.create_task(client.runs.wait(None, "mixture", input=INPUT, context=slow))
        await eventually_async(client.threads.count, 2)
        statuses, said = await at_once(http, "POST", "/threads", [{}] * AT_ONCE)
        assert statuses.count(200) == MOST - 1
        assert said == {f"{full}. Delete some."}
        new = str(uuid.uuid4())
        run = {"input": INPUT, "context": MIXTURE}
        start = {"id": 1, "method": "run.start", "params": {"assistant_id": "mixture", **run}}
        for call in (
            client.threads.create(),
            client.threads.create(thread_id=new),
            client.threads.create(metadata={TEMPORARY: True}),
            client.threads.copy(first),
            client.runs.create(new, "mixture", if_not_exists="create", **run),
            client.runs.create(None, "mixture", on_completion="keep", **run),
            client.runs.stream(None, "mixture", on_completion="keep", **run).__anext__(),
            client.runs.wait(None, "mixture", on_completion="keep", **run),
            client.runs.create_batch([{"assistant_id": "mixture", "on_completion": "keep", **run}]),
            client.http.post(f"/threads/{new}/commands", json=start),
        ):
            await refused(403, full, call)
        # What is there can be used, and what is deleted makes room.
        assert (await client.threads.create(thread_id=first, if_exists="do_nothing"))["thread_id"]
        await client.runs.wait(first, "mixture", if_not_exists="create", **run)
        await running
        await client.threads.delete(first)
        await client.threads.create()
        await refused(403, full, client.threads.create())
    async with client_of(guarded.url, "forger") as other:
        await other.threads.create()


async def eventually_async(count, expected):
    for _ in range(100):
        if await count() == expected:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"there are {await count()}, not {expected}")


async def test_nobody_can_say_that_a_thread_is_temporary(guarded):
    forged = {TEMPORARY: True}
    async with client_of(guarded.url, "forger") as forger:
        made = (await forger.threads.create(metadata=forged))["thread_id"]
        await forger.threads.update(made, metadata=forged)
        kept = await forger.runs.create(
            None,
            "mixture",
            input=INPUT,
            context=MIXTURE,
            on_completion="keep",
            metadata=forged,
            config={"metadata": forged},
            after_seconds=600,
        )
        assert await forger.threads.search(metadata=forged) == []
        waits = await forger.runs.create(
            None, "mixture", input=INPUT, context=MIXTURE, after_seconds=600
        )
        (temporary,) = await forger.threads.search(metadata=forged)
        assert temporary["thread_id"] == waits["thread_id"] != kept["thread_id"]
        await refused(409, "stateless run", forger.threads.copy(waits["thread_id"]))


async def test_assistants_have_a_quota_and_so_have_their_versions(guarded):
    full = f"This key has {MOST} assistants; the maximum on this server is {MOST} (MOA_MAX_ASSIST"
    new = {"graph_id": "mixture", "context": MIXTURE}
    async with (
        client_of(guarded.url, "assistants") as client,
        http_of(guarded.url, "assistants") as http,
    ):
        first = (await client.assistants.create("mixture", context=MIXTURE))["assistant_id"]
        for number in range(2, MOST_VERSIONS + 1):
            assert (await client.assistants.update(first, name="a"))["version"] == number
        await client.assistants.set_latest(first, 1)
        await refused(403, "MOA_MAX_VERSIONS", client.assistants.update(first, name="b"))
        statuses, said = await at_once(http, "POST", "/assistants", [new] * AT_ONCE)
        assert statuses.count(200) == MOST - 1
        assert len(said) == 1
        assert said.pop().startswith(full)
        again = {"assistant_id": first, "if_exists": "do_nothing", "context": MIXTURE}
        assert (await client.assistants.create("mixture", **again))["assistant_id"] == first
        await client.assistants.delete(first)
        await client.assistants.create("mixture", context=MIXTURE)
        await refused(403, full, client.assistants.create("mixture", context=MIXTURE))


async def test_items_have_a_quota_in_number_and_in_bytes(guarded):
    items = [{"namespace": ["notes"], "key": str(i), "value": {"x": 1}} for i in range(AT_ONCE)]
    async with client_of(guarded.url, "items") as client, http_of(guarded.url, "items") as http:
        statuses, said = await at_once(http, "PUT", "/store/items", items)
        assert statuses.count(204) == MOST_ITEMS
        assert len(said) == 1
        assert f"{MOST_ITEMS} items in the store" in (text := said.pop())
        assert "(MOA_MAX_ITEMS)" in text
        stored = (await client.store.search_items((), limit=100))["items"]
        assert len(stored) == MOST_ITEMS
        key = stored[0]["key"]
        await client.store.put_item(["notes"], key, {"x": 2})  # it replaces one
        await refused(403, "MOA_MAX_ITEMS", client.store.put_item(["others"], key, {"x": 2}))
        await client.store.delete_item(["notes"], key)
        long = {"x": "y" * (MOST_STORED - 1000)}
        await client.store.put_item(["notes"], key, long)
        await refused(
            403, "MOA_MAX_STORED_BYTES", client.store.put_item(["notes"], stored[1]["key"], long)
        )
        await client.store.put_item(["notes"], key, long)
    async with client_of(guarded.url, "forger") as other:
        await other.store.put_item(["notes"], "a", long)


async def test_the_settings_of_an_assistant_have_a_bound(guarded):
    long = {**MIXTURE, "proposers": [{"model": "openai:a", "prompt": "x" * 99_000}]}
    much = {**MIXTURE, "proposers": [{"model": "openai:a", "prompt": "x" * 101_000}]}
    async with client_of(guarded.url, "metadata") as client:
        which = (await client.assistants.create("mixture", context=long))["assistant_id"]
        for call in (
            client.assistants.create("mixture", context=much),
            client.assistants.create("mixture", config={"configurable": much}),
            client.assistants.update(which, context=much),
        ):
            await refused(413, "MOA_MAX_MIXTURE", call)


async def test_metadata_has_a_bound_on_every_way(guarded):
    half, much = {"a": "x" * (MOST_METADATA // 2)}, {"b": "x" * MOST_METADATA}
    run = {"input": INPUT, "context": MIXTURE}
    async with client_of(guarded.url, "metadata") as client:
        thread = (await client.threads.create(metadata=half))["thread_id"]
        assistant = await client.assistants.create("mixture", context=MIXTURE, metadata=half)
        which = assistant["assistant_id"]
        more = {"b": half["a"]}
        for call in (
            client.threads.create(metadata=much),
            client.threads.update(thread, metadata=much),
            client.threads.update(thread, metadata=more),
            client.assistants.create("mixture", metadata=much),
            client.assistants.create("mixture", name=much["b"]),
            client.assistants.create("mixture", description=much["b"]),
            client.assistants.update(which, metadata=more),
            client.assistants.update(which, name=much["b"]),
            client.assistants.update(which, description=much["b"]),
            client.runs.create(thread, "mixture", metadata=much, **run),
            client.runs.create(None, "mixture", metadata=much, **run),
            client.runs.create(None, "mixture", config={"metadata": much}, **run),
            client.runs.create_batch([{"assistant_id": "mixture", "metadata": much, **run}]),
        ):
            await refused(413, "MOA_MAX_METADATA", call)
        await client.threads.update(thread, metadata={"a": "short"})
        await client.threads.update(thread, metadata=more)
        assert (await client.threads.get(thread))["metadata"]["b"] == more["b"]


STORE_NOTHING = {
    "POST /assistants/search", "POST /assistants/count", "POST /assistants/{assistant_id}/versions",
    "POST /assistants/{assistant_id}/latest", "POST /threads/search", "POST /threads/count",
    "POST /threads/prune", "POST /threads/{thread_id}/stream/events",
    "POST /threads/{thread_id}/runs/{run_id}/cancel", "POST /runs/cancel",
    "POST /store/items/search", "POST /store/namespaces",
    # Schedules are refused to users with API keys.
    "POST /runs/crons", "POST /runs/crons/search", "POST /runs/crons/count",
    "PATCH /runs/crons/{cron_id}", "POST /threads/{thread_id}/runs/crons",
    # Their runs are requests to the other routes; the page only renders Markdown.
    "POST /v1/chat/completions", "POST /v1/messages", "POST /v1/responses", "POST /moa/markdown",
    # Not offered to users with API keys.
    "POST /mcp/", "POST /a2a/{assistant_id}",
}  # fmt: skip


def test_every_route_that_could_store_something_is_known(guarded):
    paths = httpx.get(f"{guarded.url}/openapi.json").json()["paths"]
    routes = {
        f"{method.upper()} {path}"
        for path, methods in paths.items()
        for method in methods
        if method in ("post", "put", "patch")
    }
    assert routes
    checked = {route for route in routes if check_of(scope_of(route)) is not None}
    assert not [route for route in checked & STORE_NOTHING if check_of(scope_of(route))[0]]
    unknown = routes - checked - STORE_NOTHING
    assert not unknown, "Does a request to it store something? Then it has a quota."


def scope_of(route):
    method, path = route.split()
    return {"type": "http", "method": method, "path": path}
