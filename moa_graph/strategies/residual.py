"""Pass changed and contested sentences to the next layer, instead of all full texts."""

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
    """Pass on one reference in full, and only the contested or new sentences of the others.

    The base reference, which is most similar to the others, is passed in full. For every other
    reference, two kinds of sentences are passed: contested ones, which the base reference does
    not have, and from the second layer, changed ones, which no proposal of the previous layer
    has. No model is called. The more the proposals agree, the shorter the prompts of later layers.

    Add `until=Unchanged()` to stop when a layer adds nothing.

    Args:
        shared: Share of a sentence's words that another text must have for the sentence to count
            as shared, above 0 and at most 1.

    Raises:
        TypeError: If `shared` is not a number.
        ValueError: If `shared` is out of range, or scikit-learn is not installed.

    Source: RMoA (arXiv 2505.24442), which extracts the residuals with a model.
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
        """See `Selection`."""
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
            # If little is shared, the full text is shorter.
            kept.append({**proposal, "content": said if len(said) < len(texts[i]) else texts[i]})
        return Chosen(kept, by="residual")


def residue(text: str, others: Iterable[str], shared: float = 0.8) -> list[str]:
    """Return the sentences of a text that no other text has, in order.

    Args:
        text: The text.
        others: Texts to compare with.
        shared: Share of a sentence's words that another text must have, above 0 and at most 1.
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
