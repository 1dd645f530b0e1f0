"""From layer to layer, what changed and what is contested, instead of all full texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from moa_graph.nodes.step import Step
from moa_graph.prompts import letters
from moa_graph.state import Proposal, proposals_of_layer, usable
from moa_graph.strategies.checks import check_comparable, check_share
from moa_graph.strategies.select import Chosen, Selection
from moa_graph.strategies.similarity import most_central, similarities, words

_SENTENCE = re.compile(r"(?<=[.!?…])\s+|(?<=[。！？])|\n+")
_NOTHING = "[agrees with response {base}]"
_DIFFERS = "[as response {base}, but for this]\n{text}"


class Residual(Selection):
    """Pass on one reference in full, and of the others what is contested or new.

    The reference that agrees most with the others is passed in full. Of every other one go on
    the sentences that it does not share with that one (what is contested) and, from the second
    layer on, those that no proposal of the layer before had (what changed). No model is called.
    The prompts of later layers become shorter, the more the proposals agree.

    Give `until=Unchanged()` beside it to stop as soon as a layer adds nothing.

    Args:
        shared: Which part of a sentence's words another text must have for the sentence to count
            as shared, above 0 and at most 1.

    Raises:
        TypeError: If `shared` is not a number.
        ValueError: If it is out of range, or nothing can compare texts.

    Source: RMoA (arXiv 2505.24442), which lets a model extract the residuals.
    """

    rewrites = True

    def __init__(self, shared: float = 0.8) -> None:
        check_share("Residual(shared=…)", shared)
        check_comparable("Residual", None)
        self.shared = shared

    async def choose(
        self,
        references: list[Proposal],
        step: Step,
    ) -> Chosen:
        """As `Selection`."""
        if len(references) == 1:
            return Chosen(references, by="residual")
        texts = [p["content"] for p in references]
        base = most_central(await similarities(texts, step.asked))
        before = proposals_of_layer(step.proposals, references[0]["layer"] - 1)
        earlier = [p["content"] for p in usable(before)]
        names = letters(len(texts)) if step.reading.lettered else range(1, len(texts) + 1)
        label = list(names)[base]
        kept = []
        for i, proposal in enumerate(references):
            if i == base:
                kept.append(proposal)
                continue
            contested = residue(texts[i], [texts[base]], self.shared)
            changed = set(residue(texts[i], earlier, self.shared)) if earlier else set()
            told = [s for s in sentences(texts[i]) if s in set(contested) | changed]
            text = "\n".join(told)
            said = _DIFFERS.format(base=label, text=text) if told else _NOTHING.format(base=label)
            # Where hardly anything is shared, the whole text is the shorter way to say it.
            kept.append({**proposal, "content": said if len(said) < len(texts[i]) else texts[i]})
        return Chosen(kept, by="residual")


def residue(text: str, others: Iterable[str], shared: float = 0.8) -> list[str]:
    """Return the sentences of a text that none of the others has, in their order.

    Args:
        text: The text.
        others: Texts to compare it with.
        shared: Which part of a sentence's words a text must have to have the sentence.
    """
    known = [set(words(other)) for other in others]
    new = []
    for sentence in sentences(text):
        said = set(words(sentence))
        if said and not any(len(said & other) >= shared * len(said) for other in known):
            new.append(sentence)
    return new


def sentences(text: str) -> list[str]:
    """Return the sentences and lines of a text."""
    return [part.strip() for part in _SENTENCE.split(text) if part.strip()]
