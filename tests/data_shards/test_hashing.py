from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from data_shards.hashing import key, mix, permutation

INTS = st.integers(0, 2**64 - 1)


def test_mix_is_splitmix64() -> None:
    # The first outputs of SplitMix64 seeded with 0 (reference implementation by S. Vigna).
    states = np.arange(3, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    expected = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    assert mix(states).tolist() == expected


@given(INTS)
def test_key_of_one_part_is_mix_of_it(part: int) -> None:
    assert key(part) == int(mix(np.array([part], dtype=np.uint64))[0])


@given(INTS, INTS)
def test_key_depends_on_the_order_of_its_parts(a: int, b: int) -> None:
    assert (key(a, b) == key(b, a)) == (a == b)


@given(st.integers(0, 500), INTS)
def test_permutation_holds_every_number_once(size: int, seed: int) -> None:
    assert sorted(permutation(size, seed).tolist()) == list(range(size))


def test_permutation_never_changes_between_versions() -> None:
    assert permutation(8, 1, 2).tolist() == [7, 5, 6, 1, 4, 3, 0, 2]
