from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.sequence import decode, encode, reverse_complement

LETTERS = st.text(alphabet="ACGTNacgtn", max_size=200)


@given(LETTERS)
def test_decoding_gives_back_the_upper_case_letters(text: str) -> None:
    assert decode(encode(text)) == text.upper()


def test_ambiguity_letters_are_unknown() -> None:
    assert encode("ACGTNRYSWKMBDHVry").tolist() == [0, 1, 2, 3] + [4] * 13


def test_a_letter_that_is_not_dna_is_refused_with_its_position() -> None:
    with pytest.raises(ValueError, match="'!' at position 3"):
        encode("ACG!T")


@given(LETTERS)
def test_reverse_complement_twice_is_the_sequence(text: str) -> None:
    codes = encode(text)
    assert np.array_equal(reverse_complement(reverse_complement(codes)), codes)


def test_reverse_complement_of_a_batch_turns_each_row() -> None:
    batch = np.stack([encode("AACGN"), encode("TTTTT")])
    assert [decode(row) for row in reverse_complement(batch)] == ["NCGTT", "AAAAA"]
