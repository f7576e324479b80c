"""What the builder asks of a plan, whatever kind of data set it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy.typing as npt

from data_shards.progress import Progress
from data_shards.sources.files import SourceFile
from data_shards.store.schema import ArrayEntry, Schema


@dataclass(frozen=True)
class ShardJob:
    """One unit of work: the same row range of one array, or of arrays that are made together.

    Attributes:
        group: names the arrays, in the plan's own words.
        shard: number of the shard along axis 0.
        start: first row, 0-based.
        stop: end row, exclusive.
    """

    group: str
    shard: int
    start: int
    stop: int

    @property
    def name(self) -> str:
        """Name of its record."""
        return f"{self.group}-{self.shard:06d}.json"


class Plan(Protocol):
    """Everything that was read and checked before the first byte is written."""

    @property
    def sources(self) -> tuple[SourceFile, ...]:
        """Identity of every file read."""
        ...

    @property
    def dropped(self) -> int:
        """Samples that are left out, by the description's own rule."""
        ...

    @property
    def identity(self) -> str:
        """A sha256 that is equal for equal input: decides whether a build can be continued."""
        ...

    def stage(self, folder: Path, progress: Progress) -> Schema:
        """Prepare the sources in ``folder`` for reading at random; return what will be built.

        Called again after a kill, it does what is missing and returns the same.
        """
        ...

    def worker(self) -> Plan:
        """Return the part of the plan that the tasks need: small, for it is sent to each."""
        ...

    def jobs(self, schema: Schema) -> list[ShardJob]:
        """Cut the work into whole shards."""
        ...

    def shard(self, folder: Path, schema: Schema, job: ShardJob) -> dict[str, npt.NDArray[Any]]:
        """Make the rows of one job, by array, from what was staged. Runs in a Ray task."""
        ...


def cut(group: str, entry: ArrayEntry) -> list[ShardJob]:
    """Cut an array into jobs of one shard each."""
    rows, size = entry.shape[0], entry.shard_rows
    return [
        ShardJob(group, number, start, min(start + size, rows))
        for number, start in enumerate(range(0, rows, size))
    ]
