"""Ten everyday questions, and what a sensible answer has and does not have."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Everyday:
    """A question; `needs` are patterns that an answer must have, each once."""

    question: str
    needs: tuple[str, ...]
    never: str = r"(?!)"
    """Pattern that no sensible answer has."""

    def wrong(self, answer: str) -> str:
        """What is wrong with an answer; empty if it is sensible."""
        if not answer.strip():
            return "it is empty"
        missing = [p for p in self.needs if not re.search(p, answer, re.IGNORECASE)]
        if missing:
            return f"it has no {missing[0]!r}: {answer!r}"
        if told := re.search(self.never, answer, re.IGNORECASE):
            return f"it has {told[0]!r}: {answer!r}"
        if _repeats(answer):
            return f"it repeats itself: {answer!r}"
        return ""


def _repeats(answer: str) -> bool:
    """Whether the same words follow each other five times, as in a loop of a small model."""
    return re.search(r"\b(\w+(?:\W+\w+){0,7})(?:\W+\1\b){4}", answer, re.IGNORECASE) is not None


ELSEWHERE = r"Eiffel|Louvre|Statue of Liberty|Empire State|Grand Canyon|Big Ben|New York"
REFUSES = r"can't assist|cannot assist"
SLEEP_ADVICE = (
    r"routine|schedule|regular|time|relax|dark|quiet|comfort|caffeine|alcohol|exercis|breath"
    r"|meditat|stress|screen|healthy|calm|cool"
)

EVERYDAY = (
    Everyday("What is the capital of France?", (r"\bParis\b",), r"London|Berlin|Madrid|Lyon"),
    Everyday("Where is the Eiffel Tower?", (r"\bParis\b",), r"San Francisco|London"),
    Everyday("How many days does a leap year have?", (r"\b366\b",)),
    Everyday("What is 17 + 25?", (r"\b42\b",), r"= (?!42)\d"),
    Everyday("How do I say 'good morning' in Spanish?", (r"buen(?:os)? d[ií]as?",), r"tardes"),
    Everyday("Who wrote Romeo and Juliet?", (r"Shakespeare",), r"Christie|Dickens|Austen"),
    Everyday("Name three primary colors.", (r"\bred\b", r"\bblue\b", r"\b(?:yellow|green)\b")),
    Everyday("What is photosynthesis?", (r"\bplants?\b", r"light", r"energy|glucose|sugar")),
    Everyday("How can I sleep better?", (r"\bsleep", SLEEP_ADVICE)),
    Everyday("What are 3 fun things to do in SF?", (r"visit|go|explore|take|try|\w+ing\b|museum|park",),
             f"{ELSEWHERE}|{REFUSES}"),
)  # fmt: skip
