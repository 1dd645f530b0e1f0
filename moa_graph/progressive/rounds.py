"""What nodes of a progressive mode see of each other in each round."""

from __future__ import annotations

from collections.abc import Sequence

from moa_graph.calling.answer import NoAnswer
from moa_graph.calling.budget import OverBudget
from moa_graph.calling.waiting import WaitEnded
from moa_graph.nodes.proposer import ProposerNode
from moa_graph.nodes.step import Step
from moa_graph.progressive.pace import pace_of
from moa_graph.progressive.piece_question import View
from moa_graph.progressive.pieces import Staircase
from moa_graph.progressive.writing import Piece
from moa_graph.progressive.written import piece_size
from moa_graph.state import (
    Draft,
    Proposal,
    ProposalStatus,
    merge_proposals,
    proposals_of_layer,
)


class Reader:
    """Read the previous layer while it is still written."""

    def __init__(self, staircase: Staircase, before: Sequence[tuple[str, str]]) -> None:
        self.staircase = staircase
        self.before = before
        """The nodes of the previous layer, each with its proposer's name."""

    def view(self, step: Step) -> View:
        """Return the current texts of the previous layer.

        Raises:
            NotEnoughProposals: If the layer has ended with too few usable proposals.
        """
        ended = {p["proposer"]: p for p in layer_of_turn(step, step.layer_before)}
        texts: dict[str, str] = {}
        labels: dict[str, str] = {}
        for place, (node, proposer) in enumerate(self.before, 1):
            proposal = ended.get(proposer)
            if proposal is not None and proposal["status"] != "ok":
                continue
            # A finished proposal may have been edited since.
            written = "".join(step.draft(node)["pieces"])
            texts[node] = proposal["content"] if proposal and proposal["content"] else written
            labels[node] = str(place)
        if len(ended) < len(self.before):
            return View(texts, labels, complete=False)
        usable = step.reading.usable_before()
        if [p["layer"] for p in usable] == [step.layer_before] * len(texts):
            return View(texts, labels, complete=True)
        # Time or budget left too few proposals in the layer, so these are of an earlier layer.
        names = {f"layer {p['layer']}: {p['proposer']}": p["content"] for p in usable}
        return View(names, {name: str(place) for place, name in enumerate(names, 1)}, complete=True)

    def size(self, step: Step, draft: Draft) -> int:
        """Return the number of tokens of the step's next piece."""
        layers, number = step.plan.layers, len(draft["pieces"])
        return piece_size(self.staircase, layers, step.layer, number, pace_of(step.drafts))

    def is_ready(self, step: Step, draft: Draft, view: View) -> bool:
        """Return whether there is new text to write from since the last piece.

        If the model has ended its text itself, it is called again only when the previous layer's
        models have ended theirs.
        """
        if view.complete:
            return True
        if draft["closed"] and any(draft["pieces"]):
            ended = all(step.draft(node)["closed"] for node in view.texts)
            return ended and draft["views"][-1] != view.lengths
        enough = (
            sum(bool(text.strip()) for text in view.texts.values())
            >= step.plan.policies[step.layer_before - 1].min_proposals
        )
        return enough and (not draft["views"] or draft["views"][-1] != view.lengths)


def named(nodes: Sequence[ProposerNode]) -> list[tuple[str, str]]:
    """Return the nodes' names, each with its proposer's name."""
    return [(node.node, node.proposer) for node in nodes]


def with_unfinished(step: Step, layers: Sequence[Sequence[ProposerNode]]) -> list[Proposal]:
    """Return the proposals of the turn, including unfinished ones, which were also paid for.

    Unfinished proposals have the text so far and the status `"abandoned"`.
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
    """Return the finished proposals of a layer in this turn."""
    return [p for p in proposals_of_layer(step.proposals, layer) if p.get("turn") == step.turn]


def how_it_failed(piece: Piece | None, error: Exception) -> tuple[ProposalStatus, str]:
    """Return the status and the reason of a proposer that failed to write a piece."""
    if isinstance(error, WaitEnded):
        return error.status, str(error)
    if isinstance(error, OverBudget):
        return "abandoned", str(error)
    if isinstance(error, NoAnswer):
        return "failed", str(error)
    return "failed", piece.call.explain(error) if piece and piece.call else str(error)


def with_tail(draft: Draft) -> Draft:
    """Return the draft as ended, with its tail added as a last piece."""
    return {**draft, "pieces": [*draft["pieces"], draft["tail"]], "tail": "", "ended": True}


def all_was_in_view(draft: Draft, view: View) -> bool:
    """Return whether the model ended the draft itself with all the text in view."""
    return draft["closed"] and bool(draft["views"]) and draft["views"][-1] == view.lengths
