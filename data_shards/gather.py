"""Gathering a batch of one field from its arrays: one vectorised step a kind, no loop over samples.

All functions take ``rows``, sample numbers of any order, int64, shape (batch,).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.augment import Draws, apply_codes, apply_tracks
from data_shards.contigs import Contigs
from data_shards.kernels import compiled, copy_windows, scatter_rows
from data_shards.sequence import Codes, reverse_complement
from data_shards.store.mapped import MappedArray
from data_shards.store.reader import ArrayReader
from data_shards.store.schema import FieldEntry, Schema

Rows = npt.NDArray[np.int64]
Arrays = Callable[[str], ArrayReader]
"""From the name of an array of the group to its reader; opens it at first use."""


@dataclass(frozen=True)
class Ragged:
    """Samples of different lengths, end to end.

    Attributes:
        values: shape (sum of lengths,).
        lengths: int64, shape (batch,).
    """

    values: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]

    def mask(self, width: int) -> npt.NDArray[np.bool_]:
        """True where a padded sample has a value, shape (batch, width)."""
        return np.arange(width) < self.lengths[:, None]

    def padded(self, width: int, pad: float) -> npt.NDArray[Any]:
        """Return the samples with ``pad`` after their ends, shape (batch, width)."""
        out = np.full((len(self.lengths), width), pad, dtype=self.values.dtype)
        out[self.mask(width)] = self.values
        return out


def gather(
    field: FieldEntry, schema: Schema, arrays: Arrays, rows: Rows, draws: Draws | None = None
) -> npt.NDArray[Any]:
    """Gather a batch.

    Args:
        field: what to gather.
        schema: of the data set.
        arrays: opens its arrays.
        rows: sample numbers.
        draws: how each sample is augmented, if at all: windows move, turn to the other strand and
            are masked, tracks turn with them.

    Returns:
        Shape (batch, *field.shape), dtype field.dtype; see the table in ``store/schema.py``.
    """
    if field.kind == "window":
        codes = _windows(schema, arrays, rows, None if draws is None else draws.shift)
        return codes if draws is None else apply_codes(draws, codes)
    if field.kind == "track":
        bins = _track(field, schema, arrays, rows)
        return bins if draws is None else apply_tracks(draws, bins, _swap(field))
    if field.kind == "ragged":
        if field.pad is None:
            raise ValueError(f"field {field.name!r} has no pad value")
        return ragged(field, arrays, rows).padded(field.shape[0], field.pad)
    if field.kind == "sparse":
        return _sparse(field, arrays, rows)
    return arrays(field.name).take(rows)


def ragged(field: FieldEntry, arrays: Arrays, rows: Rows) -> Ragged:
    """Gather a batch of a ragged (or the values of a sparse) field, end to end."""
    places, lengths = _places(field, arrays, rows)
    return Ragged(arrays(f"{field.name}.values").take(places), lengths)


def _places(field: FieldEntry, arrays: Arrays, rows: Rows) -> tuple[Rows, Rows]:
    """Return the places of the samples' values in the pool, end to end, and their lengths."""
    start = arrays(f"{field.name}.start").take(rows)
    lengths = arrays(f"{field.name}.length").take(rows).astype(np.int64)
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(start - (ends - lengths), lengths), lengths


def shift_limits(schema: Schema, arrays: Arrays, rows: Rows) -> tuple[Rows, Rows]:
    """Say how far each window can move to the left (negative) and to the right on its contig."""
    start = arrays("start").take(rows)
    lengths = np.array(schema.reference.lengths, dtype=np.int64)[arrays("contig").take(rows)]
    return -start, lengths - (start + schema.window.length)


def _windows(schema: Schema, arrays: Arrays, rows: Rows, shift: Rows | None) -> Codes:
    readers = [arrays(name) for name in ("reference", "contig", "start", "strand")]
    mapped = [reader for reader in readers if isinstance(reader, MappedArray)]
    if len(mapped) == len(readers):
        return _mapped_windows(schema, mapped, rows, shift)
    reference, contig, start, strand = readers
    begin = schema.reference.offsets[contig.take(rows)] + start.take(rows)
    codes: Codes = reference.slices(begin if shift is None else begin + shift, schema.window.length)
    backward = strand.take(rows) < 0
    if backward.any():
        codes[backward] = reverse_complement(codes[backward])
    return codes


def _mapped_windows(
    schema: Schema, mapped: list[MappedArray], rows: Rows, shift: Rows | None
) -> Codes:
    """Read loci and bases in one pass: at 1,000 bp the loci would cost as much as the bases."""
    contigs = schema.reference
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    out = np.empty((len(rows), schema.window.length), dtype=np.uint8)
    moves = np.zeros(len(rows), dtype=np.int64) if shift is None else shift
    for reader in mapped[1:]:
        reader.glance()
    bad = mapped[0].run(
        compiled(copy_windows),
        *(reader.array for reader in mapped),
        contigs.offsets,
        contigs.sizes,
        rows,
        moves,
        out,
    )
    if bad >= 0:
        raise IndexError(f"row {rows[bad]:,} is no sample, or its window is not on its contig")
    return out


def _track(field: FieldEntry, schema: Schema, arrays: Arrays, rows: Rows) -> npt.NDArray[Any]:
    size = _bin(field)
    begin = bin_offsets(schema, size)[arrays("contig").take(rows)]
    begin = begin + arrays("start").take(rows) // size
    bins = arrays(field.name).slices(begin, field.shape[0])
    backward = arrays("strand").take(rows) < 0
    if backward.any():
        turned = bins[backward][:, ::-1]
        swap = _swap(field)
        bins[backward] = turned if swap is None else turned[:, :, swap]
    return bins


def _swap(field: FieldEntry) -> Rows | None:
    """Which channel takes the place of each on the other strand; None if all stay."""
    return np.array(field.swap, dtype=np.int64) if field.swap else None


def _bin(field: FieldEntry) -> int:
    if field.bin is None:
        raise ValueError(f"field {field.name!r} is no track")
    return field.bin


def bin_offsets(schema: Schema, size: int) -> npt.NDArray[np.int64]:
    """Where each contig's bins begin when those of all contigs lie end to end, int64."""
    return _bin_offsets(schema.reference, size)


@lru_cache(maxsize=8)
def _bin_offsets(contigs: Contigs, size: int) -> npt.NDArray[np.int64]:
    counts = -(-contigs.sizes // size)
    offsets = np.concatenate([[0], np.cumsum(counts)[:-1]]).astype(np.int64)
    offsets.flags.writeable = False
    return offsets


def _sparse(field: FieldEntry, arrays: Arrays, rows: Rows) -> npt.NDArray[Any]:
    parts = ("values", "indices", "start", "length")
    readers = [arrays(f"{field.name}.{part}") for part in parts]
    mapped = [reader for reader in readers if isinstance(reader, MappedArray)]
    rows = np.ascontiguousarray(rows, dtype=np.int64)
    out = np.zeros((len(rows), field.shape[0]), dtype=field.dtype)
    if len(mapped) == len(readers):
        for reader in mapped[1:]:
            reader.glance()
        bad = mapped[0].run(compiled(scatter_rows), *(r.array for r in mapped), rows, out)
    else:
        places, lengths = _places(field, arrays, rows)
        values, indices = (reader.take(places) for reader in readers[:2])
        begins = np.cumsum(lengths) - lengths
        own = np.arange(len(rows), dtype=np.int64)
        bad = compiled(scatter_rows)(values, indices, begins, lengths.astype(np.int32), own, out)
    if bad >= 0:
        raise IndexError(f"row {rows[bad]:,} is no sample, or its values are not in the pool")
    return out
