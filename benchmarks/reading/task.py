"""What a contender is, and what it is asked to read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.reading.data import Sizes

Answer = tuple[npt.NDArray[Any], ...]
"""One batch, an array a field."""

Form = Literal["codes", "letters", "one-hot", "keyed"]
"""How a batch is given: as asked for; sequences as letters or one-hot; or in an order of the
reader's own, with the row numbers as the last array."""


@dataclass(frozen=True)
class Windows:
    """A batch of windows, each named in all the ways that contenders name one.

    Attributes:
        rows: sample numbers, int64, shape (batch,).
        contig: names of the contigs.
        number: of the contig in the genome, int32, shape (batch,).
        start: first base on the contig, int64, shape (batch,).
        flat: first base when all contigs lie end to end, int64, shape (batch,).
    """

    rows: npt.NDArray[np.int64]
    contig: tuple[str, ...]
    number: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    flat: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Block:
    """Consecutive rows, to be given shuffled, in batches.

    Attributes:
        start: first row.
        order: shuffled places within the block, int64, shape (batches, batch).
    """

    start: int
    order: npt.NDArray[np.int64]

    @property
    def stop(self) -> int:
        """End row."""
        return self.start + self.order.size


Query = Windows | Block
Reader = Callable[[Any], Iterator[Answer]]


@dataclass(frozen=True)
class Task:
    """What a group asks of every contender.

    Attributes:
        group: its name.
        folder: where the input files are.
        sizes: of the input.
        length: bp of a window; 0 where there are none.
        batch: samples of a batch.
        block: rows of a block; 0 for windows.
    """

    group: str
    folder: Path
    sizes: Sizes
    length: int
    batch: int
    block: int


@dataclass(frozen=True)
class Contender:
    """One way to read.

    Attributes:
        name: as the table shows it; unique in its groups.
        groups: which groups it takes part in.
        open: opens the files and returns the reader: from a query to its batches.
        formats: input files it needs, by their names in ``data.FORMATS``; ``{length}`` is filled.
        environment: where it runs, by its name in ``envs.ENVIRONMENTS``.
        packages: distributions whose versions the table shows.
        how: what it does, in a few words.
        form: how it gives sequences.
        whole: reads a block at a time, so that a slice of time must end with a block.
        threads: "many" is not pinned to a core.
        ours: it is data_shards.
    """

    name: str
    groups: tuple[str, ...]
    open: Callable[[Task], Reader]
    formats: tuple[str, ...]
    environment: str = "main"
    packages: tuple[str, ...] = ("numpy",)
    how: str = ""
    form: Form = "codes"
    whole: bool = False
    threads: Literal["one", "many"] = "one"
    ours: bool = False


WINDOWS = ("windows-1k", "windows-131k", "windows-196k")


def batches(read: Callable[[Block], Answer], finish: Callable[[Answer], Answer]) -> Reader:
    """Make a reader of blocks: read the block once, then gather each shuffled batch from it."""

    def reader(block: Block) -> Iterator[Answer]:
        fields = read(block)
        for places in block.order:
            yield finish(tuple(field[places] for field in fields))

    return reader


def rows_at_random(take: Callable[[npt.NDArray[np.int64]], Answer]) -> Reader:
    """Make a reader of blocks that asks for the rows of each batch by their numbers."""

    def reader(block: Block) -> Iterator[Answer]:
        for places in block.order:
            yield take(block.start + places)

    return reader


def once(read: Callable[[Windows], npt.NDArray[Any]]) -> Reader:
    """Make a reader of windows from a function that reads one batch."""

    def reader(windows: Windows) -> Iterator[Answer]:
        yield (read(windows),)

    return reader


def unpacked(answer: Answer) -> Answer:
    """Decode the labels of a batch of rows: bits to zeros and ones, uint8."""
    codes, labels = answer[0], answer[1]
    return codes, np.unpackbits(labels, axis=1, count=LABELS, bitorder="little"), *answer[2:]


def as_is(answer: Answer) -> Answer:
    """Leave a batch as it is."""
    return answer


LABELS = 919
ROW = 1000
LABEL_BYTES = -(-LABELS // 8)
