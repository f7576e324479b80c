"""The input files, every format from one seed.

    python -m benchmarks.reading.data FORMAT --to FOLDER [--quick]

The raw files (what numpy maps) are made first; every other format holds the same numbers, written
by the library that reads it, in that library's environment. A file that is there is not made again.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

SEED = 20260101
BIN = 128
BINS = 1024
TRACK_WINDOW = BIN * BINS
INPUTS, TARGETS = 943, 9520
GENES, NONZEROS = 20_000, 2_000


@dataclass(frozen=True)
class Sizes:
    """How much of everything there is.

    Attributes:
        name: in the folder's name.
        genome: bp, over four contigs.
        rows: of 1,000 codes and 919 bits.
        matrix: rows of 943 and 9,520 float32.
        cells: rows of the sparse matrix.
        track: bp of the one contig with a signal.
    """

    name: str
    genome: int
    rows: int
    matrix: int
    cells: int
    track: int


FULL = Sizes("full", 250_000_000, 524_288, 12_288, 49_152, 64_000_000)
QUICK = Sizes("quick", 4_000_000, 32_768, 1_024, 2_048, 2_000_000)

# Primes near a round number: windows then begin anywhere in a page and a chunk.
STRIDES = {1_000: 997, 131_072: 99_991, 196_608: 99_991}


def contig_lengths(sizes: Sizes) -> dict[str, int]:
    """Name and length of the genome's contigs: 40, 30, 20 and 10 % of it, none of them round."""
    shares = {"chr1": 40, "chr2": 30, "chr3": 20}
    lengths = {name: sizes.genome * share // 100 + 7 * share for name, share in shares.items()}
    return {**lengths, "chr4": sizes.genome - sum(lengths.values())}


@dataclass(frozen=True)
class Samples:
    """The windows of a data set: number of the contig and first base, shape (samples,)."""

    contig: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]


def samples(sizes: Sizes, length: int) -> Samples:
    """Tile the genome with windows of a length."""
    starts = [
        np.arange(0, size - length + 1, STRIDES[length], dtype=np.int64)
        for size in contig_lengths(sizes).values()
    ]
    contig = np.repeat(np.arange(len(starts), dtype=np.int32), [len(s) for s in starts])
    return Samples(contig, np.concatenate(starts))


def offsets(sizes: Sizes) -> npt.NDArray[np.int64]:
    """Where each contig begins when all lie end to end."""
    lengths = list(contig_lengths(sizes).values())
    return np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)


def track_starts(sizes: Sizes) -> npt.NDArray[np.int64]:
    """First bases of the windows on the contig with a signal; multiples of the bin."""
    return np.arange(0, sizes.track - TRACK_WINDOW + 1, 781 * BIN, dtype=np.int64)


def raw(folder: Path, name: str) -> npt.NDArray[Any]:
    """Map a raw file as a plain numpy array (not the memmap subclass, which is slow to slice)."""
    dtype, row = RAW[name]
    flat = np.asarray(np.memmap(folder / f"{name}.raw", dtype=dtype, mode="r"))
    return flat.reshape(-1, *row)


RAW: dict[str, tuple[str, tuple[int, ...]]] = {
    "genome": ("uint8", ()),
    "rows-codes": ("uint8", (1000,)),
    "rows-labels": ("uint8", (115,)),
    "matrix-inputs": ("float32", (INPUTS,)),
    "matrix-targets": ("float32", (TARGETS,)),
    "cells-values": ("uint16", ()),
    "cells-indices": ("uint16", ()),
    "cells-offsets": ("int64", ()),
    "track-bins": ("float16", ()),
    "track-bases": ("float32", ()),
}


OURS = tuple(
    [f"windows-{length}.zarr" for length in STRIDES]
    + ["rows.zarr", "rows-lz4.zarr", "matrix.zarr", "cells.zarr", "track.zarr"]
)


def make_genome(folder: Path, sizes: Sizes) -> None:
    """Random codes with some runs of N."""
    generator = np.random.default_rng([SEED, 1])
    codes = generator.integers(0, 4, sizes.genome, dtype=np.uint8)
    for start in generator.integers(0, sizes.genome - 5_000, 40):
        codes[start : start + int(generator.integers(1, 5_000))] = 4
    codes.tofile(folder / "genome.raw")


def make_rows(folder: Path, sizes: Sizes) -> None:
    """Random codes; two in a hundred labels are set."""
    generator = np.random.default_rng([SEED, 2])
    with (
        (folder / "rows-codes.raw").open("wb") as codes,
        (folder / "rows-labels.raw").open("wb") as labels,
    ):
        for _ in range(0, sizes.rows, 16_384):
            generator.integers(0, 4, (16_384, 1000), dtype=np.uint8).tofile(codes)
            bits = generator.random((16_384, 919), dtype=np.float32) < 0.02
            np.packbits(bits, axis=1, bitorder="little").tofile(labels)


def make_matrix(folder: Path, sizes: Sizes) -> None:
    """Normally distributed float32."""
    generator = np.random.default_rng([SEED, 3])
    for name, width in (("inputs", INPUTS), ("targets", TARGETS)):
        with (folder / f"matrix-{name}.raw").open("wb") as stream:
            for _ in range(0, sizes.matrix, 512):
                generator.standard_normal((512, width), dtype=np.float32).tofile(stream)


def make_cells(folder: Path, sizes: Sizes) -> None:
    """Counts of about a tenth of the genes in each cell; CSR with 16-bit genes and counts."""
    generator = np.random.default_rng([SEED, 4])
    lengths = []
    with (
        (folder / "cells-values.raw").open("wb") as values,
        (folder / "cells-indices.raw").open("wb") as indices,
    ):
        for _ in range(0, sizes.cells, 512):
            chosen = generator.random((512, GENES), dtype=np.float32) < NONZEROS / GENES
            lengths.append(chosen.sum(axis=1, dtype=np.int64))
            np.nonzero(chosen)[1].astype(np.uint16).tofile(indices)
            total = int(lengths[-1].sum())
            generator.geometric(0.4, total).astype(np.uint16).tofile(values)
    ends = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    ends.astype(np.int64).tofile(folder / "cells-offsets.raw")


def make_track(folder: Path, sizes: Sizes) -> None:
    """A signal of steps: whole values below 128 over runs of 8, 16, ... bp.

    The mean of a bin is then exact in float16, so every reader can be held to the same numbers.
    """
    generator = np.random.default_rng([SEED, 5])
    runs = sizes.track // 8
    changes = np.cumsum(generator.random(runs, dtype=np.float32) < 1 / 3)
    values = generator.integers(0, 128, int(changes[-1]) + 1).astype(np.float32)[changes]
    np.repeat(values, 8).tofile(folder / "track-bases.raw")
    values.reshape(-1, BIN // 8).mean(axis=1).astype(np.float16).tofile(folder / "track-bins.raw")


RAW_MAKERS: dict[str, Callable[[Path, Sizes], None]] = {
    "genome": make_genome,
    "rows": make_rows,
    "matrix": make_matrix,
    "cells": make_cells,
    "track": make_track,
}


def recipe(name: str) -> str:
    """Return what a file depends on beyond its name: for our own stores, the code that writes."""
    if name in RAW_MAKERS or name not in OURS:
        return "1"
    here = Path(__file__).resolve()
    library = sorted((here.parents[2] / "data_shards" / "store").glob("*.py"))
    code = [*library, here.with_name("stores.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in code)).hexdigest()


def made(folder: Path, name: str) -> bool:
    """Whether a format is there and as it would be made now."""
    mark = _mark(folder, name)
    return mark.exists() and mark.read_text() == recipe(name)


def _mark(folder: Path, name: str) -> Path:
    return folder / f".{name}.made"


def make(name: str, folder: Path, sizes: Sizes) -> None:
    """Make one format, unless it is there: written beside its place, then renamed into it."""
    from benchmarks.reading.formats import FORMATS

    if made(folder, name):
        return
    folder.mkdir(parents=True, exist_ok=True)
    if name in RAW_MAKERS:
        RAW_MAKERS[name](folder, sizes)
    else:
        target = folder / name
        for stale in (target, folder / f"partial-{name}"):
            if stale.is_dir():
                shutil.rmtree(stale)
        partial = folder / f"partial-{name}"
        FORMATS[name].write(folder, partial, sizes)
        partial.rename(target)
    _mark(folder, name).write_text(recipe(name))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make one input file.")
    parser.add_argument("format")
    parser.add_argument("--to", type=Path, required=True, help="folder")
    parser.add_argument("--quick", action="store_true", help="small")
    options = parser.parse_args()
    make(options.format, options.to, QUICK if options.quick else FULL)


if __name__ == "__main__":
    main()
