"""Votes of readers for a proposal: in LangSmith if it is configured, else in files.

The files have the format of recorded answers: `moa eval pool FOLDER` reads them, with the reader's
choice as the right answer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from langsmith import Client
from langsmith.utils import get_env_var, get_tracer_project, tracing_is_enabled
from pydantic import BaseModel, ConfigDict, Field

from moa_graph.state import Proposal

FEEDBACK = "moa_reader_vote"
"""Key of the feedback in LangSmith."""
_ATTEMPTS = 2  # the reader waits
_QUESTIONS, _ANSWERS = "questions.jsonl", "answers_all_models.jsonl"
_lock = threading.Lock()


class Vote(BaseModel):
    """A reader's vote for the best proposal of a layer."""

    model_config = ConfigDict(extra="forbid")

    thread_id: UUID
    run_id: UUID
    layer: int = Field(ge=1)
    proposer: str


class AlreadyVoted(ValueError):
    """The proposals of this layer and run have a vote."""


def traces() -> bool:
    """Return whether runs are traced in LangSmith, so that votes can be kept there."""
    return bool(tracing_is_enabled() and get_env_var("API_KEY"))


def keep_in_langsmith(vote: Vote, proposals: Sequence[Proposal]) -> None:
    """Keep a vote as feedback on the run.

    Args:
        vote: The vote.
        proposals: The usable proposals of the layer.

    Raises:
        langsmith.utils.LangSmithError: If LangSmith does not take it.
    """
    chosen = _chosen(vote, proposals)
    client = Client(auto_batch_tracing=False)  # else it starts threads
    project = client.read_project(project_name=get_tracer_project())
    client.create_feedback(
        run_id=vote.run_id,
        session_id=project.id,
        key=FEEDBACK,
        value={
            "layer": vote.layer,
            "proposer": vote.proposer,
            "model": chosen["model"],
            "among": [p["proposer"] for p in proposals],
        },
        stop_after_attempt=_ATTEMPTS,
    )


def keep_in_files(vote: Vote, question: str, proposals: Sequence[Proposal], folder: Path) -> None:
    """Append a vote to the files of a folder.

    Args:
        vote: The vote.
        question: The question of the turn.
        proposals: The usable proposals of the layer.
        folder: Where the files are; it is created if need be.

    Raises:
        AlreadyVoted: If there is a vote for this layer of this run.
    """
    chosen = _chosen(vote, proposals)
    key = f"{vote.run_id}-{vote.layer}"
    right: dict[str, int] = {}
    said: dict[str, str] = {}
    for proposal in proposals:
        model = proposal["model"]
        wins = proposal is chosen
        right[model] = max(int(wins), right.get(model, 0))
        said[model] = proposal["proposer"] if wins or model not in said else said[model]
    with _lock:
        folder.mkdir(parents=True, exist_ok=True)
        if key in _ids(folder / _QUESTIONS):
            raise AlreadyVoted("This layer of the run has a vote already.")
        _append(folder / _QUESTIONS, {"id": key, "question": question, "gold": vote.proposer})
        _append(folder / _ANSWERS, {"id": key, "key": said, "ok": right})


def _chosen(vote: Vote, proposals: Sequence[Proposal]) -> Proposal:
    return next(p for p in proposals if p["proposer"] == vote.proposer)


def _ids(path: Path) -> set[str]:
    if not path.is_file():
        return set()
    with path.open(encoding="utf-8") as lines:
        return {json.loads(line)["id"] for line in lines if line.strip()}


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
