"""What must happen when a model fails: every fault at every place.

One row a fault, in the words of `tests/fake_server.py`. An outcome is how the proposal or the run
ends, and how many requests the faulty model gets. The graph has two layers of three proposers and
an aggregator; a proposer may take `PROPOSER_SECONDS`, the run `RUN_SECONDS`: no less than a busy
machine needs, and less than what `Retry-After` asks for. Only for what never ends it is `SHORT`.
"""

from __future__ import annotations

from typing import NamedTuple

PROPOSER_SECONDS = 30.0
RUN_SECONDS = 45.0
SHORT = 0.7  # seconds
ENDLESS = ("hang", "tps=0.5")

PLACES = ["layer 1", "layer 2", "all proposers", "aggregator"]
MODES = ["invoke", "ainvoke", "stream", "astream"]


class Outcome(NamedTuple):
    """How it ends, and after how many requests."""

    ends: str
    """A proposal's status, `"answer"`, or the error that the run raises."""
    requests: int

    def __str__(self) -> str:
        return f"{self.ends} ({self.requests})"


def outcome(text: str) -> Outcome:
    ends, requests = text.split()
    return Outcome(ends, int(requests))


ANSWER_1, ANSWER_2, ANSWER_3 = "answer 1", "answer 2", "answer 3"
OK_1, OK_2 = "ok 1", "ok 2"
NONE_1, NONE_3 = "NotEnoughProposals 1", "NotEnoughProposals 3"
FAILS_1, FAILS_3 = "AggregationFailed 1", "AggregationFailed 3"

TABLE: dict[str, tuple[str, list[str]]] = {
    # fault: (behaviour, [at a proposer of layer 1, of layer 2, at all proposers, the aggregator])
    # --- can pass, and does ---
    "429, Retry-After, once": (
        "status=429&retry_after=0.2&times=1",
        [OK_2, OK_2, "answer 3", ANSWER_2],
    ),
    "429, once": ("status=429&times=1", [OK_2, OK_2, "answer 3", ANSWER_2]),
    "500, once": ("status=500&times=1", [OK_2, OK_2, "answer 3", ANSWER_2]),
    "reset in mid-answer, once": ("cut=1&times=1", [OK_2, OK_2, "answer 3", ANSWER_2]),
    # --- can pass, and does not ---
    "429": ("status=429", ["failed 3", "failed 3", NONE_3, FAILS_3]),
    "429, Retry-After too late": (
        "status=429&retry_after=50",
        ["failed 1", "failed 1", NONE_1, FAILS_1],
    ),
    "408": ("status=408", ["failed 3", "failed 3", NONE_3, FAILS_3]),
    "500": ("status=500", ["failed 3", "failed 3", NONE_3, FAILS_3]),
    "reset in mid-answer": ("cut=1", ["failed 3", "failed 3", NONE_3, FAILS_3]),
    # --- cannot pass ---
    "400": ("status=400", ["failed 1", "failed 1", NONE_1, FAILS_1]),
    "401": ("status=401", ["failed 1", "failed 1", NONE_1, FAILS_1]),
    "403": ("status=403", ["failed 1", "failed 1", NONE_1, FAILS_1]),
    "404": ("status=404", ["failed 1", "failed 1", NONE_1, FAILS_1]),
    "context length": ("window=1", ["failed 1", "failed 1", NONE_1, FAILS_1]),
    "references too long": ("window=400", [OK_1, "ok 3", "answer 4", ANSWER_3]),
    "malformed JSON": ("malformed", ["failed 1", "failed 1", NONE_1, FAILS_1]),
    "invalid UTF-8": ("invalid_utf8", ["failed 1", "failed 1", NONE_1, FAILS_1]),
    "empty content": ("empty", ["failed 1", "failed 1", NONE_1, FAILS_1]),
    "refusal": ("refusal", ["failed 1", "failed 1", NONE_1, FAILS_1]),
    "finish_reason content_filter": (
        "finish=content_filter",
        ["failed 1", "failed 1", NONE_1, ANSWER_1],
    ),
    "filter by another name": ("finish=SAFETY", ["failed 1", "failed 1", NONE_1, ANSWER_1]),
    "reasoning only": ("reasoning", ["failed 1", "failed 1", NONE_1, FAILS_1]),
    # --- what can be mended is ---
    "half an emoji": ("surrogate", [OK_1, OK_1, "answer 2", ANSWER_1]),
    "refused setting": ("refuses=temperature", [OK_2, OK_2, "answer 4", ANSWER_2]),
    "foreign block": ("foreign", [OK_1, OK_1, "answer 2", ANSWER_1]),
    # --- never ends ---
    "hang": ("hang", ["timed_out 1", "timed_out 1", NONE_1, FAILS_1]),
    "slow drip": ("tps=0.5", ["timed_out 1", "timed_out 1", NONE_1, FAILS_1]),
    # --- no fault of the connection ---
    "finish_reason length": ("finish=length", [OK_1, OK_1, "answer 2", ANSWER_1]),
    "1 MB answer": ("size=1000000", [OK_1, OK_1, "answer 2", ANSWER_1]),
    "10 MB answer": ("size=10000000", [OK_1, OK_1, "answer 2", ANSWER_1]),
}
"""With "all proposers", the requests are those of one model in both layers."""

STREAMED: dict[tuple[str, str], str] = {
    # Tokens that were shown cannot be taken back, so an aggregator's are not asked for again.
    ("reset in mid-answer, once", "aggregator"): FAILS_1,
    ("reset in mid-answer", "aggregator"): FAILS_1,
}
"""Cells in which streaming the answer makes a difference."""


def expected(fault: str, place: str, mode: str) -> Outcome:
    """What must happen in that cell."""
    if mode in ("stream", "astream") and (fault, place) in STREAMED:
        return outcome(STREAMED[fault, place])
    return outcome(TABLE[fault][1][PLACES.index(place)])
