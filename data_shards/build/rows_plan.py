"""Planning a rows data set: everything is read and checked before anything is written."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.build.matching import Matched, match_by_name, match_by_position, positions
from data_shards.build.matrix_field import MatrixField, open_matrix_field
from data_shards.build.normalise import Step
from data_shards.build.plan import ShardJob, cut
from data_shards.build.row_fields import (
    ArrayField,
    ColumnField,
    RowField,
    column_by_file,
    open_column,
)
from data_shards.build.row_splits import SHEET, split_rows
from data_shards.build.rows_spec import RowsSpec
from data_shards.build.sequence_field import (
    SequenceField,
    open_fasta_records,
    open_sequences_of_sheet,
)
from data_shards.build.staging import Positions, create, read, shape_of
from data_shards.build.transforms import convert, fit_staged
from data_shards.errors import InputError
from data_shards.leaks import GROUP
from data_shards.loci import SPLITS
from data_shards.progress import Progress, silent
from data_shards.sources.arrays import open_array
from data_shards.sources.columns import strings
from data_shards.sources.files import SourceFile, identify
from data_shards.sources.matrix import matrix_files
from data_shards.sources.tables import Table, read_table
from data_shards.store.layout import SHARD_BYTES, rows_per_shard
from data_shards.store.schema import ArrayEntry, FieldEntry, Schema, Split


@dataclass(frozen=True)
class RowsPlan:
    """A rows data set to be. Made without writing; a pure function of spec and source files.

    Attributes:
        spec: the description it follows.
        recipe: name of the recipe it is for.
        fields: the opened sources.
        places: field -> where each row of its source goes.
        names: of the samples, in the data set's order; empty if they have none.
        groups: of the samples, in the data set's order; None if each is on its own.
        splits: row ranges.
        sources: identity of every file read.
        dropped: samples that some file lacks.
        shard_bytes: of a shard, about.
    """

    spec: RowsSpec
    recipe: str
    fields: tuple[RowField, ...]
    places: Mapping[str, Positions]
    names: tuple[str, ...]
    groups: npt.NDArray[np.int64] | None
    splits: Mapping[str, Split]
    sources: tuple[SourceFile, ...]
    dropped: int
    shard_bytes: int = SHARD_BYTES

    @property
    def samples(self) -> int:
        """Number of samples."""
        return max(split.stop for split in self.splits.values())

    @property
    def identity(self) -> str:
        """A sha256 that is equal for equal input: decides whether a build can be continued."""
        digest = hashlib.sha256(self.spec.model_dump_json().encode())
        digest.update(f"{self.recipe} {self.shard_bytes}\n".encode())
        for source in self.sources:
            digest.update(f"{source.name} {source.sha256}\n".encode())
        return digest.hexdigest()

    def worker(self) -> RowsPlan:
        """Return the plan without what lies in the staging folder."""
        return replace(self, fields=(), places={}, names=(), groups=None)

    def stage(self, folder: Path, progress: Progress) -> Schema:
        """Scatter every source's rows to their places, field by field; fit what is normalised."""
        train = self.splits["train"].stop
        entries: list[FieldEntry] = []
        for number, field in enumerate(self.fields, start=1):
            entry = field.stage(folder, self.places[field.name], self.samples)
            steps = _steps(field)
            if steps:
                entry = fit_staged(entry, folder / f"{field.name}.npy", train, steps)
            entries.append(entry)
            progress("staging", number, len(self.fields))
        if self.names:
            entries.append(_stage_names(folder, self.names))
        if self.groups is not None:
            entries.append(_stage_groups(folder, self.groups))
        path = folder / "split.npy"
        create(path, (self.samples,), np.uint8)
        codes = np.load(path, mmap_mode="r+")
        for code, name in enumerate(SPLITS):
            codes[self.splits[name].start : self.splits[name].stop] = code
        return Schema(
            kind="rows",
            recipe=self.recipe,
            samples=self.samples,
            fields=tuple(entries),
            splits=dict(self.splits),
            arrays=tuple(self._arrays(folder, entries)),
        )

    def _arrays(self, folder: Path, entries: Sequence[FieldEntry]) -> list[ArrayEntry]:
        found = []
        for path in sorted(folder.glob("*.npy")):
            array = path.name.removesuffix(".npy")
            shape, dtype = shape_of(path), np.load(path, mmap_mode="r").dtype
            dense = next((e for e in entries if e.name == array and e.kind == "dense"), None)
            stored = np.dtype(dense.dtype if dense is not None else dtype)
            row_bytes = stored.itemsize * int(np.prod(shape[1:], dtype=np.int64))
            found.append(
                ArrayEntry(
                    name=array,
                    dtype=stored.name,
                    shape=shape,
                    shard_rows=rows_per_shard(row_bytes, self.shard_bytes),
                )
            )
        return found

    def jobs(self, schema: Schema) -> list[ShardJob]:
        """Cut every array into whole shards."""
        return [job for entry in schema.arrays for job in cut(entry.name, entry)]

    def shard(self, folder: Path, schema: Schema, job: ShardJob) -> dict[str, npt.NDArray[Any]]:
        """Make a shard of one array: its rows, normalised and converted."""
        rows = read(folder / f"{job.group}.npy", job.start, job.stop)
        for entry in schema.fields:
            if entry.name == job.group and entry.kind == "dense":
                rows = convert(entry, rows, job.start)
        return {job.group: rows}


def plan_rows(
    spec: RowsSpec,
    folder: Path,
    *,
    recipe: str,
    spec_path: Path | str,
    progress: Progress = silent,
    shard_bytes: int = SHARD_BYTES,
) -> RowsPlan:
    """Read and check all source files of a rows data set.

    Args:
        spec: the description.
        folder: what its relative file names are relative to.
        recipe: name of the recipe the data set is for.
        spec_path: named in messages about the description itself.
        progress: told which file is being read.
        shard_bytes: of a shard, about.

    Raises:
        InputError: for every fault of a file or of the description; names file and line.
    """
    files = _files(spec, folder)
    sources: list[SourceFile] = []
    for number, path in enumerate(files, start=1):
        sources.append(identify(path))
        progress("reading", number, len(files))
    table = _sheet(spec, folder)
    opened = _open_fields(spec, folder, table)
    matched = _match(spec, opened, table, spec_path)
    assigned = split_rows(spec, opened, table, matched, spec_path)
    codes, groups = assigned.codes, assigned.groups
    order = np.argsort(codes, kind="stable").astype(np.int64)
    stops = np.cumsum([int((codes == code).sum()) for code in range(len(SPLITS))]).tolist()
    starts = [0, *stops[:-1]]
    splits = {
        name: Split(start=start, stop=stop)
        for name, start, stop in zip(SPLITS, starts, stops, strict=True)
    }
    return RowsPlan(
        spec=spec,
        recipe=recipe,
        fields=tuple(opened),
        places={
            field.name: positions(matched.rows[field.name], order, field.count) for field in opened
        },
        names=tuple(matched.names[i] for i in order) if matched.names else (),
        groups=None if groups is None else groups[order],
        splits=splits,
        sources=tuple(sources),
        dropped=matched.dropped,
        shard_bytes=shard_bytes,
    )


def _files(spec: RowsSpec, folder: Path) -> list[Path]:
    """List every file that will be read, each once."""
    named = [spec.samples.sheet, *(field.features for field in spec.matrices)]
    named += [field.file for field in spec.arrays]
    named += [path for field in spec.sequences for path in field.fasta]
    paths = [folder / name for name in named if name is not None]
    for field in spec.matrices:
        paths += matrix_files(folder / field.file, field.format)
    return list(dict.fromkeys(paths))


def _sheet(spec: RowsSpec, folder: Path) -> Table | None:
    if spec.samples.sheet is None:
        return None
    return read_table(folder / spec.samples.sheet, names=spec.samples.header or None)


def _open_fields(spec: RowsSpec, folder: Path, table: Table | None) -> list[RowField]:
    """Open every source; the first one decides the order of samples: the sheet, if there is one."""
    labels: tuple[str, ...] | None = None
    if table is not None and spec.samples.match == "name" and spec.samples.id is not None:
        labels = tuple(strings(table, spec.samples.id))
    columns: list[ColumnField] = []
    sequences: list[SequenceField] = []
    file_of: dict[str, tuple[list[str], SequenceField]] = {}
    for column in spec.columns:
        if column.columns and table is not None:
            columns.append(open_column(column, table, labels))
    for one in spec.sequences:
        if one.column is not None and table is not None:
            sequences.append(open_sequences_of_sheet(one, table, labels))
        else:
            field, numbers = open_fasta_records(one, [folder / path for path in one.fasta])
            sequences.append(field)
            for path in one.fasta:
                file_of[path] = ([one.fasta[number] for number in numbers], field)
    columns += [_by_file(column, file_of) for column in spec.columns if column.by_file]
    matrices: list[MatrixField] = [open_matrix_field(one, folder) for one in spec.matrices]
    arrays = [
        ArrayField(
            one, open_array(folder / one.file, one.array, one.sample_axis), folder / one.file
        )
        for one in spec.arrays
    ]
    return [*columns, *sequences, *matrices, *arrays]


def _by_file(spec: Any, file_of: Mapping[str, tuple[list[str], SequenceField]]) -> ColumnField:
    """Label the records of a sequence field by their files."""
    for path in spec.by_file:
        if path not in file_of:
            raise InputError(
                f"field {spec.name!r}: by_file names {path!r}, which no sequence field reads",
                remedy=f"the sequence fields read: {', '.join(file_of) or 'no FASTA file'}",
            )
    files, field = file_of[next(iter(spec.by_file))]
    for path in dict.fromkeys(files):
        if path not in spec.by_file:
            raise InputError(
                f"field {spec.name!r}: by_file has no value for {path!r}", remedy="add it"
            )
    return column_by_file(spec, files, field.samples)


def _match(
    spec: RowsSpec, opened: Sequence[RowField], table: Table | None, spec_path: Path | str
) -> Matched:
    if spec.samples.match == "position":
        counts = {field.name: field.count for field in opened}
        if table is not None:
            counts = {SHEET: len(table), **counts}
        return match_by_position(counts)
    names = {field.name: field.samples for field in opened}
    if table is not None and spec.samples.id is not None:
        names = {SHEET: strings(table, spec.samples.id), **names}
    for field, listed in names.items():
        if listed is None:
            raise InputError(
                f"field {field!r} has no sample names",
                path=spec_path,
                remedy='set samples.match = "position"',
            )
    return match_by_name(
        {name: listed for name, listed in names.items() if listed is not None},
        spec.samples.unmatched,
    )


def _steps(field: RowField) -> tuple[Step, ...]:
    if isinstance(field, MatrixField | ArrayField):
        return field.spec.normalise
    return ()


def _stage_names(folder: Path, names: Sequence[str]) -> FieldEntry:
    """Write the samples' names as a ragged field of UTF-8 bytes."""
    texts = [name.encode() for name in names]
    lengths = np.array([len(text) for text in texts], dtype=np.int32)
    starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)[:-1]]).astype(np.int64)
    np.save(folder / "id.values.npy", np.frombuffer(b"".join(texts), dtype=np.uint8))
    np.save(folder / "id.start.npy", starts)
    np.save(folder / "id.length.npy", lengths)
    return FieldEntry(
        name="id",
        role="meta",
        kind="ragged",
        dtype="uint8",
        shape=(int(lengths.max()),),
        encoding="name of the sample, UTF-8",
        pad=0,
    )


def _stage_groups(folder: Path, groups: npt.NDArray[np.int64]) -> FieldEntry:
    """Write the groups that the split keeps together, so that a check can hold it to that."""
    np.save(folder / f"{GROUP}.npy", groups)
    return FieldEntry(
        name=GROUP,
        role="meta",
        kind="dense",
        dtype="int64",
        shape=(),
        encoding="number of the group that stays in one split",
    )
