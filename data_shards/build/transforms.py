"""From staged numbers to stored ones: normalised as fitted on training, converted without loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.build.normalise import Fitted, Step, apply, fit
from data_shards.build.staging import read, shape_of
from data_shards.errors import InputError
from data_shards.store.schema import FieldEntry

_BLOCK_BYTES = 8 << 20


def fit_staged(entry: FieldEntry, path: Path, train: int, steps: Sequence[Step]) -> FieldEntry:
    """Fit steps on the training rows of a staged field, which come first.

    Args:
        entry: of the field; all axes but the first count as features.
        path: of the staged array.
        train: number of training rows.
        steps: in the order of their application.

    Returns:
        The entry with the fitted steps in it.

    Raises:
        InputError: the training rows can't be normalised so; names the field.
    """
    row = int(np.prod(shape_of(path)[1:], dtype=np.int64))
    size = max(1, _BLOCK_BYTES // max(1, 8 * row))

    def blocks() -> Iterator[npt.NDArray[Any]]:
        for start in range(0, train, size):
            rows = read(path, start, min(start + size, train))
            yield rows.reshape(len(rows), row)

    try:
        fitted = fit(blocks, steps)
    except InputError as error:
        raise _of_field(entry, error) from None
    dtype = entry.dtype if np.dtype(entry.dtype).kind == "f" else "float32"
    return entry.model_copy(update={"normalise": fitted.model_dump_json(), "dtype": dtype})


def convert(entry: FieldEntry, rows: npt.NDArray[Any], start: int) -> npt.NDArray[Any]:
    """Make a dense field's stored rows of its staged ones.

    Args:
        entry: of the field, with what was fitted.
        rows: staged rows, shape (n, *shape).
        start: number of the first one, for messages.

    Raises:
        InputError: a value can't be normalised, or is too large for the stored type.
    """
    fitted = None if entry.normalise is None else Fitted.model_validate_json(entry.normalise)
    if fitted is None and rows.dtype == entry.dtype:
        return rows
    stored = np.empty(rows.shape, dtype=entry.dtype)
    size = max(1, _BLOCK_BYTES // max(1, 2 * rows[:1].nbytes))
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        if fitted is not None:
            try:
                part = apply(fitted, part.reshape(len(part), -1)).reshape(part.shape)
            except InputError as error:
                raise _of_field(entry, error) from None
        with np.errstate(over="ignore"):
            stored[first : first + size] = part
        _refuse_overflow(entry, part, stored[first : first + size], start + first)
    return stored


def _refuse_overflow(
    entry: FieldEntry, rows: npt.NDArray[Any], stored: npt.NDArray[Any], start: int
) -> None:
    if stored.dtype.kind == "f" and (bad := np.isinf(stored) & np.isfinite(rows)).any():
        place = tuple(int(i) for i in np.argwhere(bad)[0])
        raise InputError(
            f"field {entry.name!r}, sample {start + place[0]}, {place[1:]}: {rows[place]:g} does "
            f"not fit {entry.dtype}",
            remedy='set dtype = "float32", or normalise the field',
        )


def steps_of(entry: FieldEntry) -> tuple[str, ...]:
    """Name the steps that a field was normalised by, in order."""
    if entry.normalise is None:
        return ()
    return tuple(step.step for step in Fitted.model_validate_json(entry.normalise).steps)


def _of_field(entry: FieldEntry, error: InputError) -> InputError:
    return InputError(f"field {entry.name!r}: {error.problem}", remedy=error.remedy)
