"""The turn of an agent to which a call of `ChatMoA` belongs, and the record in its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from moa_graph.calling.owner import on_server, thread_in
from moa_graph.calling.parent_run import call_config
from moa_graph.calling.turn import (
    VERSION,
    Consult,
    Turn,
    digest,
    panels_before,
    uses_tools_since_question,
    wants_panel,
)
from moa_graph.context import MoAContext
from moa_graph.state import AGGREGATOR_RECORD, MoAState, decisions_of

_SCHEMA = "ls_structured_output_format"  # LangChain's mark of a call for structured output


@dataclass(frozen=True)
class Consulting:
    """When `ChatMoA` asks its proposers.

    Args:
        consult: As in `ChatMoA`.
        keep_references: As in `ChatMoA`.
    """

    consult: Consult
    _: KW_ONLY
    keep_references: bool = False

    def turn(
        self,
        mixture: str,
        messages: Sequence[BaseMessage],
        settings: MoAContext,
        options: Mapping[str, Any],
    ) -> Turn | None:
        """Return the turn to which a call belongs; None if it asks the proposers in any case.

        Args:
            mixture: Fingerprint of the graph.
            messages: Messages of the call.
            settings: Settings of the run.
            options: Options of the call, such as its tools.
        """
        if self.consult == "always":
            return None
        ask = wants_panel(self.consult, messages)
        acts = bool(options.get("tools")) and _SCHEMA not in options
        if ask is None and not (acts or uses_tools_since_question(messages)):
            return None
        around = call_config()
        trusted = not on_server(around)
        turn = Turn.of(
            digest([mixture, settings.for_proposers]),
            messages,
            ask=ask,
            thread=thread_in(around),
            trusted=trusted,
        )
        if self.keep_references and trusted:
            turn.shown_before = panels_before(messages, turn.mixture)
        return turn


def record_of(
    turn: Turn | None, aggregator: str, message: AIMessage, state: MoAState
) -> dict[str, Any]:
    """Return the value of `response_metadata["moa"]` for a finished run.

    Args:
        turn: The turn of the call, if it belongs to one.
        aggregator: Name of the aggregator.
        message: The answer.
        state: Last state of the run.
    """
    how = message.response_metadata.get(AGGREGATOR_RECORD, {})
    asked = turn is None or turn.source == "asked"
    record: dict[str, Any] = {
        "version": VERSION,
        **(turn.record() if turn else {"source": "asked"}),
        "proposals": state["proposals"] if asked else [],
        "aggregator": {"model": aggregator, **how, "usage": message.usage_metadata},
    }
    if asked and (decisions := decisions_of(state)):
        record["decisions"] = decisions
    return record
