"""What staircase nodes see of each other from round to round."""

from __future__ import annotations

from collections.abc import Sequence

from moa_graph.calling.answer import NoAnswer
from moa_graph.calling.budget import OverBudget
from moa_graph.calling.waiting import WaitEnded
from moa_graph.nodes.proposer import ProposerNode
from moa_graph.nodes.step import Step
from moa_graph.progressive.piece_question import View
from moa_graph.progressive.pieces import Staircase
from moa_graph.progressive.writing import Piece
from moa_graph.state import (
    Draft,
    Proposal,
    ProposalStatus,
    merge_proposals,
    proposals_of_layer,
)


class Reader:
    """What nodes that write from a growing layer have in common."""

    def __init__(self, staircase: Staircase, before: Sequence[tuple[str, str]]) -> None:
        self.staircase = staircase
        self.before = before
        """The nodes of the layer before, and their proposers."""

    def view(self, step: Step) -> View:
        """Return what there is of the layer before.

        Raises:
            NotEnoughProposals: If it has ended with too few.
        """
        ended = {p["proposer"]: p for p in layer_of_turn(step, step.layer_before)}
        texts: dict[str, str] = {}
        labels: dict[str, str] = {}
        for place, (node, proposer) in enumerate(self.before, 1):
            proposal = ended.get(proposer)
            if proposal is not None and proposal["status"] != "ok":
                continue
            # What has ended may have been edited since.
            written = "".join(step.draft(node)["pieces"])
            texts[node] = proposal["content"] if proposal and proposal["content"] else written
            labels[node] = str(place)
        if len(ended) < len(self.before):
            return View(texts, labels, complete=False)
        usable = step.reading.usable_before()
        if [p["layer"] for p in usable] == [step.layer_before] * len(texts):
            return View(texts, labels, complete=True)
        # Time or budget left too few of the layer: then the answer rests on an earlier one.
        names = {f"layer {p['layer']}: {p['proposer']}": p["content"] for p in usable}
        return View(names, {name: str(place) for place, name in enumerate(names, 1)}, complete=True)

    def is_ready(self, step: Step, draft: Draft, view: View) -> bool:
        """Return whether there is something to write from that was not there for the last piece."""
        if view.complete:
            return True
        enough = (
            sum(bool(text.strip()) for text in view.texts.values())
            >= step.plan.policies[step.layer_before - 1].min_proposals
        )
        return enough and (not draft["views"] or draft["views"][-1] != view.lengths)


def named(nodes: Sequence[ProposerNode]) -> list[tuple[str, str]]:
    """Nodes with their proposers' names."""
    return [(node.node, node.proposer) for node in nodes]


def with_unfinished(step: Step, layers: Sequence[Sequence[ProposerNode]]) -> list[Proposal]:
    """The proposals of the turn, and what others have written that had not ended: it is paid for.

    Those have the text so far, though they are `"abandoned"`.
    """
    proposals = [p for p in step.proposals if p.get("turn") == step.turn]
    recorded = {(p["layer"], p["proposer"]) for p in proposals}
    for node in (node for layer in layers for node in layer):
        draft = step.draft(node.node)
        if (node.layer, node.proposer) in recorded or not draft["pieces"]:
            continue
        proposals.append(
            Proposal(
                layer=node.layer,
                proposer=node.proposer,
                model=node.model.name,
                content="".join(draft["pieces"]),
                status="abandoned",
                error="not complete: the run ended before",
                usage=draft["usage"],
                latency=draft["latency"],
                attempts=draft["attempts"],
                position=node.position,
                turn=step.turn,
            )
        )
    return merge_proposals(proposals, [])


def layer_of_turn(step: Step, layer: int) -> list[Proposal]:
    """Return the proposals of a layer that have ended in this turn."""
    return [p for p in proposals_of_layer(step.proposals, layer) if p.get("turn") == step.turn]


def how_it_failed(piece: Piece | None, error: Exception) -> tuple[ProposalStatus, str]:
    """Return how a proposer that wrote a piece has ended, with the reason."""
    if isinstance(error, WaitEnded):
        return error.status, str(error)
    if isinstance(error, OverBudget):
        return "abandoned", str(error)
    if isinstance(error, NoAnswer):
        return "failed", str(error)
    return "failed", piece.call.explain(error) if piece and piece.call else str(error)


def with_tail(draft: Draft) -> Draft:
    """Return the draft at its end, which its model does not go on from."""
    return {**draft, "pieces": [*draft["pieces"], draft["tail"]], "tail": "", "ended": True}


def all_was_in_view(draft: Draft, view: View) -> bool:
    """Return whether the draft was ended by its model with everything in view."""
    return draft["closed"] and bool(draft["views"]) and draft["views"][-1] == view.lengths
