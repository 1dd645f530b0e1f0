"""A task of Inspect, and LangChain's chat models as its models."""

from __future__ import annotations

import sys
from typing import Any

from inspect_ai import Task, task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ChatMessage, GenerateConfig, ModelAPI, ModelOutput, modelapi
from inspect_ai.scorer import includes
from inspect_ai.solver import generate
from langchain.chat_models import init_chat_model
from langchain_core.messages import convert_to_messages

from moa_graph import ChatMoA, create_moa

CAPITALS = {"France": "Paris", "Italy": "Rome", "Spain": "Madrid", "Peru": "Lima"}


@task
def capitals() -> Task:
    """Four questions, of which an answer is right that names the capital."""
    samples = [
        Sample(input=f"Capital of {country}?", target=city, id=country)
        for country, city in CAPITALS.items()
    ]
    return Task(dataset=samples, solver=generate(), scorer=includes())


@modelapi(name="langchain")
class LangChainAPI(ModelAPI):
    """A chat model of LangChain's: `langchain/openai:NAME`, or `langchain/moa` for a mixture."""

    def __init__(self, model_name: str, **kwargs: Any) -> None:
        super().__init__(model_name, config=GenerateConfig())
        self._model = (
            ChatMoA(graph=create_moa(["openai:a", "openai:b"], "openai:agg"))
            if model_name == "moa"
            else init_chat_model(model_name)
        )

    async def generate(self, input: list[ChatMessage], *args: Any, **kwargs: Any) -> ModelOutput:
        messages = convert_to_messages([(message.role, message.text) for message in input])
        answer = await self._model.ainvoke(messages)
        return ModelOutput.from_content(self.model_name, answer.text)


if __name__ == "__main__":  # a script registers the provider before models are looked up
    name, folder = sys.argv[1:]
    (log,) = inspect_eval(capitals(), model=name, log_dir=folder, display="plain")
    sys.exit(log.status != "success")
