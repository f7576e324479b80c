"""What a person writes to describe a windows data set: one TOML file beside the raw files.

The file says where the reference and the tasks' interval files are, how windows are tiled, and
which contigs are held out. ``docs/data.md`` has an annotated example.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from data_shards.contigs import Naming, NamingRule
from data_shards.documents import Document
from data_shards.loci import WindowSpec
from data_shards.sources.fasta import ContigOrder
from data_shards.sources.intervals import IntervalFormat
from data_shards.sources.signal import Summary
from data_shards.store.schema import Role

Anchor = Literal["interval", "start", "end", "midpoint", "summit"]
TaskFormat = IntervalFormat | Literal["gtf", "bigBed"]
TrackFormat = Literal["bigWig", "bedGraph", "bam", "cram", "tagAlign"]


class ReferenceSpec(Document):
    """The reference genome and how other files name its contigs."""

    fasta: str = Field(description="FASTA file (plain, gzip or bgzip), relative to --from")
    order: ContigOrder = Field(
        "sorted", description='"sorted" refuses contigs in no known order, "file" keeps any order'
    )
    exclude: tuple[str, ...] = Field((), description="contigs that no window is taken from")
    interval_contigs: NamingRule = Field(
        "same", description="how interval files name contigs, against the FASTA"
    )
    renames: dict[str, str] = Field(
        default_factory=dict,
        description="names in interval files -> FASTA names; wins over the rule",
    )

    @property
    def naming(self) -> Naming:
        """The naming rule as a pure function of a name."""
        return Naming(self.interval_contigs, tuple(self.renames.items()))


class TaskSpec(Document):
    """One binary label: which intervals, and when a window's centre counts as positive."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$")
    file: str = Field(description="interval file, relative to --from")
    format: TaskFormat | None = Field(None, description="default: by extension or columns")
    feature: str | None = Field(None, description="of a GTF file: which lines, by column 3")
    where: dict[str, str | tuple[str, ...]] = Field(
        default_factory=dict, description="of a GTF file: attributes that a line must have"
    )
    anchor: Anchor = Field(
        "interval",
        description="the whole interval, its 5' start, 3' end or midpoint, or a peak's summit",
    )
    flank: int = Field(0, ge=0, description="bp added on both sides of the anchor")
    min_length: int = Field(1, ge=1, description="shorter intervals of the file are not used")
    max_length: int | None = Field(None, ge=1, description="longer ones are not used")
    min_score: float | None = Field(None, description="intervals with a lower score are not used")
    max_score: float | None = Field(None, description="intervals with a higher one are not used")
    min_overlap: int | None = Field(
        None, ge=1, description="bp of the centre to be covered; default half of it, as DeepSEA"
    )
    min_count: int | None = Field(
        None, ge=1, description="instead of min_overlap: this many intervals touch the centre"
    )
    given: tuple[str, ...] = Field(
        (), description="score this task only where these tasks are positive"
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.min_overlap is not None and self.min_count is not None:
            raise ValueError("set min_overlap or min_count, not both")
        return self


class LociSpec(Document):
    """Windows on given intervals instead of tiles: a classifier of peaks against background."""

    file: str = Field(description="interval file, relative to --from; a window on each interval")
    format: TaskFormat | None = None
    feature: str | None = Field(None, description="of a GTF file: which lines, by column 3")
    where: dict[str, str | tuple[str, ...]] = Field(default_factory=dict)
    anchor: Literal["start", "end", "midpoint", "summit"] = Field(
        "midpoint", description="what a window is centred on"
    )
    label: str = Field("positive", pattern=r"^[A-Za-z0-9_.+-]+$", description="name of the task")
    negatives: int = Field(
        1, ge=0, description="windows a positive, of its GC content and split, off all intervals"
    )
    exclude: tuple[str, ...] = Field((), description="interval files that no negative touches")
    max_unknown: float = Field(0.0, ge=0, lt=1, description="fraction of N in a negative, at most")
    seed: int = 0


class SignalSpec(Document):
    """How the tracks of a data set are binned; they share one array."""

    bin: int = Field(128, ge=1, description="bp a bin; divides length, stride and every start")
    dtype: Literal["float16", "float32"] = Field(
        "float16", description="a value that does not fit is an error, never clipped"
    )
    role: Role = Field("target", description='"input" for marks that a network reads')


class TrackSpec(Document):
    """One signal along the genome."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.+-]+$")
    file: str = Field(description="bigWig, bedGraph, BAM, CRAM or tagAlign, relative to --from")
    format: TrackFormat | None = Field(None, description="default: by extension")
    summary: Summary = Field("mean", description="of a bin's bases; reads are counted")
    missing: float | Literal["error", "keep"] = Field(
        "error",
        description="a number: the value of bases without data; "
        '"keep": a bin without data is NaN; "error": it is an error',
    )
    min_mapq: int = Field(0, ge=0, description="reads below this mapping quality are not counted")
    opposite: str | None = Field(
        None, description="the track of the other strand, whose place it takes there"
    )


class SplitSpec(Document):
    """Whole contigs held out; every other contig that is tiled is for training."""

    valid: tuple[str, ...] = Field(min_length=1)
    test: tuple[str, ...] = Field(min_length=1)


class WindowsSpec(Document):
    """A windows data set, described."""

    kind: Literal["windows"] = "windows"
    reference: ReferenceSpec
    windows: WindowSpec = WindowSpec()
    splits: SplitSpec
    loci: LociSpec | None = None
    tasks: tuple[TaskSpec, ...] = ()
    signal: SignalSpec = SignalSpec()
    tracks: tuple[TrackSpec, ...] = ()

    @field_validator("tasks")
    @classmethod
    def _tasks_agree(cls, tasks: tuple[TaskSpec, ...]) -> tuple[TaskSpec, ...]:
        names = [task.name for task in tasks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tasks are called {name!r}")
        for task in tasks:
            for other in task.given:
                if other not in names or other == task.name:
                    raise ValueError(f"task {task.name!r}: given {other!r} is no other task")
        return tasks

    @model_validator(mode="after")
    def _something_to_learn(self) -> Self:
        if not self.tasks and not self.tracks and self.loci is None:
            raise ValueError("nothing to learn: give [[tasks]], [[tracks]] or [loci]")
        if self.loci is not None and self.tracks:
            raise ValueError("[loci] are not at whole bins: tracks need tiles")
        if self.loci is not None and self.loci.label in [task.name for task in self.tasks]:
            raise ValueError(f"loci.label {self.loci.label!r} is also the name of a task")
        names = [track.name for track in self.tracks]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two tracks are called {name!r}")
        opposite = {track.name: track.opposite or track.name for track in self.tracks}
        for name, other in opposite.items():
            if opposite.get(other) != name:
                raise ValueError(f"track {name!r}: opposite {other!r} does not name it in turn")
        sizes = {"length": self.windows.length, "stride": self.windows.stride}
        for key, size in sizes.items() if self.tracks else ():
            if size % self.signal.bin:
                raise ValueError(
                    f"windows.{key} ({size}) is no multiple of signal.bin ({self.signal.bin})"
                )
        return self

    @model_validator(mode="after")
    def _rules_can_be_met(self) -> Self:
        for task in self.tasks:
            if task.min_overlap is not None and task.min_overlap > self.windows.center:
                raise ValueError(
                    f"task {task.name!r}: min_overlap {task.min_overlap} exceeds "
                    f"the centre of {self.windows.center} bp"
                )
        return self

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of all label columns: that of the loci, if any, then the tasks."""
        names = tuple(task.name for task in self.tasks)
        return names if self.loci is None else (self.loci.label, *names)
