"""Use LangChain's decision models as judges, if the installed langchain-core has them (1.8)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableConfig

if TYPE_CHECKING:
    from langchain_core.decisions import ClassifierResponse

_MODULE = "langchain_core.decisions"
_VERDICT = "verdict"  # id of a single question
_LIKELY = 0.5  # probability above which a question is answered with yes
_BEST = "Which of the numbered responses fits the instructions best?"
_YES = "Is the answer to the instructions yes?"
_NAMED = "Is the response with the number {number} one of those that the instructions ask for?"


def decides(model: Any) -> bool:
    """Return whether an object is a decision model."""
    # Importing the module takes a while; without it there is no decision model.
    module = sys.modules.get(_MODULE)
    return module is not None and isinstance(model, module.BaseDecisionModel)


class WritingJudge(Runnable[Sequence[BaseMessage], AIMessage]):
    """Adapter that returns the verdict of a decision model as text.

    Args:
        model: The decision model.
        numbers: Number of responses in the case.
        choose: Number of responses to name, the most probable first; 0 for those that the
            instructions ask for; None for yes or no.
    """

    def __init__(self, model: Runnable[Any, Any], numbers: int, choose: int | None) -> None:
        self._model = model
        self._numbers = [str(i) for i in range(1, numbers + 1)]
        self._choose = choose

    def invoke(
        self, input: Sequence[BaseMessage], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return the verdict on a case."""
        return self._written(self._model.invoke(self._request(input), config))

    async def ainvoke(
        self, input: Sequence[BaseMessage], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """Return the verdict on a case."""
        return self._written(await self._model.ainvoke(self._request(input), config))

    def _request(self, case: Sequence[BaseMessage]) -> dict[str, Any]:
        from langchain_core.decisions import Choice, Noul  # noqa: PLC0415 - in core 1.8

        questions: dict[str, Any]
        if self._choose is None:
            questions = {_VERDICT: Noul(instructions=_YES)}
        elif self._choose:
            labels = dict.fromkeys(self._numbers)
            questions = {_VERDICT: Choice(instructions=_BEST, criteria=labels)}
        else:
            questions = {n: Noul(instructions=_NAMED.format(number=n)) for n in self._numbers}
        return {"state": list(case), "questions": questions}

    def _written(self, response: ClassifierResponse) -> AIMessage:
        return AIMessage(
            self._verdict(response),
            usage_metadata=response.usage,
            response_metadata={"model_name": response.model},
        )

    def _verdict(self, response: ClassifierResponse) -> str:
        if self._choose is None:
            answer = response.nouls.get(_VERDICT)
            return "" if answer is None else "yes" if answer.noul > _LIKELY else "no"
        if not self._choose:
            named = [n for n, answer in response.nouls.items() if answer.noul > _LIKELY]
            return ", ".join(named) or "none"
        chosen = response.choices.get(_VERDICT)
        if chosen is None or chosen.choice not in self._numbers:
            return ""
        others = [label for label in self._numbers if label != chosen.choice]
        others.sort(key=lambda label: -chosen.probabilities.get(label, 0.0))
        return ", ".join([chosen.choice, *others][: self._choose])
