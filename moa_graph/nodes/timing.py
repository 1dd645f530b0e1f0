"""Time limits of one step and of its calls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from moa_graph.calling.waiting import LayerWait, Quorum

if TYPE_CHECKING:
    from moa_graph.nodes.step import Step


class Timing:
    """Time limits of one step and of its calls.

    Args:
        step: The step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step

    @property
    def quorum(self) -> Quorum | None:
        """The run's quorum if it is valid for this layer, else the layer's."""
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
        """Timeout of this layer in seconds: the run's setting, else the layer's."""
        return self._step.context.timeout or self._step.policy.timeout

    @property
    def run_timeout(self) -> float | None:
        """Timeout of the run in seconds: the run's setting, else the graph's."""
        built = self._step.plan.limits.timeout if self._step.plan.limits else None
        return self._step.context.run_timeout or built

    @property
    def shared_layer(self) -> LayerWait:
        """The `LayerWait` of this layer, shared by its nodes in this run."""
        info = self._step.runtime.execution_info
        return self._step.run.layer(
            self._step.layer, info.checkpoint_id if info else "", self.new_layer
        )

    def cuts(self, timeout: float | None) -> bool:
        """Return whether a proposer with this timeout may be cancelled before it ends."""
        hedge = self._step.policy.hedge
        return any((timeout, self.quorum, hedge, self.timeout, self.run_timeout))

    @property
    def seconds_left(self) -> float | None:
        """Remaining seconds of the run's timeout, at least 0.001; None if there is no timeout."""
        if self.run_timeout is None:
            return None
        return max(0.001, self._step.run.started + self.run_timeout - time.monotonic())

    @property
    def side_wait(self) -> LayerWait:
        """`LayerWait` for a judge: a share of the remaining time of the run."""
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
        """`LayerWait` for the model of the answer: all the remaining time of the run."""
        return LayerWait(
            1, None, self.seconds_left, f"what was left of the run's {self.run_timeout} s"
        )

    @property
    def _later(self) -> float:
        """Seconds of the run's timeout that are reserved for later layers if layers overlap.

        This is less than an equal share: later layers have done most of their work by then.
        """
        layers = self._step.context.layers or self._step.plan.layers
        return (self.run_timeout or 0.0) * (layers - self._step.layer) / (2 * layers)

    def new_growing_layer(self) -> LayerWait:
        """Return a new `LayerWait` for this layer while earlier layers still write.

        The layer may take as long as the earlier layers, plus its own timeout.
        """
        timeout = self.timeout
        limits = [] if timeout is None else [timeout * self._step.layer]
        if (left := self.seconds_left) is not None and self.run_timeout is not None:
            limits.append(max(0.001, left - self._later))
        return LayerWait(self._step.policy.width, self.quorum, min(limits, default=None))

    def new_layer(self) -> LayerWait:
        """Return a new `LayerWait` for this layer."""
        timeout = self.timeout
        why = "the layer's timeout"
        if (left := self.seconds_left) is not None:
            # Each remaining step gets an equal share, including the aggregator.
            share = left / (
                (self._step.context.layers or self._step.plan.layers) - self._step.layer + 1
            )
            if self._step.plan.overlaps:
                share = max(0.001, left - self._later)
            if timeout is None or share < timeout:
                timeout, why = share, f"this layer's share of the run's {self.run_timeout:g} s"
        return LayerWait(self._step.policy.width, self.quorum, timeout, why)

    def seconds_since(self, started: float) -> float:
        """Return the seconds since the node's first attempt.

        Args:
            started: Start of this attempt, from `time.perf_counter`.
        """
        info = self._step.runtime.execution_info
        if info and info.node_attempt > 1 and info.node_first_attempt_time:
            return time.time() - info.node_first_attempt_time
        return time.perf_counter() - started
