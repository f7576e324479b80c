"""Sequences of any length as a field: FASTA records, or a column of the sheet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_shards.build.row_fields import BLOCK_BYTES
from data_shards.build.rows_spec import SequenceSpec
from data_shards.build.staging import Positions, create, element_places, scatter
from data_shards.errors import InputError
from data_shards.sequence import UNKNOWN
from data_shards.sources.columns import strings
from data_shards.sources.sequences import Alphabet, Records, encode_text, stream_records
from data_shards.sources.tables import Table
from data_shards.store.schema import FieldEntry


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
