"""The turns of a conversation, read from the checkpoints of its thread."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.types import StateSnapshot

from moa_graph.building.compiled import MoAGraph
from moa_graph.cli.footer import Used, used_by
from moa_graph.nodes.plan import AGGREGATOR
from moa_graph.state import Decision, Proposal, merge_proposals


@dataclass(frozen=True)
class Turn:
    """One question of a conversation, and what came of it.

    Args:
        checkpoints: Checkpoints of its run, from the one before the question to the last.
    """

    checkpoints: list[StateSnapshot]

    @property
    def question(self) -> str:
        """The text of the question."""
        asked = [m for m in _messages(self.checkpoints[-1]) if isinstance(m, HumanMessage)]
        return asked[-1].text if asked else ""

    @property
    def answer(self) -> AIMessage | None:
        """The answer; None if there is none yet."""
        messages = _messages(self.checkpoints[-1])
        last = messages[-1] if messages else None
        return last if isinstance(last, AIMessage) else None

    @property
    def proposals(self) -> list[Proposal]:
        """Its proposals, including those of a run that was stopped."""
        before = [p.get("id") for p in _proposals(self.checkpoints[0])]
        found = [p for s in self.checkpoints for p in _proposals(s)]
        return merge_proposals([], [p for p in found if p.get("id") not in before])

    def before_answer(self, graph: MoAGraph) -> RunnableConfig | None:
        """Return the checkpoint from which only the aggregator is called; None if there is none."""
        if graph.builder.loops:  # the aggregator writes its answer in several steps
            return None
        found = [s.config for s in self.checkpoints if s.next == (AGGREGATOR,)]
        return found[-1] if found else None

    @property
    def before_question(self) -> RunnableConfig:
        """The checkpoint from which the question is asked anew."""
        return self.checkpoints[0].config


async def history_of(graph: MoAGraph, thread: RunnableConfig) -> list[StateSnapshot]:
    """Return all checkpoints of a thread, the latest first."""
    return [snapshot async for snapshot in graph.aget_state_history(thread)]


def turns_of(history: list[StateSnapshot]) -> list[Turn]:
    """Return the turns that lead to the latest checkpoint, from the first.

    Args:
        history: All checkpoints of the thread, the latest first. Those of answers that were
            replaced are left out.
    """
    turns: list[Turn] = []
    for snapshot in _leading_to_the_latest(history):
        if not turns or (snapshot.metadata or {}).get("source") == "input":
            turns.append(Turn([]))
        turns[-1].checkpoints.append(snapshot)
    return [
        turn
        for turn in turns
        if questions_in(turn.checkpoints[-1]) > questions_in(turn.checkpoints[0])
    ]


def questions_in(snapshot: StateSnapshot) -> int:
    """Return the number of questions that a checkpoint has."""
    return sum(isinstance(message, HumanMessage) for message in _messages(snapshot))


def used_in(history: Iterable[StateSnapshot]) -> list[Used]:
    """Return what all runs of a thread used, including answers that were replaced."""
    proposals: dict[Any, Proposal] = {}
    decisions: dict[str, Decision] = {}
    answers: dict[str | None, AIMessage] = {}
    for snapshot in history:
        proposals |= {p.get("id"): p for p in _proposals(snapshot)}
        decisions |= {json.dumps(d, sort_keys=True): d for d in _values(snapshot, "decisions")}
        answers |= {m.id: m for m in _messages(snapshot) if isinstance(m, AIMessage)}
    used = used_by(proposals.values(), decisions.values(), None)
    return used + [one for answer in answers.values() for one in used_by((), (), answer)]


def _leading_to_the_latest(history: list[StateSnapshot]) -> list[StateSnapshot]:
    by_id = {_id(snapshot.config): snapshot for snapshot in history}
    chain: list[StateSnapshot] = []
    current = history[0] if history else None
    while current is not None:
        chain.append(current)
        current = by_id.get(_id(current.parent_config))
    return chain[::-1]


def _id(config: RunnableConfig | None) -> str | None:
    return (config or {}).get("configurable", {}).get("checkpoint_id")


def _values(snapshot: StateSnapshot, key: str) -> Iterator[Any]:
    """Yield a state's records, and those of nodes that ended before the run was stopped."""
    yield from snapshot.values.get(key) or ()
    for task in snapshot.tasks:
        if isinstance(task.result, dict):
            yield from task.result.get(key) or ()


def _proposals(snapshot: StateSnapshot) -> Iterator[Proposal]:
    yield from _values(snapshot, "proposals")


def _messages(snapshot: StateSnapshot) -> list[AnyMessage]:
    return list(snapshot.values.get("messages") or ())
