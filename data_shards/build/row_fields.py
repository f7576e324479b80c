"""Fields of a rows data set: each reads one kind of source and stages its rows.

A field is opened while planning (names and counts are read, faults found) and staged while building
(values are read in blocks and scattered to their places, see ``staging.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from data_shards.bits import pack
from data_shards.build.rows_spec import ArraySpec, ColumnSpec, Missing, SequenceSpec
from data_shards.build.staging import Positions, create, scatter
from data_shards.errors import InputError
from data_shards.sequence import UNKNOWN
from data_shards.sources.arrays import ArraySource, onehot_to_codes
from data_shards.sources.columns import categories, numbers, strings
from data_shards.sources.sequences import Alphabet, Records, encode_text, stream_records
from data_shards.sources.tables import Table
from data_shards.store.schema import FieldEntry

BLOCK_BYTES = 32 << 20
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
        spec, shape = self.spec, self.source.shape[1:]
        dtype = np.dtype(self.source.dtype)
        convert: Callable[[npt.NDArray[Any]], npt.NDArray[Any]] = _same
        entry = FieldEntry(
            name=spec.name,
            role=spec.role,
            kind="dense",
            dtype=spec.dtype or _stored(dtype).name,
            shape=shape,
            encoding=f"numbers of {self.path.name}",
        )
        if spec.onehot is not None:
            channels = spec.onehot
            shape = tuple(n for axis, n in enumerate(shape, 1) if axis != spec.channel_axis)
            convert = lambda block: onehot_to_codes(block, channels, spec.channel_axis)  # noqa: E731
            dtype = np.dtype(np.uint8)
            entry = entry.model_copy(
                update={
                    "dtype": "uint8",
                    "shape": shape,
                    "encoding": "A=0 C=1 G=2 T=3, unknown=4",
                    "missing": UNKNOWN,
                }
            )
        elif spec.bits:
            convert = lambda block: _bits(block, self.path)  # noqa: E731
            names = tuple(f"{spec.name}{i}" for i in range(shape[0]))
            entry = bits_entry(spec.name, spec.role, names)
            shape, dtype = entry.shape, np.dtype(np.uint8)
        else:
            dtype = _stored(dtype)
        path = folder / f"{spec.name}.npy"
        create(path, (samples, *shape), dtype)
        for start, block in self.source.blocks(BLOCK_BYTES):
            rows = convert(block)
            if spec.missing == "error" and not spec.bits:
                refuse_nan(rows, start, None, None, self.path)
            scatter(path, places[start : start + len(rows)], rows.astype(dtype, copy=False))
        return entry


@dataclass(frozen=True)
class SequenceField:
    """FASTA records, or a sheet's column, as codes."""

    spec: SequenceSpec
    names: tuple[str, ...] | None
    lengths: npt.NDArray[np.int64]
    records: Callable[[], Iterator[Records]]

    @property
    def name(self) -> str:
        """Of the field."""
        return self.spec.name

    @property
    def count(self) -> int:
        """Records in the source."""
        return len(self.lengths)

    @property
    def samples(self) -> Sequence[str] | None:
        """Names of the records."""
        return self.names

    def stage(self, folder: Path, places: Positions, samples: int) -> FieldEntry:
        """Write codes, and where each sample's begin."""
        kept = places >= 0
        lengths = np.zeros(samples, dtype=np.int64)
        lengths[places[kept]] = self.lengths[kept]
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64)
        base = folder / self.name
        values = base.with_name(f"{self.name}.values.npy")
        create(values, (int(lengths.sum()),), np.uint8)
        np.save(base.with_name(f"{self.name}.start.npy"), starts)
        np.save(base.with_name(f"{self.name}.length.npy"), lengths.astype(np.int32))
        row = 0
        for block in self.records():
            mine = places[row : row + len(block.lengths)]
            scatter(values, element_places(mine, starts, block.lengths), block.codes)
            row += len(block.lengths)
        return FieldEntry(
            name=self.name,
            role=self.spec.role,
            kind="ragged",
            dtype="uint8",
            shape=(int(lengths.max(initial=0)),),
            encoding="A=0 C=1 G=2 T=3 (or U), N and other IUPAC letters=4",
            missing=UNKNOWN,
            pad=UNKNOWN,
        )


def element_places(
    places: Positions, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]
) -> Positions:
    """Say where each element of some ragged rows goes.

    Args:
        places: of the rows in the data set, -1 for rows left out.
        starts: of each row of the data set in the pool of elements.
        lengths: of the rows.

    Returns:
        int64, shape (sum of lengths,): place in the pool, -1 for elements left out.
    """
    begin = np.where(places >= 0, starts[places], -1)
    ends = np.cumsum(lengths)
    within = np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)
    begin = np.repeat(begin, lengths)
    return np.where(begin >= 0, begin + within, -1)


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


def open_sequences_of_sheet(
    spec: SequenceSpec, table: Table, labels: Sequence[str] | None
) -> SequenceField:
    """Read a column of sequences.

    Raises:
        InputError: names the line of a letter that is not of the alphabet, or of an empty value.
    """
    assert spec.column is not None
    texts = strings(table, spec.column)
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    for row, text in enumerate(texts):
        try:
            encode_text(text.encode(), spec.alphabet)
        except ValueError as error:
            raise table.error(row, str(error), "correct the sequence") from None
    _refuse_long(spec, lengths, table.path, [str(row + 1) for row in range(len(texts))])

    def records() -> Iterator[Records]:
        codes = encode_text("".join(texts).encode(), spec.alphabet)
        yield Records((), codes, lengths)

    return SequenceField(spec, tuple(labels) if labels is not None else None, lengths, records)


def open_fasta_records(
    spec: SequenceSpec, paths: Sequence[Path]
) -> tuple[SequenceField, list[int]]:
    """Scan FASTA files whose records are samples.

    Returns:
        The field, and for each record the number of its file.
    """
    names: list[str] = []
    files: list[int] = []
    lengths: list[npt.NDArray[np.int64]] = []
    for number, path in enumerate(paths):
        for block in stream_records(path, spec.alphabet, BLOCK_BYTES):
            _refuse_long(spec, block.lengths, path, block.names)
            names += block.names
            files += [number] * len(block.names)
            lengths.append(block.lengths)
    alphabet: Alphabet = spec.alphabet

    def records() -> Iterator[Records]:
        for path in paths:
            yield from stream_records(path, alphabet, BLOCK_BYTES)

    return SequenceField(spec, tuple(names), np.concatenate(lengths), records), files


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


def _refuse_long(
    spec: SequenceSpec, lengths: npt.NDArray[np.int64], path: Path, names: Sequence[str]
) -> None:
    if spec.max_length is not None and len(lengths) and lengths.max() > spec.max_length:
        row = int(lengths.argmax())
        raise InputError(
            f"record {names[row]!r} has {lengths[row]:,} letters, more than {spec.max_length:,}",
            path=path,
            remedy=f"raise max_length of sequences {spec.name!r}, or take it out of the file",
        )


def _bits(block: npt.NDArray[Any], path: Path) -> npt.NDArray[np.uint8]:
    if block.ndim != 2:
        raise InputError(
            f"bits need samples x labels, the array has {block.ndim} axes",
            path=path,
            remedy="name an array of two axes",
        )
    if not np.isin(block, (0, 1)).all():
        raise InputError("a label is neither 0 nor 1", path=path, remedy="drop bits = true")
    return pack(block.astype(np.bool_))


def _same(block: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return block


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that numbers are stored as: float64 as float32, others as they are."""
    return np.dtype(np.float32) if dtype == np.float64 else dtype
