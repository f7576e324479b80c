"""Windows over a reference: their geometry, and the table of where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data_shards.documents import Document

SPLITS = ("train", "valid", "test")


class WindowSpec(Document):
    """Tiling: windows of ``length`` bp every ``stride`` bp, labelled by their central ``center``.

    The defaults are DeepSEA's: 1,000 bp around a 200-bp bin, bins end to end.
    """

    length: int = Field(1000, ge=1)
    center: int = Field(200, ge=1)
    stride: int = Field(200, ge=1)
    strands: Literal["+", "both"] = Field(
        "+", description='"both" adds the reverse complement of each window as a sample of its own'
    )

    @property
    def flank(self) -> int:
        """Context on either side of the centre, bp."""
        return (self.length - self.center) // 2

    @model_validator(mode="after")
    def _center_fits(self) -> Self:
        if self.center > self.length or (self.length - self.center) % 2:
            raise ValueError(
                f"center ({self.center}) must fit into length ({self.length}) with equal flanks"
            )
        return self


@dataclass(frozen=True)
class Loci:
    """A table of windows; row i of it is sample i. All arrays have shape (samples,).

    Attributes:
        contig: int32, number of the contig in the reference.
        start: int64, first base of the window, 0-based on the forward strand.
        strand: int8, +1 or -1 (then the sequence is read as its reverse complement).
        split: uint8, index into :data:`SPLITS`. Rows of one split are contiguous.
    """

    contig: npt.NDArray[np.int32]
    start: npt.NDArray[np.int64]
    strand: npt.NDArray[np.int8]
    split: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.start)

    def rows(self, start: int, stop: int) -> Loci:
        """Rows ``start`` to ``stop`` (exclusive) as a table of their own."""
        part = slice(start, stop)
        return Loci(self.contig[part], self.start[part], self.strand[part], self.split[part])
