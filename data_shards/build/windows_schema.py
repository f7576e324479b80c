"""How a windows data set describes itself: rules in words, fields and arrays."""

from __future__ import annotations

import numpy as np

from data_shards.build.windows_spec import TaskSpec, TrackSpec, WindowsSpec
from data_shards.contigs import Contigs
from data_shards.sequence import UNKNOWN
from data_shards.store import layout
from data_shards.store.schema import ArrayEntry, FieldEntry, TaskEntry


def rule(task: TaskSpec, center: int) -> str:
    """Write a task's rule in words."""
    what = task.feature or "interval"
    subject = f"{what}s" if task.anchor == "interval" else f"{what} {task.anchor}s"
    if task.flank:
        subject += f" +/- {task.flank} bp"
    limits = [
        f"{what} {sign} {value:g}"
        for what, sign, value in (
            ("length", ">=", task.min_length if task.min_length > 1 else None),
            ("length", "<=", task.max_length),
            ("score", ">=", task.min_score),
            ("score", "<=", task.max_score),
        )
        if value is not None
    ]
    if limits:
        subject += f" ({', '.join(limits)})"
    if task.min_count is not None:
        return f"{task.min_count} or more {subject} touch the central {center} bp"
    needed = task.min_overlap if task.min_overlap is not None else -(-center // 2)
    return f"{subject} cover {needed} or more of the central {center} bp"


def tasks(spec: WindowsSpec) -> tuple[TaskEntry, ...]:
    """Describe the label columns of a windows data set."""
    found = [
        TaskEntry(name=task.name, given=task.given, rule=rule(task, spec.windows.center))
        for task in spec.tasks
    ]
    if spec.loci is None:
        return tuple(found)
    loci = spec.loci
    text = f"the window is centred on the {loci.anchor} of an interval of {loci.file}; the others "
    text += f"are {loci.negatives} of its GC content for each, off all intervals"
    return (TaskEntry(name=loci.label, rule=text), *found)


def fields(spec: WindowsSpec) -> tuple[FieldEntry, ...]:
    """Describe the fields of a windows data set."""
    found = [
        FieldEntry(
            name="sequence",
            role="input",
            kind="window",
            dtype="uint8",
            shape=(spec.windows.length,),
            encoding="A=0 C=1 G=2 T=3, N and other IUPAC letters=4",
            missing=UNKNOWN,
        )
    ]
    if spec.labels:
        found.append(
            FieldEntry(
                name="labels",
                role="target",
                kind="bits",
                dtype="uint8",
                shape=(-(-len(spec.labels) // 8),),
                encoding="task t is bit t % 8 of byte t // 8",
                names=spec.labels,
            )
        )
    if spec.tracks:
        size, names = spec.signal.bin, tuple(track.name for track in spec.tracks)
        found.append(
            FieldEntry(
                name="tracks",
                role=spec.signal.role,
                kind="track",
                dtype=spec.signal.dtype,
                shape=(spec.windows.length // size, len(names)),
                encoding=f"signal in bins of {size} bp",
                names=names,
                bin=size,
                swap=_swap(spec.tracks),
            )
        )
    return tuple(found)


def _swap(tracks: tuple[TrackSpec, ...]) -> tuple[int, ...]:
    """Number the channel that takes the place of each on the other strand; none if all stay."""
    number = {track.name: i for i, track in enumerate(tracks)}
    swap = tuple(number[track.opposite or track.name] for track in tracks)
    return () if swap == tuple(range(len(tracks))) else swap


def arrays(
    contigs: Contigs, samples: int, spec: WindowsSpec, bases_per_shard: int, rows_per_shard: int
) -> tuple[ArrayEntry, ...]:
    """Describe the arrays of a windows data set."""
    shapes: dict[str, tuple[str, tuple[int, ...], int]] = {
        "reference": ("uint8", (contigs.total,), bases_per_shard),
        "contig": ("int32", (samples,), rows_per_shard),
        "start": ("int64", (samples,), rows_per_shard),
        "strand": ("int8", (samples,), rows_per_shard),
        "split": ("uint8", (samples,), rows_per_shard),
    }
    if spec.labels:
        shapes["labels"] = ("uint8", (samples, -(-len(spec.labels) // 8)), rows_per_shard)
    if spec.tracks:
        bins = sum(-(-length // spec.signal.bin) for length in contigs.lengths)
        row = np.dtype(spec.signal.dtype).itemsize * len(spec.tracks)
        size = layout.rows_per_shard(row, bases_per_shard)
        shapes["tracks"] = (spec.signal.dtype, (bins, len(spec.tracks)), size)
    return tuple(
        ArrayEntry(name=name, dtype=dtype, shape=shape, shard_rows=rows)
        for name, (dtype, shape, rows) in shapes.items()
    )
