"""Planning a windows data set: everything is read and checked before anything is written."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_shards.bits import pack
from data_shards.build.intervals import stage_intervals, staged_intervals
from data_shards.build.peaks import Positives, add_negatives, place_positives, split_ranges
from data_shards.build.plan import ShardJob, cut
from data_shards.build.task_files import read_task_file
from data_shards.build.tracks import read_tracks, stage_track, track_format
from data_shards.build.windows import label, select, tile
from data_shards.build.windows_schema import arrays, fields, tasks
from data_shards.build.windows_spec import LociSpec, TaskSpec, TrackSpec, WindowsSpec
from data_shards.contigs import Contigs
from data_shards.errors import InputError
from data_shards.loci import SPLITS, Loci
from data_shards.progress import Progress, silent
from data_shards.sequence import ALPHABET
from data_shards.sources.fasta import check_order, read_codes, scan_fasta, stage_fasta
from data_shards.sources.files import SourceFile, identify
from data_shards.sources.intervals import Intervals, concatenate
from data_shards.store.layout import SHARD_BYTES
from data_shards.store.schema import (
    ContigEntry,
    Schema,
    Split,
)

# A shard's rows must be whole memory pages in every array, also where pages are 64 KiB.
ROWS_PER_SHARD = 1 << 16

_POSITIVE = "positive.npy"
_LOCI = ("contig", "start", "strand", "split")


@dataclass(frozen=True)
class Peaks:
    """Where the windows of a peak data set are, and where their negatives may be.

    Attributes:
        positives: the windows on peaks.
        members: split -> numbers of its contigs.
        excluded: intervals that no negative touches, the peaks among them.
    """

    positives: Positives
    members: dict[str, tuple[int, ...]]
    excluded: Intervals


@dataclass(frozen=True)
class WindowsPlan:
    """A windows data set to be. Made without writing; a pure function of spec and source files.

    Attributes:
        spec: the description it follows.
        schema: of the data set to be.
        loci: one row a sample; None for windows on peaks until their negatives are drawn.
        peaks: the peaks, where windows are on them.
        intervals: for each task a bedframe (chrom, start, end), filtered and anchored.
        fasta: the reference file.
        folder: what the spec's file names are relative to.
        sources: identity of every file read.
    """

    spec: WindowsSpec
    schema: Schema
    loci: Loci | None
    peaks: Peaks | None
    intervals: tuple[pd.DataFrame, ...]
    fasta: Path
    folder: Path
    sources: tuple[SourceFile, ...]

    @property
    def dropped(self) -> int:
        """Peaks without a window of their own."""
        return 0 if self.peaks is None else self.peaks.positives.left_out

    @property
    def identity(self) -> str:
        """A sha256 that is equal for equal input: decides whether a build can be continued."""
        digest = hashlib.sha256(self.schema.model_dump_json(by_alias=True).encode())
        digest.update(self.spec.model_dump_json().encode())
        for source in self.sources:
            digest.update(f"{source.name} {source.sha256}\n".encode())
        return digest.hexdigest()

    def worker(self) -> WindowsPlan:
        """Return the plan without what lies in the staging folder."""
        return replace(self, loci=None, peaks=None, intervals=())

    def stage(self, folder: Path, progress: Progress) -> Schema:
        """Index the reference; write loci and intervals where tasks can read parts of them."""
        stage_fasta(self.fasta, folder)
        loci = self.loci if self.loci is not None else self._draw(folder)
        for name in _LOCI:
            np.save(folder / f"loci-{name}.npy", getattr(loci, name))
        total = len(self.intervals) + len(self.spec.tracks)
        for number, frame in enumerate(self.intervals):
            stage_intervals(frame, folder / f"task-{number}")
            progress("staging", number + 1, total)
        contigs, naming = self.schema.reference, self.spec.reference.naming
        for number, (spec, path, staged) in enumerate(self._tracks(folder)):
            stage_track(spec, path, contigs, naming, self.fasta, staged)
            progress("staging", len(self.intervals) + number + 1, total)
        return self.schema

    def _draw(self, folder: Path) -> Loci:
        """Draw the negatives of the peaks; leaves which windows are positive."""
        peaks, spec, contigs = self.peaks, self.spec.loci, self.schema.reference
        assert peaks is not None  # a plan has loci or peaks
        assert spec is not None
        codes = read_codes(folder / "reference.fa", contigs, 0, contigs.total)
        loci, positive = add_negatives(
            peaks.positives,
            codes,
            contigs,
            self.spec.windows,
            peaks.members,
            spec,
            peaks.excluded,
        )
        np.save(folder / _POSITIVE, positive)
        return loci

    def _tracks(self, folder: Path) -> list[tuple[TrackSpec, Path, Path]]:
        """Return each track with its file and its staging folder."""
        source = self.folder.resolve()
        return [
            (spec, source / spec.file, folder / f"track-{number}")
            for number, spec in enumerate(self.spec.tracks)
        ]

    def jobs(self, schema: Schema) -> list[ShardJob]:
        """Cut reference and rows into whole shards."""
        return [
            *cut("reference", schema.array("reference")),
            *cut("rows", schema.array("split")),
            *(cut("tracks", schema.array("tracks")) if self.spec.tracks else ()),
        ]

    def shard(self, folder: Path, schema: Schema, job: ShardJob) -> dict[str, npt.NDArray[Any]]:
        """Make a shard of the reference, or of all per-sample arrays."""
        contigs = schema.reference
        if job.group == "reference":
            codes = read_codes(folder / "reference.fa", contigs, job.start, job.stop)
            return {"reference": codes}
        if job.group == "tracks":
            staged = self._tracks(folder)
            bins = read_tracks(staged, self.spec.signal, schema, job.start, job.stop)
            return {"tracks": bins}
        arrays = {
            name: np.load(folder / f"loci-{name}.npy", mmap_mode="r")[job.start : job.stop]
            for name in _LOCI
        }
        loci = Loci(**arrays)
        columns = []
        if self.spec.loci is not None:
            columns.append(np.load(folder / _POSITIVE, mmap_mode="r")[job.start : job.stop])
        columns += [
            label(loci, schema.window, task, staged_intervals(path, loci, schema))
            for task, path in (
                (task, folder / f"task-{number}") for number, task in enumerate(self.spec.tasks)
            )
        ]
        if columns:
            arrays["labels"] = pack(np.stack(columns, axis=1))
        return arrays


def plan_windows(
    spec: WindowsSpec,
    folder: Path,
    *,
    recipe: str,
    spec_path: Path | str,
    progress: Progress = silent,
    rows_per_shard: int = ROWS_PER_SHARD,
    bases_per_shard: int = SHARD_BYTES,
) -> WindowsPlan:
    """Read and check all source files of a windows data set.

    Args:
        spec: the description.
        folder: what its relative file names are relative to.
        recipe: name of the recipe the data set is for.
        spec_path: named in messages about the description itself.
        progress: told which file is being read.
        rows_per_shard: loci a shard.
        bases_per_shard: reference bases a shard.

    Raises:
        InputError: for every fault of a file or of the description; names file and line.
    """
    files = 1 + len(spec.tasks) + len(spec.tracks)
    progress("reading", 0, files)
    fasta = folder / spec.reference.fasta
    sources = {fasta: identify(fasta)}
    contigs = scan_fasta(fasta)
    members = _members(spec, contigs, spec_path)
    tiled = sorted(number for numbers in members.values() for number in numbers)
    check_order(
        fasta,
        contigs,
        Contigs(tuple(contigs.names[i] for i in tiled), tuple(contigs.lengths[i] for i in tiled)),
        spec.reference.order,
    )
    chosen: list[pd.DataFrame] = []
    read: dict[str, Intervals] = {}  # tasks may share a file
    for number, task in enumerate(spec.tasks, start=1):
        progress("reading", number, files)
        path = folder / task.file
        if path not in sources:
            sources[path] = identify(path)
        key = f"{path} {task.format} {task.feature} {task.where}"
        if key not in read:
            read[key] = read_task_file(path, task, contigs, spec.reference.naming)
        chosen.append(_choose(read[key], task, contigs, path))
    for number, track in enumerate(spec.tracks, start=1 + len(spec.tasks)):
        progress("reading", number, files)
        track_format(track)
        path = folder / track.file
        if path not in sources:
            sources[path] = identify(path)
    progress("reading", files, files)
    if spec.loci is None:
        loci, ranges = tile(contigs, spec.windows, members)
        peaks = None
    else:
        peaks = _read_peaks(spec, spec.loci, folder, contigs, members, sources)
        loci, ranges = None, split_ranges(peaks.positives, spec.loci, spec.windows)
    samples = max(stop for _, stop in ranges.values())
    splits = _splits(ranges, members, contigs, spec, spec_path)
    schema = Schema(
        kind="windows",
        recipe=recipe,
        alphabet=ALPHABET,
        samples=samples,
        window=spec.windows,
        contigs=tuple(
            ContigEntry(name=name, length=length)
            for name, length in zip(contigs.names, contigs.lengths, strict=True)
        ),
        tasks=tasks(spec),
        fields=fields(spec),
        splits=splits,
        arrays=arrays(contigs, samples, spec, bases_per_shard, rows_per_shard),
    )
    return WindowsPlan(
        spec, schema, loci, peaks, tuple(chosen), fasta, folder, tuple(sources.values())
    )


def _read_peaks(
    spec: WindowsSpec,
    loci: LociSpec,
    folder: Path,
    contigs: Contigs,
    members: dict[str, tuple[int, ...]],
    sources: dict[Path, SourceFile],
) -> Peaks:
    """Read the peaks and what their negatives keep away from."""
    naming = spec.reference.naming
    task = TaskSpec(
        name=loci.label,
        file=loci.file,
        format=loci.format,
        feature=loci.feature,
        where=loci.where,
        anchor=loci.anchor,
    )
    read: list[Intervals] = []
    for number, name in enumerate((loci.file, *loci.exclude)):
        path = folder / name
        if path not in sources:
            sources[path] = identify(path)
        one = task if number == 0 else TaskSpec(name="excluded", file=name)
        read.append(read_task_file(path, one, contigs, naming))
    centers = _choose(read[0], task, contigs, folder / loci.file)
    contig = centers["chrom"].cat.codes.to_numpy().astype(np.int32)
    start = centers["start"].to_numpy(np.int64)
    positives = place_positives(start, contig, contigs, spec.windows, members)
    return Peaks(positives, members, concatenate(read))


def _splits(
    ranges: dict[str, tuple[int, int]],
    members: dict[str, tuple[int, ...]],
    contigs: Contigs,
    spec: WindowsSpec,
    spec_path: Path | str,
) -> dict[str, Split]:
    """Describe the splits, or say which one has no window."""
    splits: dict[str, Split] = {}
    for name in SPLITS:
        start, stop = ranges[name]
        names = tuple(contigs.names[i] for i in members[name])
        if start == stop:
            raise InputError(
                f"split {name!r} has no window: its contigs ({', '.join(names)}) are shorter than "
                f"{spec.windows.length} bp",
                path=spec_path,
                remedy="give it longer contigs, or make [windows] length smaller",
            )
        splits[name] = Split(start=start, stop=stop, contigs=names)
    return splits


def _members(
    spec: WindowsSpec, contigs: Contigs, spec_path: Path | str
) -> dict[str, tuple[int, ...]]:
    """Assign every tiled contig to one split, or say which name is wrong."""
    named: dict[str, str] = {}
    groups = {
        "reference.exclude": spec.reference.exclude,
        "splits.valid": spec.splits.valid,
        "splits.test": spec.splits.test,
    }
    for key, names in groups.items():
        for name in names:
            if name not in contigs.index:
                known = ", ".join(contigs.names[:30])
                raise InputError(
                    f"{key}: no contig {name!r} in {spec.reference.fasta}",
                    path=spec_path,
                    remedy=f"the FASTA has: {known}",
                )
            if name in named:
                raise InputError(
                    f"contig {name!r} is in both {named[name]} and {key}",
                    path=spec_path,
                    remedy="a contig belongs to one split, or is excluded",
                )
            named[name] = key
    train = tuple(i for i, name in enumerate(contigs.names) if name not in named)
    if not train:
        raise InputError(
            "no contig is left for training",
            path=spec_path,
            remedy="hold out or exclude fewer contigs",
        )
    return {
        "train": train,
        "valid": tuple(sorted(contigs.index[name] for name in spec.splits.valid)),
        "test": tuple(sorted(contigs.index[name] for name in spec.splits.test)),
    }


def _choose(intervals: Intervals, task: TaskSpec, contigs: Contigs, path: Path) -> pd.DataFrame:
    """Apply a task to its file, or say why its rule can't be applied to it."""
    if task.anchor in ("start", "end") and (intervals.strand == 0).any():
        raise InputError(
            f"task {task.name!r} is anchored at the {task.anchor}, but the file has intervals "
            "without a strand",
            path=path,
            remedy='use anchor = "interval" or "midpoint", or a file with strands (bed6)',
        )
    if task.anchor == "summit" and (intervals.summit is None or (intervals.summit < 0).any()):
        raise InputError(
            f"task {task.name!r} is anchored at the summit, but not every interval has one",
            path=path,
            remedy='use anchor = "midpoint", or a narrowPeak file with summits (column 10)',
        )
    scored = task.min_score is not None or task.max_score is not None
    if scored and np.isnan(intervals.score).any():
        raise InputError(
            f"task {task.name!r} filters by score, but the file has intervals without one",
            path=path,
            remedy="drop min_score/max_score, or use a file with scores (bed5 or more)",
        )
    chosen = select(intervals, task, contigs)
    if len(chosen) == 0:
        raise InputError(
            f"none of its {len(intervals):,} intervals passes the filters of task {task.name!r}",
            path=path,
            remedy="widen min_length, max_length, min_score or max_score",
        )
    return chosen
