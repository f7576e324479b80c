"""Which leaks a data set can have, by its kind and fields, and what is a fault among them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from data_shards.content import Finding
from data_shards.dataset import ShardedDataset
from data_shards.gather import Rows
from data_shards.leakage import (
    Leak,
    duplicate_sequences,
    overlapping_loci,
    reverse_complement_duplicates,
    same_loci,
    shared_groups,
)
from data_shards.loci import SPLITS
from data_shards.sequence import UNKNOWN, Codes
from data_shards.store.schema import FieldEntry

MAX_DUPLICATES = 0.01
"""Share of the held-out samples whose input may be in another split too: genomes repeat."""

GROUP = "group"
"""Field that numbers the groups which a split was to keep together."""


def check_leaks(data: ShardedDataset, max_duplicates: float = MAX_DUPLICATES) -> list[Finding]:
    """Look for samples that more than one split has.

    The same locus, an overlap or a group in two splits is a fault. Equal inputs at different loci
    (repeats, paralogues) are told, and a fault if more than ``max_duplicates`` of the samples that
    are held out have one in another split.
    """
    split = np.asarray(data.whole("split"))
    held_out = max(1, int((split > 0).sum()))
    findings: list[Finding] = []
    if data.schema.kind == "windows":
        loci, length = data.loci, data.schema.window.length
        places = (loci.contig, loci.start, length, split)
        findings.append(_never("same locus", same_loci(*places)))
        findings.append(_never("overlapping loci", overlapping_loci(*places)))
    if any(field.name == GROUP for field in data.schema.fields):
        findings.append(_never("same group", shared_groups(data.whole(GROUP), split)))
    inputs = [field for field in data.schema.fields if field.role == "input"]
    if inputs:
        leak = duplicate_sequences(_bytes_of(data, inputs), split)
        findings.append(_seldom("equal inputs", leak, held_out, max_duplicates))
    sequences = [field for field in inputs if field.missing == UNKNOWN]
    if len(sequences) == 1 and len(inputs) == 1:
        [field] = sequences
        ragged = field.kind == "ragged"
        leak = reverse_complement_duplicates(
            lambda rows: data.gather(field.name, rows),
            split,
            lengths=data.whole(f"{field.name}.length") if ragged else None,
        )
        findings.append(_seldom("reverse complements", leak, held_out, max_duplicates))
    return findings


def _bytes_of(data: ShardedDataset, fields: list[FieldEntry]) -> Callable[[Rows], Codes]:
    """Read all inputs of samples as bytes: equal inputs, equal bytes."""

    def read(rows: Rows) -> Codes:
        parts: list[npt.NDArray[np.uint8]] = []
        for field in fields:
            values = np.ascontiguousarray(data.gather(field.name, rows)).reshape(len(rows), -1)
            parts.append(values.view(np.uint8))
            if field.kind == "ragged":  # padding must not make unequal ones equal
                lengths = data.array(f"{field.name}.length").take(rows)
                parts.append(np.ascontiguousarray(lengths[:, None]).view(np.uint8))
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    return read


def _never(name: str, leak: Leak) -> Finding:
    return Finding("leakage", leak.affected == 0, f"{name} in two splits: {_told(leak)}")


def _seldom(name: str, leak: Leak, held_out: int, limit: float) -> Finding:
    share = sum(leak.by_split[1:]) / held_out
    text = f"{name} in two splits: {_told(leak)}"
    if leak.affected:
        text += f"; {share:.2%} of the held-out samples, the limit is {limit:.2%}"
    return Finding("leakage", share <= limit, text)


def _told(leak: Leak) -> str:
    if not leak.affected:
        return "none"
    counts = ", ".join(f"{n:,} in {s}" for s, n in zip(SPLITS, leak.by_split, strict=True) if n)
    pairs = ", ".join(f"{a} and {b}" for a, b in leak.examples[:3])
    return f"{counts} (rows {pairs})"
