from __future__ import annotations

import json
from itertools import permutations

from hypothesis import given
from hypothesis import strategies as st

from moa_graph import Proposal, merge_proposals
from moa_graph.state import total_usage

proposals = st.builds(
    Proposal,
    layer=st.integers(1, 3),
    proposer=st.sampled_from(["p_1", "p_2", "p_10"]),
    model=st.just("m"),
    content=st.text(max_size=3),
    status=st.sampled_from(["ok", "failed", "timed_out", "abandoned"]),
    error=st.none() | st.text(max_size=3),
    usage=st.none(),
    latency=st.floats(0, 10),
    attempts=st.integers(1, 3),
)
positioned = st.builds(
    lambda p, position, turn: {**p, "position": position, "turn": turn},
    proposals,
    st.integers(0, 3),
    st.integers(1, 2),
)
lists = st.lists(proposals | positioned, max_size=6)


@given(lists, lists)
def test_merge_is_commutative(a, b):
    assert merge_proposals(a, b) == merge_proposals(b, a)


@given(lists, lists, lists)
def test_merge_is_associative(a, b, c):
    left = merge_proposals(merge_proposals(a, b), c)
    assert left == merge_proposals(a, merge_proposals(b, c))


@given(lists, lists)
def test_merge_is_idempotent(a, b):
    merged = merge_proposals(a, b)
    assert merge_proposals(merged, b) == merged
    assert merge_proposals(merged, merged) == merged


@given(lists, lists)
def test_merge_keeps_one_proposal_of_each_layer_and_proposer_and_changes_no_input(a, b):
    before = json.dumps([a, b])
    keys = [(p["layer"], p["proposer"]) for p in merge_proposals(a, b)]
    assert len(keys) == len(set(keys))
    assert keys == sorted(keys, key=lambda key: key[0])
    assert json.dumps([a, b]) == before


def _proposal(proposer: str, **fields) -> Proposal:
    defaults = {"layer": 1, "model": "m", "content": "x", "status": "ok", "error": None}
    defaults |= {"usage": None, "latency": 0.0, "attempts": 1}
    return Proposal(**(defaults | {"proposer": proposer} | fields))


def test_merge_sorts_by_position_and_not_by_name():
    ten = [_proposal(f"p_{i}", position=i) for i in range(11)]
    for order in ([*reversed(ten)], ten[5:] + ten[:5]):
        assert [p["proposer"] for p in merge_proposals([], order)] == [f"p_{i}" for i in range(11)]


def test_merge_prefers_the_usable_answer_of_a_retried_proposer():
    failed = _proposal("a", status="failed", content="", attempts=3)
    good = _proposal("a", attempts=2)
    for order in permutations([failed, good]):
        assert merge_proposals([order[0]], [order[1]]) == [good]


def test_merge_drops_the_earlier_turn():
    old = [_proposal("a", turn=1), _proposal("b", turn=1)]
    new = [_proposal("a", turn=2, status="failed")]
    assert merge_proposals(old, new) == new


def test_total_usage_sums_what_is_known():
    one = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
    assert total_usage([None]) is None
    assert total_usage([one, None, one])["total_tokens"] == 6
