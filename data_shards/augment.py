"""Augmentation of sequences and their targets: draws that are pure functions of sample and epoch.

What is done to a sample depends on the seed, the epoch and the sample's number, and on nothing
else: not on the batch it comes in, nor on who asks. So the worker that reads inputs and the one
that reads targets compute the same draws and never talk. Each kind of draw has a key of its own:
switching one on leaves the others as they were.

The order of use: :func:`draw`; add ``Draws.shift`` to the starts of the windows; gather;
:func:`apply_codes` to the sequences, :func:`apply_tracks` and :func:`apply_labels` to the targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from data_shards.documents import Document
from data_shards.errors import InputError
from data_shards.hashing import key, mix
from data_shards.kernels import compiled
from data_shards.sequence import UNKNOWN, Codes

Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
NumberT = TypeVar("NumberT", bound=np.generic)

# What seed and epoch are used for: strand, shift, mask. order.py has 1 and 2.
_USES = np.array([0xA001, 0xA002, 0xA003], dtype=np.uint64)
_PARTS = 1 << 16  # a position's draw is one of so many
_LIMIT = (1 << 31) - 1

# SplitMix64, as in hashing.py; a test holds the two together.
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)


class Augmentation(Document):
    """What is drawn for each sample in each epoch. The defaults do nothing."""

    reverse_complement: float = Field(
        0.0, ge=0, le=1, allow_inf_nan=False, description="probability of the other strand"
    )
    shift: int = Field(0, ge=0, le=_LIMIT, description="windows move by up to so many bp each way")
    mask: float = Field(
        0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="probability that a base becomes N; with mask_span, that a sample has a span",
    )
    mask_span: int = Field(
        0, ge=0, le=_LIMIT, description="0: bases on their own; else bp of one span a sample"
    )

    @model_validator(mode="after")
    def _mask_says_something(self) -> Self:
        if self.mask_span and not self.mask:
            raise ValueError(f"mask_span = {self.mask_span} says nothing while mask = 0")
        if not self.mask_span and 0 < self.mask < 1 / _PARTS:
            raise ValueError(f"mask = {self.mask} is below 1/{_PARTS}, the least there is")
        return self


@dataclass(frozen=True)
class Draws:
    """What was drawn for n samples. All arrays have shape (n,).

    Attributes:
        augmentation: what they were drawn by.
        reverse: bool, whether the sample is turned to its reverse complement.
        shift: int64, bp to add to the start of the window, on the forward strand.
        mask_key: uint64, from which the masked positions follow.
    """

    augmentation: Augmentation
    reverse: npt.NDArray[np.bool_]
    shift: Rows
    mask_key: Keys

    def __len__(self) -> int:
        return len(self.shift)


def draw(
    augmentation: Augmentation,
    seed: int,
    epoch: int | Rows,
    ids: Rows,
    low: Rows | None = None,
    high: Rows | None = None,
) -> Draws:
    """Draw for a batch.

    The coin of the reverse complement is exact to 2**-53. The shift is uniform over the whole
    numbers from ``max(-s, low)`` to ``min(s, high)``, both included (bias below 2**-32): near the
    end of a contig it is uniform over what fits, and a window never needs padding.

    Args:
        augmentation: what to draw.
        seed: of the training.
        epoch: of all samples, or of each, shape (n,): see :meth:`Order.visits`.
        ids: numbers of the samples, shape (n,).
        low: least shift that fits, shape (n,); for a window on a contig, minus its start. Both ends
            of a pipeline must give the same limits, or they move differently.
        high: greatest shift that fits, shape (n,); the contig's length minus the window's end.

    Raises:
        InputError: no shift fits some sample; names it.
    """
    epochs = np.atleast_1d(np.asarray(epoch, dtype=np.int64)).astype(np.uint64)
    # key(seed, epoch, use) for all uses and epochs at once, then hashed with the ids: (uses, n)
    keys = mix(mix(epochs ^ np.uint64(key(seed))) ^ _USES[:, None])
    coin, place, mask_key = mix(keys ^ ids.astype(np.uint64))
    least = np.full(ids.shape, -augmentation.shift, dtype=np.int64)
    most = np.full(ids.shape, augmentation.shift, dtype=np.int64)
    least = least if low is None else np.maximum(least, low)
    most = most if high is None else np.minimum(most, high)
    if (least > most).any():
        bad = int(np.flatnonzero(least > most)[0])
        raise InputError(
            f"sample {ids[bad]}: no shift of up to {augmentation.shift} bp keeps its window inside",
            remedy="the window reaches past its contig: build the data set again",
        )
    room = (most - least + 1).astype(np.uint64)
    return Draws(
        augmentation,
        _coins(coin, augmentation.reverse_complement),
        least + (place % room).astype(np.int64),
        mask_key,
    )


def apply_codes(draws: Draws, codes: Codes) -> Codes:
    """Turn to the other strand where that was drawn, then mask.

    Masking without ``mask_span``: each position is N with probability ``round(mask * 65536) /
    65536``, independently of all others. With it: with probability ``mask`` the sample has one span
    of exactly ``mask_span`` positions that are N, its start uniform over where it fits. Positions
    are those of the result, after the reverse complement.

    Args:
        draws: of the n samples.
        codes: uint8, 0 to 4, shape (n, length), gathered at the shifted starts. Not changed.

    Returns:
        uint8 codes, shape (n, length); ``codes`` itself where the augmentation does nothing to it.

    Raises:
        InputError: the span is longer than the windows.
    """
    _same_number(draws, codes)
    augmentation = draws.augmentation
    if not augmentation.reverse_complement and not augmentation.mask:
        return codes
    out = np.empty(codes.shape, dtype=np.uint8)
    compiled(_turn)(draws.reverse, np.ascontiguousarray(codes), out)
    _mask(draws, out, UNKNOWN)
    return out


def masked(draws: Draws, length: int) -> npt.NDArray[np.bool_]:
    """Return which positions :func:`apply_codes` masks in windows of ``length``, shape (n, length).

    For targets that are the masked bases themselves.
    """
    out = np.zeros((len(draws), length), dtype=np.uint8)
    _mask(draws, out, 1)
    return out.view(np.bool_)


def apply_tracks(
    draws: Draws, tracks: npt.NDArray[NumberT], swap: Rows | None = None
) -> npt.NDArray[NumberT]:
    """Reverse the bins of samples on the other strand, and swap their strand-specific channels.

    Bins don't follow the shift: keep it well below the size of a bin, or gather them shifted.

    Args:
        draws: of the n samples.
        tracks: any dtype, shape (n, bins, channels). Not changed.
        swap: int64, shape (channels,), see :func:`strand_swap`; None where no channel has a strand.

    Returns:
        Same shape and dtype; ``tracks`` itself where nothing is turned.

    Raises:
        InputError: ``swap`` is no swap of the channels.
    """
    _same_number(draws, tracks)
    places = _checked(swap, tracks.shape[2])
    if not draws.reverse.any():
        return tracks
    turned = tracks[draws.reverse][:, ::-1]
    out = tracks.copy()
    out[draws.reverse] = turned if places is None else turned[:, :, places]
    return out


def apply_labels(
    draws: Draws, labels: npt.NDArray[NumberT], swap: Rows | None = None
) -> npt.NDArray[NumberT]:
    """Swap the strand-specific labels of samples on the other strand.

    Args:
        draws: of the n samples.
        labels: any dtype, shape (n, tasks); bits must be unpacked first. Not changed.
        swap: int64, shape (tasks,), see :func:`strand_swap`; None where no label has a strand.

    Returns:
        Same shape and dtype; ``labels`` itself where nothing is swapped.

    Raises:
        InputError: ``swap`` is no swap of the tasks.
    """
    _same_number(draws, labels)
    places = _checked(swap, labels.shape[1])
    if places is None or not draws.reverse.any():
        return labels
    out = labels.copy()
    out[draws.reverse] = labels[draws.reverse][:, places]
    return out


def strand_swap(names: Sequence[str], pairs: Sequence[tuple[str, str]]) -> Rows:
    """Return the swap of channels or tasks between strands.

    Args:
        names: of all channels, in order.
        pairs: names of the two strands of a target, in either order; the rest stay where they are.

    Returns:
        int64, shape (channels,): which channel takes the place of each.

    Raises:
        InputError: a name is unknown, or is in two places.
    """
    number = {name: place for place, name in enumerate(names)}
    swap = np.arange(len(names), dtype=np.int64)
    seen: set[str] = set()
    for pair in pairs:
        for name in pair:
            if name not in number:
                raise InputError(f"no target {name!r} to swap", remedy="name targets of the data")
            if name in seen:
                raise InputError(f"target {name!r} is to be swapped twice", remedy="name it once")
            seen.add(name)
        swap[[number[pair[0]], number[pair[1]]]] = number[pair[1]], number[pair[0]]
    return swap


def _same_number(draws: Draws, values: npt.NDArray[Any]) -> None:
    if len(draws) != len(values):
        raise ValueError(f"draws of {len(draws)} samples for {len(values)}")


def _checked(swap: Rows | None, channels: int) -> Rows | None:
    if swap is None:
        return None
    places = np.arange(channels)
    inside = swap.shape == (channels,) and ((swap >= 0) & (swap < channels)).all()
    if not inside or not np.array_equal(swap[swap], places):
        raise InputError(
            f"the swap {swap.tolist()} does not pair {channels} channel(s)",
            remedy="done twice it must give each channel back: see strand_swap",
        )
    return swap


def _coins(hashes: Keys, probability: float) -> npt.NDArray[np.bool_]:
    """Throw a coin by each hash: its top 53 bits are below the probability."""
    heads: npt.NDArray[np.bool_] = (hashes >> np.uint64(11)).astype(np.float64) < (
        probability * 2.0**53
    )
    return heads


def _mask(draws: Draws, out: npt.NDArray[np.uint8], value: int) -> None:
    """Write a value where the draws mask."""
    probability, span = draws.augmentation.mask, draws.augmentation.mask_span
    if not probability:
        return
    if not span:
        last = np.uint16(int(probability * _PARTS + 0.5) - 1)
        compiled(_write_masked)(draws.mask_key, last, np.uint8(value), out)
        return
    length = out.shape[1]
    if span > length:
        raise InputError(
            f"mask_span = {span} is longer than the windows ({length})",
            remedy="mask a shorter span",
        )
    chosen = np.flatnonzero(_coins(mix(draws.mask_key), probability))
    with np.errstate(over="ignore"):
        places = mix(draws.mask_key[chosen] + _GOLDEN) % np.uint64(length - span + 1)
    out[chosen[:, None], places.astype(np.int64)[:, None] + np.arange(span)] = value


def _turn(reverse: npt.NDArray[np.bool_], codes: Codes, out: Codes) -> None:
    """Write each row of codes, or its reverse complement.

    Plain loops over unsigned indices: these the compiler turns into vector instructions, 20 to 50
    times as fast as a table of complements (6 us for 131,072 bases).
    """
    length = np.uint64(codes.shape[1])
    one, unknown = np.uint64(1), np.uint8(4)
    for row in range(codes.shape[0]):
        source, target = codes[row], out[row]
        if reverse[row]:
            for place in range(length):
                code = source[length - one - np.uint64(place)]
                target[place] = unknown if code >= unknown else np.uint8(3) - code
        else:
            for place in range(length):
                target[place] = source[place]


def _write_masked(keys: Keys, last: np.uint16, value: np.uint8, out: npt.NDArray[np.uint8]) -> None:
    """Write a value at each position whose 16 random bits are at most ``last``.

    Word w of a row is output w of SplitMix64 seeded with the row's key; position p has the 16 bits
    ``p % 4``, lowest first, of word ``p // 4``. One hash for four positions, and blocks that stay
    in the nearest cache: 22 us for 131,072 bases, whatever the probability.
    """
    words = np.empty(256, np.uint64)
    lanes = words.view(np.uint16)
    for row in range(out.shape[0]):
        for first in range(0, out.shape[1], 1024):
            begin = keys[row] + _GOLDEN * np.uint64(first // 4 + 1)
            for word in range(256):
                state = begin + _GOLDEN * np.uint64(word)
                state = (state ^ (state >> _S30)) * _FIRST
                state = (state ^ (state >> _S27)) * _SECOND
                words[word] = state ^ (state >> _S31)
            part = out[row, first : first + 1024]
            for place in range(len(part)):
                part[place] = value if lanes[place] <= last else part[place]
