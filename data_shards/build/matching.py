"""Which row of each source is which sample: pure functions over names and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from data_shards.errors import InputError


@dataclass(frozen=True)
class Matched:
    """Samples, and where each source has them.

    Attributes:
        names: of the samples, in the order of the first source; empty if matched by position.
        count: number of samples.
        rows: source -> int64 (count,), the source's row of each sample.
        dropped: samples of the first source that some other source lacks.
    """

    names: tuple[str, ...]
    count: int
    rows: Mapping[str, npt.NDArray[np.int64]]
    dropped: int


def match_by_position(counts: Mapping[str, int]) -> Matched:
    """Take sample i from row i of every source.

    Args:
        counts: source -> number of its rows; at least one.

    Raises:
        InputError: the sources do not have the same number of rows; names two that differ.
    """
    first, count = next(iter(counts.items()))
    for source, other in counts.items():
        if other != count:
            raise InputError(
                f"{first} has {count:,} samples and {source} has {other:,}: "
                "by position they can't be matched",
                remedy="give files of the same samples in the same order",
            )
    rows = np.arange(count, dtype=np.int64)
    return Matched((), count, dict.fromkeys(counts, rows), 0)


def match_by_name(
    names: Mapping[str, Sequence[str]], unmatched: Literal["error", "drop"]
) -> Matched:
    """Find the samples of the first source in every other one.

    Args:
        names: source -> the sample names of its rows; at least one source. Names are unique in it.
        unmatched: what to do with samples that not every source has.

    Raises:
        InputError: a name is there twice in a source; a sample is not in every source, and
            ``unmatched`` is "error"; or no sample is in all of them.
    """
    places = {source: _places(source, listed) for source, listed in names.items()}
    first, *others = places
    shared = [n for n in places[first] if all(n in places[other] for other in others)]
    everyone = set().union(*places.values())
    if unmatched == "error" and len(everyone) > len(shared):
        raise _lacking(places)
    if not shared:
        raise InputError(
            f"no sample of {first} is in all of {', '.join(others)}",
            remedy="check that the names are written alike in all files",
        )
    rows = {
        source: np.array([place[name] for name in shared], dtype=np.int64)
        for source, place in places.items()
    }
    return Matched(tuple(shared), len(shared), rows, len(everyone) - len(shared))


def _places(source: str, listed: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for row, name in enumerate(listed):
        if found.setdefault(name, row) != row:
            raise InputError(
                f"{source}: sample {name!r} is there twice (samples {found[name] + 1} and "
                f"{row + 1})",
                remedy='give each sample its own name, or set samples.match = "position"',
            )
    return found


def _lacking(places: Mapping[str, Mapping[str, int]]) -> InputError:
    """Name a sample that one source has and another lacks."""
    for source, mine in places.items():
        for other, theirs in places.items():
            lacking = [name for name in mine if name not in theirs]
            if lacking:
                return InputError(
                    f"{len(lacking):,} samples of {source} are not in {other}, "
                    f"the first is {lacking[0]!r}",
                    remedy='correct the names, or set samples.unmatched = "drop"',
                )
    raise AssertionError("all sources have the same samples")


def positions(
    rows: npt.NDArray[np.int64], order: npt.NDArray[np.int64], count: int
) -> npt.NDArray[np.int64]:
    """Say where each row of a source goes in the data set.

    Args:
        rows: the source's row of each sample, shape (samples,).
        order: the sample at each place of the data set, shape (samples,).
        count: rows in the source.

    Returns:
        int64, shape (count,): the place of each row, -1 for rows that are no sample.
    """
    places = np.full(count, -1, dtype=np.int64)
    places[rows[order]] = np.arange(len(order))
    return places
