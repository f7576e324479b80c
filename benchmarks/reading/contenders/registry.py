"""All contenders, by group and name."""

from __future__ import annotations

from benchmarks.reading.contenders import (
    ahead,
    arrow,
    bigwig,
    blosc,
    cells,
    fasta,
    genvarloader,
    hdf5,
    limits,
    ours,
    streams,
    zarrs,
)
from benchmarks.reading.task import Contender

_FILES = (
    limits,
    ours,
    blosc,
    arrow,
    hdf5,
    zarrs,
    fasta,
    bigwig,
    genvarloader,
    streams,
    cells,
    ahead,
)

CONTENDERS: dict[tuple[str, str], Contender] = {
    (group, contender.name): contender
    for file in _FILES
    for contender in file.CONTENDERS
    for group in contender.groups
}
