"""The alphabet: DNA letters as uint8 codes, and back.

A=0, C=1, G=2, T=3, and 4 for N and every other IUPAC ambiguity letter. Lower case (soft-masked)
letters have the code of their upper case. One-hot encoding happens later, on the device.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint8]

ALPHABET = "ACGTN"
UNKNOWN = 4
IUPAC_DNA = "ACGTNRYSWKMBDHV"
INVALID = 255

COMPLEMENT: Codes = np.array([3, 2, 1, 0, 4], dtype=np.uint8)

_CODE_OF = np.full(256, INVALID, dtype=np.uint8)
for _letter in IUPAC_DNA:
    _code = ALPHABET.find(_letter) if _letter in "ACGT" else UNKNOWN
    _CODE_OF[[ord(_letter), ord(_letter.lower())]] = _code
_LETTER_OF = np.frombuffer(ALPHABET.encode(), dtype=np.uint8)


def encode(sequence: str | bytes) -> Codes:
    """Encode DNA letters as codes.

    Args:
        sequence: IUPAC DNA letters, either case.

    Returns:
        uint8 codes, shape ``(len(sequence),)``.

    Raises:
        ValueError: A letter is not an IUPAC DNA letter; names the letter and its 0-based position.
    """
    raw = sequence.encode("latin-1") if isinstance(sequence, str) else sequence
    codes = _CODE_OF[np.frombuffer(raw, dtype=np.uint8)]
    bad = np.flatnonzero(codes == INVALID)
    if bad.size:
        at = int(bad[0])
        raise ValueError(f"{chr(raw[at])!r} at position {at} is not an IUPAC DNA letter")
    return codes


def decode(codes: Codes) -> str:
    """Turn codes (any 1-D uint8 array with values 0 to 4) into letters."""
    return _LETTER_OF[codes].tobytes().decode()


def reverse_complement(codes: Codes) -> Codes:
    """Reverse complement along the last axis; any shape, uint8 codes."""
    return COMPLEMENT[codes[..., ::-1]]
