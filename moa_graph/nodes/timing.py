"""How long one step, and each of its calls, may take."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from moa_graph.calling.waiting import LayerWait, Quorum

if TYPE_CHECKING:
    from moa_graph.nodes.step import Step


class Timing:
    """How long one step, and each of its calls, may take.

    Args:
        step: The step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step

    @property
    def quorum(self) -> Quorum | None:
        """The run's where this layer has room for it, else the layer's."""
        built, asked, grace = (
            self._step.policy.quorum,
            self._step.context.quorum,
            self._step.context.grace,
        )
        if asked is not None and not self._step.policy.has_room(asked):
            asked = None
        if asked is None and (grace is None or built is None):
            return built
        return Quorum(
            asked or (built.proposals if built else 1),
            grace if grace is not None else built.grace if built else 0.0,
        )

    @property
    def timeout(self) -> float | None:
        """Seconds that this layer may take: the run's, else the layer's."""
        return self._step.context.timeout or self._step.policy.timeout

    @property
    def run_timeout(self) -> float | None:
        """The run's, else the graph's; seconds."""
        built = self._step.plan.limits.timeout if self._step.plan.limits else None
        return self._step.context.run_timeout or built

    @property
    def shared_layer(self) -> LayerWait:
        """This layer of this run."""
        info = self._step.runtime.execution_info
        return self._step.run.layer(
            self._step.layer, info.checkpoint_id if info else "", self.new_layer
        )

    def cuts(self, timeout: float | None) -> bool:
        """Whether a proposer, with that timeout of its own, may not be waited for to its end."""
        hedge = self._step.policy.hedge
        return any((timeout, self.quorum, hedge, self.timeout, self.run_timeout))

    @property
    def seconds_left(self) -> float | None:
        """What the run's timeout leaves for this step, and those after it; at least a moment."""
        if self.run_timeout is None:
            return None
        return max(0.001, self._step.run.started + self.run_timeout - time.monotonic())

    @property
    def side_wait(self) -> LayerWait:
        """How long a judge may take: a share of what the run's timeout leaves."""
        left = self.seconds_left
        steps = max(1, self._step.plan.layers - self._step.layer_before) + 1
        return LayerWait(
            1,
            None,
            None if left is None else left / steps,
            f"its share of the run's {self.run_timeout} s",
        )

    @property
    def last_wait(self) -> LayerWait:
        """How long the answer's model may take: what the run's timeout leaves."""
        return LayerWait(
            1, None, self.seconds_left, f"what was left of the run's {self.run_timeout} s"
        )

    @property
    def _later(self) -> float:
        """Seconds of the run's timeout that later layers have for themselves, where they overlap:
        most of their work is done when those before them end.
        """
        layers = self._step.context.layers or self._step.plan.layers
        return (self.run_timeout or 0.0) * (layers - self._step.layer) / (2 * layers)

    def new_growing_layer(self) -> LayerWait:
        """This step's layer while those before it still write: it may take as long as they do,
        and its own time besides.
        """
        timeout = self.timeout
        limits = [] if timeout is None else [timeout * self._step.layer]
        if (left := self.seconds_left) is not None and self.run_timeout is not None:
            limits.append(max(0.001, left - self._later))
        return LayerWait(self._step.policy.width, self.quorum, min(limits, default=None))

    def new_layer(self) -> LayerWait:
        """This step's layer, made anew."""
        timeout = self.timeout
        why = "the layer's timeout"
        if (left := self.seconds_left) is not None:
            # The same share for each step that is to come, the aggregator's included.
            share = left / (
                (self._step.context.layers or self._step.plan.layers) - self._step.layer + 1
            )
            if self._step.plan.overlaps:
                share = max(0.001, left - self._later)
            if timeout is None or share < timeout:
                timeout, why = share, f"this layer's share of the run's {self.run_timeout:g} s"
        return LayerWait(self._step.policy.width, self.quorum, timeout, why)

    def seconds_since(self, started: float) -> float:
        """Seconds since the node's first attempt; `started` is this attempt's `perf_counter`."""
        info = self._step.runtime.execution_info
        if info and info.node_attempt > 1 and info.node_first_attempt_time:
            return time.time() - info.node_first_attempt_time
        return time.perf_counter() - started
