from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from data_shards.sequence import encode
from trainer.baselines import KmerLogisticRegression, count_kmers


@given(st.lists(st.text("ACGTN", min_size=8, max_size=8), min_size=1, max_size=5),
       st.integers(1, 4))  # fmt: skip
@settings(deadline=None)
def test_kmers_are_counted_as_by_hand(sequences: list[str], k: int) -> None:
    codes = np.stack([encode(sequence) for sequence in sequences])
    counts = count_kmers(codes, k)
    for row, sequence in enumerate(sequences):
        expected = np.zeros(4**k)
        for start in range(len(sequence) - k + 1):
            word = sequence[start : start + k]
            if "N" not in word:
                expected[int("".join(str("ACGT".index(c)) for c in word), 4)] += 1
        assert np.array_equal(counts[row], expected)


def test_the_regression_finds_a_motif_and_answers_for_constant_tasks() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 4, (600, 60)).astype(np.uint8)
    has = rng.random(600) < 0.5
    codes[has, 20:28] = encode("GATTACAG")
    labels = np.stack([has, np.zeros(600), np.ones(600)], axis=1).astype(np.uint8)
    model = KmerLogisticRegression(4, 1e-3, seed=0)
    told: list[tuple[int, int]] = []
    model.fit(codes[:400], labels[:400], lambda *n: told.append(n))
    p = model.predict(codes[400:])
    assert p.shape == (200, 3)
    assert roc_auc_score(has[400:], p[:, 0]) > 0.9
    assert (p[:, 1] == 0).all()
    assert (p[:, 2] == 1).all()
    assert told[-1] == (3, 3)
