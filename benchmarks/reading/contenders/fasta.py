"""FASTA by pysam and pyfaidx, and by selene-sdk, which reads it through pyfaidx."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading.task import WINDOWS, Contender, Reader, Task, Windows, once

# bytes.translate is several times faster than a numpy table.
TABLE = bytes.maketrans(b"ACGTNacgtn", bytes([0, 1, 2, 3, 4] * 2))


def read_letters(fetch: Any, length: int) -> Reader:
    """Make a reader from a function that gives the letters of one window as a string."""

    def read(query: Windows) -> npt.NDArray[Any]:
        out = np.empty((len(query.contig), length), dtype=np.uint8)
        for place, (contig, start) in enumerate(
            zip(query.contig, query.start.tolist(), strict=True)
        ):
            letters = fetch(contig, start, start + length)
            out[place] = np.frombuffer(letters.encode().translate(TABLE), dtype=np.uint8)
        return out

    return once(read)


def pysam(task: Task) -> Reader:
    import pysam as library

    return read_letters(library.FastaFile(str(_path(task))).fetch, task.length)


def pyfaidx(task: Task) -> Reader:
    import pyfaidx as library

    genome = library.Fasta(str(_path(task)), as_raw=True)
    return read_letters(lambda contig, start, end: genome[contig][start:end], task.length)


def selene(task: Task) -> Reader:
    from selene_sdk.sequences import Genome

    genome = Genome(str(_path(task)))
    length = task.length

    def read(query: Windows) -> npt.NDArray[Any]:
        return np.stack(
            [
                genome.get_encoding_from_coords(contig, start, start + length)
                for contig, start in zip(query.contig, query.start.tolist(), strict=True)
            ]
        )

    return once(read)


def _path(task: Task) -> Any:
    return task.folder / "fasta" / "genome.fa"


_FASTA = ("fasta",)

CONTENDERS = (
    Contender(
        "pysam",
        WINDOWS,
        pysam,
        _FASTA,
        packages=("pysam",),
        how="`fetch` a window, then codes by a table",
    ),
    Contender(
        "pyfaidx",
        WINDOWS,
        pyfaidx,
        _FASTA,
        environment="common",
        packages=("pyfaidx",),
        how="a slice a window, then codes by a table",
    ),
    Contender(
        "selene-sdk",
        WINDOWS,
        selene,
        _FASTA,
        environment="selene",
        packages=("selene-sdk", "torch"),
        how="`get_encoding_from_coords` a window: one-hot float32; installed against its own pin "
        "(torch <= 2.3.1)",
        form="one-hot",
    ),
)
