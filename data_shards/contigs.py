"""Contigs of a reference, and the stated rule by which other files name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

NamingRule = Literal["same", "strip-chr", "add-chr"]


@dataclass(frozen=True)
class Contigs:
    """Names and lengths (bp) of a reference's contigs, in the order of the reference.

    All positions are 0-based. ``offsets[i]`` is where contig i starts when all are laid end to end.
    """

    names: tuple[str, ...]
    lengths: tuple[int, ...]

    @cached_property
    def index(self) -> dict[str, int]:
        """Contig name -> its number."""
        return {name: number for number, name in enumerate(self.names)}

    @cached_property
    def offsets(self) -> npt.NDArray[np.int64]:
        """Start of each contig in the concatenated reference, int64, shape (contigs,)."""
        return np.concatenate([[0], np.cumsum(self.lengths[:-1])]).astype(np.int64)

    @cached_property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Length of each contig, int64, shape (contigs,)."""
        return np.array(self.lengths, dtype=np.int64)

    @property
    def total(self) -> int:
        """Bases in all contigs together."""
        return sum(self.lengths)


@dataclass(frozen=True)
class Naming:
    """How interval files name the contigs of the reference; explicit, never guessed.

    ``renames`` is applied first and wins; ``rule`` is applied to every other name.
    """

    rule: NamingRule = "same"
    renames: tuple[tuple[str, str], ...] = ()

    def translate(self, name: str) -> str:
        """Return the reference's name for a name of an interval file."""
        renamed = dict(self.renames).get(name)
        if renamed is not None:
            return renamed
        if self.rule == "strip-chr":
            return name.removeprefix("chr")
        if self.rule == "add-chr":
            return f"chr{name}"
        return name


def naming_hint(name: str, contigs: Contigs) -> str:
    """Return the remedy for a contig name that is not in the reference."""
    if name.startswith("chr") and name.removeprefix("chr") in contigs.index:
        return (
            f"the FASTA calls it {name.removeprefix('chr')!r}: "
            'set [reference] interval_contigs = "strip-chr"'
        )
    if f"chr{name}" in contigs.index:
        return f"the FASTA calls it 'chr{name}': set [reference] interval_contigs = \"add-chr\""
    known = ", ".join(contigs.names[:8]) + (", ..." if len(contigs.names) > 8 else "")
    return (
        f"the FASTA has {known}; map the name in [reference.renames], "
        "or take the line out of the file"
    )


_ROMAN = re.compile(r"^(?:chr)?([IVX]+)$")
_NUMBER = re.compile(r"(\d+)")


def _natural(name: str) -> tuple[object, ...]:
    """Sort key in which chr2 comes before chr10, numbers before letters, and X, Y, M last."""
    bare = name.removeprefix("chr")
    rank = {"X": 1, "Y": 2, "M": 3, "MT": 3, "Mito": 3}.get(bare)
    if rank is not None:
        return (1, rank)
    pieces = _NUMBER.split(bare)
    return (0, *((0, int(p), "") if p.isdigit() else (1, 0, p) for p in pieces if p))


def _roman(name: str) -> tuple[int, int, str]:
    """Sort key by Roman numeral; names that are none come last."""
    match = _ROMAN.match(name)
    if match is None:
        return (1, 0, name)
    digits = [{"I": 1, "V": 5, "X": 10}[letter] for letter in match[1]]
    value = sum(
        -digit if any(later > digit for later in digits[i + 1 : i + 2]) else digit
        for i, digit in enumerate(digits)
    )
    return (0, value, "")


def first_unsorted(contigs: Contigs) -> int | None:
    """Find the first contig that breaks the order of a reference, or None if it is sorted.

    Sorted means: by name (chr1, chr10, chr2), naturally (chr1, chr2, chr10, ..., chrX), by Roman
    numeral (I, II, ... IX, X), or by descending length without ties. The index returned is the
    latest first break over these orders, which is the one that names the real culprit.
    """
    names, lengths = contigs.names, contigs.lengths
    by_length = dict(zip(names, lengths, strict=True))
    orders: Sequence[Callable[[str], object]] = (
        lambda name: name,
        _natural,
        _roman,
        lambda name: -by_length[name],
    )
    latest = 0
    for order in orders:
        keys = [order(name) for name in names]
        breaks = [i for i in range(1, len(keys)) if keys[i] <= keys[i - 1]]  # type: ignore[operator]
        if not breaks:
            return None
        latest = max(latest, breaks[0])
    return latest
