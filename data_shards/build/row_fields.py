"""Fields of a rows data set: each reads one kind of source and stages its rows.

A field is opened while planning (names and counts are read, faults found) and staged while building
(values are read in blocks and scattered to their places, see ``staging.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from data_shards.bits import pack
from data_shards.build.rows_spec import ArraySpec, ColumnSpec, Missing
from data_shards.build.staging import Positions, create, scatter
from data_shards.errors import InputError
from data_shards.sequence import UNKNOWN
from data_shards.sources.arrays import ArraySource, onehot_to_codes
from data_shards.sources.columns import categories, numbers
from data_shards.sources.tables import Table
from data_shards.store.schema import FieldEntry

BLOCK_BYTES = 8 << 20
"""What a source is asked to read at a time."""


class RowField(Protocol):
    """A source of one field."""

    @property
    def name(self) -> str:
        """Of the field."""
        ...

    @property
    def count(self) -> int:
        """Rows in the source."""
        ...

    @property
    def samples(self) -> Sequence[str] | None:
        """Names of the rows, or None if they have none."""
        ...

    def stage(self, folder: Path, places: Positions, samples: int) -> FieldEntry:
        """Write the field's arrays to ``folder / ARRAY.npy``, rows at their places."""
        ...


@dataclass(frozen=True)
class ArrayField:
    """Rows of an array file."""

    spec: ArraySpec
    source: ArraySource
    path: Path

    @property
    def name(self) -> str:
        """Of the field."""
        return self.spec.name

    @property
    def count(self) -> int:
        """Rows in the source."""
        return int(self.source.shape[0])

    @property
    def samples(self) -> None:
        """An array has no names."""
        return None

    def stage(self, folder: Path, places: Positions, samples: int) -> FieldEntry:
        """Write the rows: as they are, as codes, or as bits."""
        entry, path = self._entry(), folder / f"{self.name}.npy"
        plain = entry.kind == "dense" and self.spec.onehot is None
        dtype = stored_dtype(np.dtype(self.source.dtype)) if plain else np.dtype(np.uint8)
        create(path, (samples, *entry.shape), dtype)
        for start, block in self.source.blocks(BLOCK_BYTES):
            rows = self._rows(block, start)
            scatter(path, places[start : start + len(rows)], rows.astype(dtype, copy=False))
        return entry

    def _rows(self, block: npt.NDArray[Any], start: int) -> npt.NDArray[Any]:
        """Encode some rows, of which the first is sample ``start`` of the source."""
        if self.spec.onehot is not None:
            return onehot_to_codes(block, self.spec.onehot, self.spec.channel_axis, first=start)
        if self.spec.bits:
            return _bits(block, start, self.path)
        refuse_nan(block, start, None, None, self.path, self.spec.missing)
        return block

    def _entry(self) -> FieldEntry:
        spec, shape, dtype = self.spec, self.source.shape[1:], np.dtype(self.source.dtype)
        if spec.bits:
            if len(shape) != 1:
                raise InputError(
                    f"bits need samples x labels, array {spec.name!r} has {len(shape) + 1} axes",
                    path=self.path,
                    remedy="name an array of two axes",
                )
            return bits_entry(spec.name, spec.role, tuple(str(i) for i in range(shape[0])))
        codes = spec.onehot is not None
        if codes:
            shape = tuple(n for axis, n in enumerate(shape, 1) if axis != spec.channel_axis)
        return FieldEntry(
            name=spec.name,
            role=spec.role,
            kind="dense",
            dtype="uint8" if codes else spec.dtype or stored_dtype(dtype).name,
            shape=shape,
            encoding="A=0 C=1 G=2 T=3, unknown=4" if codes else f"numbers of {self.path.name}",
            missing=UNKNOWN if codes else None,
        )


@dataclass(frozen=True)
class ColumnField:
    """Columns of the sheet, or the files that records came from, as numbers, classes or bits."""

    spec: ColumnSpec
    values: npt.NDArray[Any]
    names: tuple[str, ...]
    labels: Sequence[str] | None

    @property
    def name(self) -> str:
        """Of the field."""
        return self.spec.name

    @property
    def count(self) -> int:
        """Rows of the sheet."""
        return len(self.values)

    @property
    def samples(self) -> Sequence[str] | None:
        """Names of the samples."""
        return self.labels

    def stage(self, folder: Path, places: Positions, samples: int) -> FieldEntry:
        """Write the values."""
        spec, values = self.spec, self.values
        if spec.kind == "labels":
            entry = bits_entry(spec.name, spec.role, self.names)
            values = pack(values.astype(np.bool_))
        else:
            classes = spec.kind == "class"
            entry = FieldEntry(
                name=spec.name,
                role=spec.role,
                kind="dense",
                dtype="int64" if classes else "float32",
                shape=values.shape[1:],
                encoding="number of the class" if classes else "numbers of the sheet",
                names=self.names,
            )
        path = folder / f"{spec.name}.npy"
        create(path, (samples, *values.shape[1:]), values.dtype)
        scatter(path, places, values)
        return entry


def open_column(spec: ColumnSpec, table: Table, labels: Sequence[str] | None) -> ColumnField:
    """Read the columns of a field from the sheet.

    Raises:
        InputError: a column is missing, or a value is not what the kind of the field asks for.
    """
    if spec.kind == "class":
        found = categories(table, spec.columns[0])
        return ColumnField(spec, found.codes.astype(np.int64), tuple(found.names), labels)
    missing = "nan" if spec.missing == "keep" else "error"
    columns = [numbers(table, column, missing=missing) for column in spec.columns]  # type: ignore[arg-type]
    values = np.stack(columns, axis=1)
    if spec.kind == "labels":
        wrong = np.argwhere((values != 0) & (values != 1))
        if len(wrong):
            row, column = (int(i) for i in wrong[0])
            raise table.error(
                row,
                f"{spec.columns[column]} is {values[row, column]:g}, and a label is 0 or 1",
                'correct it, or use kind = "class" or "number"',
            )
    return ColumnField(spec, values, spec.columns, labels)


def column_by_file(
    spec: ColumnSpec, files: Sequence[str], labels: Sequence[str] | None
) -> ColumnField:
    """Give each record the value of the file that it came from."""
    given = [spec.by_file[file] for file in files]
    names = tuple(sorted(set(spec.by_file.values())))
    if spec.kind == "class":
        codes = np.array([names.index(value) for value in given], dtype=np.int64)
        return ColumnField(spec, codes, names, labels)
    try:
        values = np.array([float(value) for value in given])[:, None]
    except ValueError:
        raise InputError(
            f"field {spec.name!r}: the values of by_file are no numbers: {', '.join(names)}",
            remedy='use kind = "class", or numbers',
        ) from None
    if spec.kind == "labels" and not np.isin(values, (0, 1)).all():
        raise InputError(
            f"field {spec.name!r}: a label is 0 or 1, by_file has {', '.join(names)}",
            remedy='use kind = "class", or 0 and 1',
        )
    return ColumnField(spec, values, (spec.name,), labels)


def bits_entry(name: str, role: Any, names: tuple[str, ...]) -> FieldEntry:
    """Describe a field of labels as bits."""
    return FieldEntry(
        name=name,
        role=role,
        kind="bits",
        dtype="uint8",
        shape=(-(-len(names) // 8),),
        encoding="name t is bit t % 8 of byte t // 8",
        names=names,
    )


def refuse_nan(
    rows: npt.NDArray[Any],
    start: int,
    samples: Sequence[str] | None,
    features: Sequence[str] | None,
    path: Path,
    missing: Missing = "error",
) -> None:
    """Refuse infinite values, and NaN unless it is to be kept; names sample and feature."""
    if rows.dtype.kind != "f":
        return
    bad = np.isinf(rows) if missing == "keep" else ~np.isfinite(rows)
    if not bad.any():
        return
    row, *rest = (int(i) for i in np.argwhere(bad)[0])
    sample = f"sample {samples[start + row]!r}" if samples else f"sample {start + row + 1}"
    what = f"{sample}, feature {features[rest[0]]!r}" if features and rest else f"{sample}, {rest}"
    raise InputError(
        f"{what}: the value is {rows[(row, *rest)]}",
        path=path,
        remedy='give a finite number; missing = "keep" stores NaN',
    )


def _bits(block: npt.NDArray[Any], start: int, path: Path) -> npt.NDArray[np.uint8]:
    wrong = np.argwhere((block != 0) & (block != 1))
    if len(wrong):
        row, label = (int(i) for i in wrong[0])
        raise InputError(
            f"sample {start + row + 1}, label {label + 1}: {block[row, label]} is neither 0 nor 1",
            path=path,
            remedy="correct it, or drop bits = true",
        )
    return pack(block.astype(np.bool_))


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that numbers are stored as: float64 as float32, others as they are."""
    return np.dtype(np.float32) if dtype == np.float64 else dtype
