"""Input for the models of one step: the conversation and the references."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AnyMessage
from langchain_core.runnables import Runnable

from moa_graph.calling.advice import advice_wanted, uses_tools, without_tool_messages
from moa_graph.calling.conversation import (
    conversation_for,
    place_for,
    place_for_references,
)
from moa_graph.calling.references import Question
from moa_graph.calling.turn import Panel, references_of
from moa_graph.errors import NotEnoughProposals
from moa_graph.layers import References
from moa_graph.models import (
    max_tokens_of,
    window_of,
)
from moa_graph.models.text import utf8
from moa_graph.nodes.plan import Reads
from moa_graph.prompts import (
    AGGREGATE_AND_SYNTHESIZE,
    Place,
    instructed,
    letters,
)
from moa_graph.state import (
    Proposal,
    proposals_of_layer,
    selected,
    usable,
)

if TYPE_CHECKING:
    from moa_graph.nodes.step import Step


class Reading:
    """Input for the models of one step: the conversation and the references.

    Args:
        step: The step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step

    def conversation(
        self, model: Runnable[Any, Any], role: str | None = None, *, own: bool = False
    ) -> list[AnyMessage]:
        """Return the conversation in a form that the model supports, with its role.

        Args:
            model: The model to call.
            role: Its role or persona.
            own: Whether it is the model that writes the graph's answers.
        """
        given = list(self._step.messages)
        turn = self._step.context.turn
        for place, panel in (turn.shown_before if own and turn else {}).items():
            (given[place],) = self._with_panel(model, given[place], panel).messages
        # Only the model that writes the answer has tools.
        if not own and self._for_agent:
            given = without_tool_messages(given)
        messages = conversation_for(model, given, own=own)
        return instructed(messages, utf8(role), place_for(model)) if role else messages

    def _with_panel(
        self, model: Runnable[Any, Any], question: AnyMessage, panel: Panel
    ) -> Question:
        """Return an earlier question with the proposals that were shown with it."""
        return self.asking(model, references_of(panel), [question], place="human")

    def proposers_conversation(
        self, model: Runnable[Any, Any], role: str | None = None
    ) -> list[AnyMessage]:
        """Return the conversation for a proposer, which advises if an agent is to act.

        Args:
            model: The model to call.
            role: Its role or persona.
        """
        messages = self.conversation(model, role)
        if not self._for_agent:
            return messages
        tools = self._step.context.options.get("tools") or ()
        return instructed(messages, advice_wanted(tools), place_for(model))

    @property
    def _for_agent(self) -> bool:
        """Whether the answer is one call of an agent."""
        return bool(self._step.context.options.get("tools")) or uses_tools(self._step.messages)

    def question(
        self,
        model: Runnable[Any, Any],
        role: str | None = None,
        reads: Reads | None = None,
        *,
        own: bool = False,
    ) -> Question:
        """Return the question for a model of this layer, with the previous layer's references.

        Args:
            model: The model to call.
            role: Its role or persona.
            reads: Selects the references that it is shown.
            own: Whether it is the model that writes the graph's answers.

        Raises:
            NotEnoughProposals: If the previous layer has too few usable proposals.
        """
        messages = (
            self.conversation(model, role, own=True)
            if own
            else self.proposers_conversation(model, role)
        )
        if self._step.layer == 1:
            return Question(messages)
        return self.asking(model, self.references(reads), messages)

    def asking(
        self,
        model: Runnable[Any, Any],
        references: Sequence[Proposal],
        messages: Sequence[AnyMessage] | None = None,
        prompt: str | None = None,
        place: Place | None = None,
    ) -> Question:
        """Return a question with these references, in the form that this graph uses.

        Args:
            model: The model to call.
            references: The references to show.
            messages: The conversation; by default the state's.
            prompt: Instruction for the references; by default the run's, else the graph's.
            place: Where to put them; by default as `place_for` says.
        """
        return Question(
            self.conversation(model) if messages is None else messages,
            references,
            prompt or self.aggregation_prompt,
            labels=letters(len(references)) if self.lettered else None,
            fenced=self.shown.fenced,
            place=place or self.place_for(model),
            reasoning=self.shown.reasoning,
            window=self.window_of(model),
            answer=max_tokens_of(model),
        )

    def window_of(self, model: Runnable[Any, Any]) -> int | None:
        """Return a model's context window in tokens, including its answer; None if unknown."""
        return self.shown.window or window_of(model)

    def place_for(self, model: Runnable[Any, Any]) -> Place:
        """Return in which message a model is shown references."""
        return self.shown.place or place_for_references(model, self._step.messages)

    @property
    def shown(self) -> References:
        """Reference settings of this step's models."""
        own = self._step.policy.references if self._step.layer < self._step.plan.layers else None
        return own or self._step.plan.references

    @property
    def aggregation_prompt(self) -> str:
        """Instruction for the references: the run's, else the graph's."""
        return utf8(
            self._step.context.aggregation_prompt or self.shown.prompt or AGGREGATE_AND_SYNTHESIZE
        )

    def references(self, reads: Reads | None = None) -> list[Proposal]:
        """Return the proposals that this step's models are shown, after selections.

        Args:
            reads: Selects the references for one model. If it selects none, all are returned.

        Raises:
            NotEnoughProposals: If the previous layer has too few usable proposals.
        """
        given = self.usable_before()
        if given:
            given = selected(given, self._step.decisions, given[0]["layer"])
        return (reads(given) or given) if reads else given

    def usable_before(self) -> list[Proposal]:
        """Return the usable proposals of the previous layer, in the proposers' order.

        Raises:
            NotEnoughProposals: If there are too few.
        """
        turn = self._step.context.turn
        if turn is not None and turn.source == "none":
            return []
        before = proposals_of_layer(self._step.proposals, self._step.layer_before)
        references = usable(before)
        if len(references) >= self._step.plan.policies[self._step.layer_before - 1].min_proposals:
            return references
        # With a quorum there are enough, so these were abandoned because of the budget.
        over_budget = any(p["status"] == "abandoned" for p in before)
        late = self._step.timing.run_timeout is not None and any(
            p["status"] == "timed_out" for p in before
        )
        if over_budget or late:
            for layer in range(self._step.layer_before, 0, -1):
                earlier = usable(proposals_of_layer(self._step.proposals, layer))
                fewest = 1 if late else self._step.plan.policies[layer - 1].min_proposals
                if len(earlier) >= fewest:
                    return earlier
        raise self.not_enough(self._step.layer_before)

    def not_enough(self, layer: int) -> NotEnoughProposals:
        """End the run, and return the error for a layer with too few usable proposals."""
        self._step.end_run()
        return self._step.plan.not_enough(layer, self._step.proposals)

    @property
    def lettered(self) -> bool:
        """Whether references are labeled A, B, … instead of 1, 2, …"""
        return self._step.plan.policies[self._step.layer_before - 1].lettered
