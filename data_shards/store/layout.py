"""How many rows go into a shard."""

from __future__ import annotations

import math

SHARD_BYTES = 32 << 20
"""Bytes of a shard, about: large for sequential reading, small enough to hold several."""

# Shards are mapped end to end, so each but the last must be whole memory pages: 4 KiB on most
# machines, up to 64 KiB on some.
_PAGE, _LARGE_PAGE = 1 << 12, 1 << 16


def rows_per_shard(row_bytes: int, shard_bytes: int = SHARD_BYTES) -> int:
    """Return the rows of a shard for rows of this size.

    Args:
        row_bytes: bytes of one row.
        shard_bytes: what a shard should have, about.

    Returns:
        As many rows as fit, in whole large pages; in whole small pages where a large page's worth
        of rows would not fit; at least one small page's worth.
    """
    for page in (_LARGE_PAGE, _PAGE):
        quantum = page // math.gcd(page, row_bytes)
        if quantum * row_bytes <= shard_bytes:
            return shard_bytes // (quantum * row_bytes) * quantum
    return _PAGE // math.gcd(_PAGE, row_bytes)
