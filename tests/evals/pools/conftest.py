from __future__ import annotations

import numpy as np
import pytest

from moa_graph.evals.pools.answers import Answers


@pytest.fixture
def simulated():
    """Answers of models with given accuracies; errors of `alike` models are the same."""

    def make(accuracies, n=400, *, seed=0, alike=(), tokens=100.0):
        rng = np.random.default_rng(seed)
        right = np.array([rng.random(n) < accuracy for accuracy in accuracies])
        for i in alike:
            right[i] = right[alike[0]]
        codes = np.where(right, 0, rng.integers(1, 6, right.shape))
        return Answers(
            name="simulated",
            models=tuple("abcdefghij"[: len(accuracies)]),
            groups=tuple(map(str, range(n))),
            right=right,
            codes=codes,
            tokens=np.full(right.shape, tokens),
        )

    return make
