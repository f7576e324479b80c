"""Keyed integer hashing: randomness that is a pure function of its key.

Orders, initial weights and dropout masks are drawn from here and not from a library's generator,
because a library may change its stream between versions, and "same seed, same result" is a promise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Scramble 64-bit integers with the SplitMix64 finaliser (Steele, Lea and Flood 2014).

    Args:
        values: any shape, uint64.

    Returns:
        Same shape, uint64. A bijection: distinct inputs give distinct outputs.
    """
    with np.errstate(over="ignore"):
        z = values + np.uint64(_GOLDEN)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def key(*parts: int) -> int:
    """Fold integers, in order, into one 64-bit key."""
    state = 0
    for part in parts:
        z = (state ^ (part & _MASK)) & _MASK
        z = (z + _GOLDEN) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        state = z ^ (z >> 31)
    return state


def permutation(size: int, *parts: int) -> npt.NDArray[np.int64]:
    """Return a permutation of ``range(size)``, int64, that depends only on size and key parts."""
    draws = mix(np.arange(size, dtype=np.uint64) ^ np.uint64(key(*parts)))
    return np.argsort(draws, kind="stable").astype(np.int64, copy=False)
