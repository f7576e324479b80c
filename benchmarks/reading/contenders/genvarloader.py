"""GenVarLoader: reference windows, and signals from a bigWig or from its own data set."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading import data
from benchmarks.reading.contenders.fasta import TABLE
from benchmarks.reading.data import BIN, BINS
from benchmarks.reading.task import WINDOWS, Contender, Reader, Task, Windows, once


def fetch(task: Task, *, in_memory: bool, codes: bool) -> Reader:
    import genvarloader as gvl

    path = task.folder / "fasta" / "genome.fa"
    reference = gvl.Reference.from_path(path, in_memory=in_memory)
    length = task.length

    def read(query: Windows) -> npt.NDArray[Any]:
        found = reference.fetch(query.number, query.start, query.start + length)
        letters: npt.NDArray[Any] = np.asarray(found.data).view(np.uint8)
        if codes:
            letters = np.frombuffer(letters.tobytes().translate(TABLE), dtype=np.uint8)
        return letters.reshape(-1, length)

    return once(read)


def regions(task: Task) -> Reader:
    import genvarloader as gvl
    import polars as pl

    samples = data.samples(task.sizes, task.length)
    names = np.array(list(data.contig_lengths(task.sizes)))
    bed = pl.DataFrame(
        {
            "chrom": names[samples.contig],
            "chromStart": samples.start,
            "chromEnd": samples.start + task.length,
        }
    )
    reference = gvl.Reference.from_path(task.folder / "fasta" / "genome.fa")
    dataset = gvl.RefDataset(reference, bed).with_len(task.length)
    return once(lambda query: np.asarray(dataset[query.rows]).view(np.uint8))


def bigwig(task: Task) -> Reader:
    import genvarloader as gvl

    tracks = gvl.BigWigs("signal", {"sample": str(task.folder / "track.bw")})

    def read(query: Windows) -> npt.NDArray[Any]:
        values = tracks.read("chr1", query.start, query.start + task.length)
        bins: npt.NDArray[Any] = np.asarray(values).reshape(-1, BINS, BIN).mean(axis=2)
        return bins

    return once(read)


def dataset(task: Task) -> Reader:
    import genvarloader as gvl

    opened = gvl.Dataset.open(task.folder / "track.gvl").with_tracks("signal")
    opened = opened.with_len(task.length)

    def read(query: Windows) -> npt.NDArray[Any]:
        values = np.asarray(opened[query.rows, 0])
        bins: npt.NDArray[Any] = values.reshape(-1, BINS, BIN).mean(axis=2)
        return bins

    return once(read)


def _one(name: str, groups: tuple[str, ...], open_: Any, formats: Any, how: str) -> Contender:
    letters = groups == WINDOWS and "codes" not in name
    return Contender(
        name,
        groups,
        open_,
        formats,
        environment="genvarloader",
        packages=("genvarloader",),
        how=how,
        form="letters" if letters else "codes",
        threads="many",
    )


_FASTA = ("fasta",)

CONTENDERS = (
    _one(
        "GenVarLoader fetch",
        WINDOWS,
        partial(fetch, in_memory=True, codes=False),
        _FASTA,
        "`Reference.fetch` from memory; letters",
    ),
    _one(
        "GenVarLoader fetch, mapped",
        WINDOWS,
        partial(fetch, in_memory=False, codes=False),
        _FASTA,
        "`Reference.fetch` from its map; letters",
    ),
    _one(
        "GenVarLoader fetch, then codes",
        WINDOWS,
        partial(fetch, in_memory=True, codes=True),
        _FASTA,
        "`Reference.fetch` from memory, then codes by a table",
    ),
    _one(
        "GenVarLoader RefDataset",
        WINDOWS,
        regions,
        _FASTA,
        "regions given beforehand, one index a batch; letters",
    ),
    _one(
        "GenVarLoader BigWigs",
        ("tracks",),
        bigwig,
        ("track.bw",),
        "`read` of bases (by pyBigWig), averaged by numpy",
    ),
    _one(
        "GenVarLoader Dataset",
        ("tracks",),
        dataset,
        ("track.bw", "track.gvl"),
        "its own store of intervals; bases, averaged by numpy",
    ),
)
