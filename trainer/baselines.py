"""Baselines that are not networks: scikit-learn estimators on features of the same samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from data_shards.sequence import UNKNOWN

if TYPE_CHECKING:  # a second that workers, who never fit these, need not wait for
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

_ROWS = 2048  # samples whose k-mers are counted together: bounds memory


def count_kmers(codes: npt.NDArray[np.uint8], k: int) -> npt.NDArray[np.float32]:
    """Count k-mers of the forward strand.

    Args:
        codes: shape (samples, length).
        k: letters in a k-mer.

    Returns:
        float32, shape (samples, 4 ** k); column = the k-mer read as a number of base 4. K-mers with
        an unknown base are not counted.
    """
    kinds = 4**k
    counts = np.zeros((len(codes), kinds), dtype=np.float32)
    for start in range(0, len(codes), _ROWS):
        block = codes[start : start + _ROWS].astype(np.int64)
        span = block.shape[1] - k + 1
        number = np.zeros((len(block), span), dtype=np.int64)
        known = np.ones((len(block), span), dtype=np.bool_)
        for offset in range(k):
            letter = block[:, offset : offset + span]
            number = number * 4 + letter
            known &= letter != UNKNOWN
        number += np.arange(len(block))[:, None] * kinds
        flat = np.bincount(number[known], minlength=len(block) * kinds)
        counts[start : start + _ROWS] = flat.reshape(len(block), kinds)
    return counts


class KmerLogisticRegression:
    """One logistic regression a task on standardised k-mer counts of the window.

    Args:
        k: letters in a k-mer.
        inverse_penalty: C of scikit-learn; smaller is a stronger L2 penalty.
        seed: of the solver.
    """

    def __init__(self, k: int, inverse_penalty: float, seed: int) -> None:
        self._k = k
        self._inverse_penalty = inverse_penalty
        self._seed = seed
        self._scaler: StandardScaler | None = None
        self._models: list[LogisticRegression | float] = []

    def fit(
        self,
        codes: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.uint8],
        advance: Callable[[int, int], None],
    ) -> None:
        """Fit on codes (samples, length) and labels (samples, tasks)."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        self._scaler = StandardScaler(copy=False)  # the counts may be a GB
        features = self._scaler.fit_transform(count_kmers(codes, self._k))
        self._models = []
        for task, column in enumerate(labels.T):
            advance(task, labels.shape[1])
            if column.min() == column.max():  # nothing to learn: always the same answer
                self._models.append(float(column[0]))
                continue
            model = LogisticRegression(
                C=self._inverse_penalty, max_iter=200, tol=1e-3, random_state=self._seed
            )
            self._models.append(model.fit(features, column))
        advance(labels.shape[1], labels.shape[1])

    def predict(self, codes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return the probability of each task, shape (samples, tasks)."""
        if self._scaler is None:
            raise RuntimeError("fit() comes before predict()")
        features = self._scaler.transform(count_kmers(codes, self._k))
        columns = [
            np.full(len(codes), model)
            if isinstance(model, float)
            else model.predict_proba(features)[:, 1]
            for model in self._models
        ]
        return np.stack(columns, axis=1).astype(np.float32)
