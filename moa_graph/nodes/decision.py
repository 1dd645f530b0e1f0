"""A node between the layers that makes and records a decision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages.ai import UsageMetadata
from langchain_core.runnables import Runnable, RunnableConfig

from moa_graph.calling import sync
from moa_graph.calling.callbacks import mark_run
from moa_graph.events import StepDecided
from moa_graph.nodes.plan import Plan
from moa_graph.nodes.step import Step
from moa_graph.state import Decision, MoAState, Proposal


class DecidingNode(Runnable[MoAState, dict[str, Any]]):
    """A node that makes a decision about the proposals of one layer.

    Args:
        plan: Settings that all nodes of the graph share.
        name: The node's name.
        layer: The layer that it follows; 0 if it comes before the first layer.
    """

    def __init__(self, plan: Plan, name: str, layer: int) -> None:
        self.plan = plan
        self.step_name = name
        self.layer = layer

    def invoke(
        self,
        input: MoAState,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Run `ainvoke` synchronously."""
        if (step := self._step(input, config)) is None:
            return {}
        return sync.run(step.within(self.decide(step)))

    async def ainvoke(
        self,
        input: MoAState,
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the state update; empty if the run's context skips the layer."""
        if (step := self._step(input, config)) is None:
            return {}
        return await step.within(self.decide(step))

    async def decide(self, step: Step) -> dict[str, Any]:
        """Return the state update.

        Args:
            step: The node's view of the run.

        Raises:
            NotEnoughProposals: If the layer has too few usable proposals.
        """
        raise NotImplementedError

    def _step(self, state: MoAState, config: RunnableConfig | None) -> Step | None:
        if self.layer == 0:
            return Step.of(self.plan, 1, state, config, opens=True)
        return Step.of(self.plan, self.layer, state, config, after=True)


def decided(
    step: Step,
    name: str,
    layer: int,
    outcome: str,
    *,
    kept: Sequence[Proposal] = (),
    left_out: dict[str, str] | None = None,
    by: str,
    error: str | None = None,
    usage: UsageMetadata | None = None,
    attempts: int = 0,
    texts: dict[str, str] | None = None,
) -> Decision:
    """Return the record of a decision, and write it to the custom stream and the trace."""
    decision = Decision(
        step=name,
        layer=layer,
        turn=step.turn,
        outcome=outcome,
        kept=[p["proposer"] for p in kept],
        left_out=left_out or {},
        by=by,
        error=error,
        usage=usage,
        attempts=attempts,
    )
    if texts:
        decision["texts"] = texts
    mark_run(name, error, moa_outcome=outcome, moa_by=by)
    step.runtime.stream_writer(
        StepDecided(type="step_decided", step=name, layer=layer, outcome=outcome, error=error)
    )
    return decision
