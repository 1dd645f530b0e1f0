"""The clients, how their scripts are started, and what they do not have."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.integration.environments import environment, node_packages

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Client:
    """A client.

    Args:
        name: Its name, and that of its package.
        api: The API that it uses.
        script: The file of its script.
        kind: Which of the script's clients, if it has several.
        place: Where its package is installed: `"here"` for the tests' own environment.
        without: Features that it does not have, and why.
        notes: What is to know about a feature.
    """

    name: str
    api: str
    script: str
    kind: str = ""
    place: str = "here"
    without: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Its name and API, which no other client has."""
        return f"{self.name}: {self.api}"


PACKAGES = {
    "clients": (
        "litellm>=1.110",
        "llm>=0.36",
        "openai-agents>=0.24",
        "pydantic-ai-slim[openai,anthropic]>=2",
    ),
    # These do not go with the newest openai.
    "clients-older": ("instructor>=1.17", "llama-index-llms-openai-like>=0.8"),
}


def npm_packages() -> Path:
    """The folder with the packages of npm, installed on first use."""
    return node_packages("clients-npm", HERE / "package.json")


def installed(place: str) -> Path:
    """Return the folder or the program of a place; what it needs is installed on first use."""
    if place == "npm":
        return npm_packages()
    if place == "here":
        return Path(sys.executable)
    return environment(place, *PACKAGES[place]) / "python"


def start(place: str, file: str) -> list[str]:
    """Return the program and the path of a script."""
    program = installed(place)
    if place == "npm":
        # Node looks for packages beside the script.
        shutil.copytree(HERE / "node", program, dirs_exist_ok=True)
        return ["node", str(program / file)]
    return [str(program), str(HERE / "python" / file)]


CHAT, RESPONSES, MESSAGES, RUNS = "Chat Completions", "Responses", "Messages", "LangGraph's API"
_NO_RETRIES = (
    "with `{}`; by default it repeats a failed run {} times, because of its status 502, and ignores "
    "the header that tells clients not to"
)
_ONLY_STRUCTURED = "Instructor asks for structured answers, and runs no tools"
_INPUT_AT_THE_START = (
    "it takes the tokens of the input from the start of a stream, when those of a mixture are not "
    "known"
)

CLIENTS = [
    Client("curl", RESPONSES, "curl_command.py"),
    Client("httpx", CHAT, "httpx_sse.py"),
    Client("openai", CHAT, "openai_chat.py"),
    Client("openai", RESPONSES, "openai_responses.py"),
    Client("anthropic", MESSAGES, "anthropic_messages.py"),
    Client("langchain-openai", CHAT, "langchain_models.py", "chat"),
    Client("langchain-openai", RESPONSES, "langchain_models.py", "responses"),
    Client("langchain-anthropic", MESSAGES, "langchain_models.py", "messages"),
    Client("langgraph-sdk", RUNS, "langgraph_runs.py", "sdk"),
    Client("langgraph, RemoteGraph", RUNS, "langgraph_runs.py", "remote"),
    Client("openai-agents", RESPONSES, "openai_agents.py", "responses", place="clients"),
    Client("openai-agents", CHAT, "openai_agents.py", "chat", place="clients"),
    Client("litellm", CHAT, "litellm_models.py", "openai", place="clients"),
    Client("litellm", MESSAGES, "litellm_models.py", "anthropic", place="clients"),
    Client("pydantic-ai", CHAT, "pydantic_ai_agents.py", "chat", place="clients"),
    Client("pydantic-ai", RESPONSES, "pydantic_ai_agents.py", "responses", place="clients"),
    Client("pydantic-ai", MESSAGES, "pydantic_ai_agents.py", "messages", place="clients"),
    Client(
        "instructor", CHAT, "instructor_models.py", place="clients-older", without={"tools": _ONLY_STRUCTURED}
    ),
    Client("llm (command)", CHAT, "llm_command.py", place="clients"),
    Client(
        "llama-index-llms-openai-like", CHAT, "llama_index_chat.py", place="clients-older",
        notes={"errors": _NO_RETRIES.format("max_retries=0", "two")},
    ),
    Client("openai (npm)", CHAT, "openai_chat.mjs", place="npm"),
    Client("openai (npm)", RESPONSES, "openai_responses.mjs", place="npm"),
    Client("@anthropic-ai/sdk (npm)", MESSAGES, "anthropic_messages.mjs", place="npm"),
    *(
        Client(
            name, api, "ai_sdk.mjs", provider, place="npm",
            notes={"errors": _NO_RETRIES.format("maxRetries: 0", "two")},
        )
        for name, api, provider in (
            ("ai with @ai-sdk/openai (npm)", RESPONSES, "responses"),
            ("ai with @ai-sdk/openai (npm)", CHAT, "chat"),
            ("ai with @ai-sdk/openai-compatible (npm)", CHAT, "compatible"),
            ("ai with @ai-sdk/anthropic (npm)", MESSAGES, "messages"),
        )
    ),
    *(
        Client(
            name, api, "langchain_models.mjs", kind, place="npm", without=without,
            notes={"errors": _NO_RETRIES.format("maxRetries: 0", "six")},
        )
        for name, api, kind, without in (
            ("@langchain/openai (npm)", CHAT, "chat", {}),
            ("@langchain/openai (npm)", RESPONSES, "responses", {}),
            (
                "@langchain/anthropic (npm)", MESSAGES, "messages",
                {"streamed usage": _INPUT_AT_THE_START},
            ),
        )
    ),
    Client("@langchain/langgraph-sdk (npm)", RUNS, "langgraph_runs.mjs", place="npm"),
    Client("@openai/agents (npm)", RESPONSES, "openai_agents.mjs", place="npm"),
]  # fmt: skip
"""The rows of the table."""
