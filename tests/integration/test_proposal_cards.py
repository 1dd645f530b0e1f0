"""A JavaScript client shows a card for each proposal while the others are still at work."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from langgraph_sdk import get_sync_client

from tests.integration.clients.clients import npm_packages

CARDS = """
import { Client } from "@langchain/langgraph-sdk";

const [apiUrl, assistantId] = process.argv.slice(2);
const thread = new Client({ apiUrl }).threads.stream({ assistantId });
const started = Date.now();
const cards = [];
const reading = (async () => {
  for await (const { proposer, layer, status, content } of thread.extensions.proposals) {
    cards.push({ proposer, layer, status, content, after: Date.now() - started });
  }
})();
await thread.run.start({ input: { messages: [{ role: "user", content: "What is it?" }] } });
const state = await thread.output;
await reading;
console.log(JSON.stringify({ cards, messages: state.messages.length }));
process.exit(0);
"""


@pytest.mark.services
def test_cards_of_proposals(langgraph_server, server, tmp_path: Path):
    (tmp_path / "node_modules").symlink_to(npm_packages() / "node_modules")
    (tmp_path / "cards.mjs").write_text(CARDS)
    context = {"proposers": ["openai:a", "openai:b?latency=3"], "aggregator": "openai:agg"}
    client = get_sync_client(url=langgraph_server.url)
    assistant = client.assistants.create("mixture", context=context)["assistant_id"]
    result = subprocess.run(
        ["node", "cards.mjs", langgraph_server.url, assistant],
        cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    assert told["messages"] == 2
    first, second = told["cards"]
    assert (first["proposer"], first["layer"], first["status"]) == ("a", 1, "ok")
    assert first["content"] == "a: What is it?"
    assert first["after"] < second["after"]
