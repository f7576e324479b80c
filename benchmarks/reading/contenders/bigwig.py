"""bigWig by pyBigWig and pybigtools."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.reading.data import BIN, BINS
from benchmarks.reading.task import Contender, Reader, Task, Windows, once


def read_windows(length: int, read: Callable[[int, int], Any]) -> Reader:
    """Make a reader from a function that gives the bins of one window."""

    def together(query: Windows) -> npt.NDArray[Any]:
        starts = query.start.tolist()
        return np.stack([np.asarray(read(at, at + length), dtype=np.float32) for at in starts])

    return once(together)


def pybigwig_values(task: Task) -> Reader:
    import pyBigWig

    file = pyBigWig.open(str(task.folder / "track.bw"))
    return read_windows(
        task.length,
        lambda start, end: (
            file.values("chr1", start, end, numpy=True).reshape(BINS, BIN).mean(axis=1)
        ),
    )


def pybigwig_stats(task: Task) -> Reader:
    import pyBigWig

    file = pyBigWig.open(str(task.folder / "track.bw"))
    return read_windows(
        task.length, lambda start, end: file.stats("chr1", start, end, nBins=BINS, exact=True)
    )


def pybigtools_values(task: Task) -> Reader:
    import pybigtools

    file = pybigtools.open(str(task.folder / "track.bw"))
    return read_windows(
        task.length,
        lambda start, end: file.values("chr1", start, end).reshape(BINS, BIN).mean(axis=1),
    )


def pybigtools_bins(task: Task) -> Reader:
    import pybigtools

    file = pybigtools.open(str(task.folder / "track.bw"))
    return read_windows(
        task.length,
        lambda start, end: file.values("chr1", start, end, bins=BINS, summary="mean", exact=True),
    )


def _one(name: str, open_: Callable[[Task], Reader], package: str, how: str) -> Contender:
    return Contender(name, ("tracks",), open_, ("track.bw",), packages=(package,), how=how)


CONTENDERS = (
    _one("pyBigWig values", pybigwig_values, "pyBigWig", "bases of a window, averaged by numpy"),
    _one("pyBigWig stats", pybigwig_stats, "pyBigWig", "`stats`, 1,024 bins, exact"),
    _one("pybigtools values", pybigtools_values, "pybigtools", "bases, averaged by numpy"),
    _one("pybigtools bins", pybigtools_bins, "pybigtools", "`values`, 1,024 bins, exact"),
)
