"""A task's file as intervals, whatever its format."""

from __future__ import annotations

from pathlib import Path

from data_shards.build.windows_spec import TaskFormat, TaskSpec
from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.bigbed import stream_bigbed
from data_shards.sources.gtf import read_features
from data_shards.sources.intervals import Intervals, concatenate, read_intervals

_EXTENSIONS: dict[str, TaskFormat] = {
    ".gtf": "gtf",
    ".bb": "bigBed",
    ".bigbed": "bigBed",
}


def read_task_file(path: Path, task: TaskSpec, contigs: Contigs, naming: Naming) -> Intervals:
    """Read the intervals of a task and check each against the reference.

    Raises:
        InputError: names file and line of what is wrong; or the task asks for something that
            files of this format don't have.
    """
    layout = task.format or _by_extension(path)
    if layout == "gtf":
        if task.feature is None:
            raise InputError(
                f"task {task.name!r} does not say which lines of the GTF it means",
                path=path,
                remedy='set feature = "gene", "transcript", "exon" or another value of column 3',
            )
        return read_features(path, contigs, naming, task.feature, task.where or None).intervals
    if task.feature is not None or task.where:
        raise InputError(
            f"task {task.name!r} has feature or where, which only a GTF file has",
            path=path,
            remedy='take them out, or set format = "gtf"',
        )
    if layout == "bigBed":
        return concatenate(list(stream_bigbed(path, contigs, naming)))
    return read_intervals(path, contigs, naming, layout)


def _by_extension(path: Path) -> TaskFormat | None:
    name = path.name.lower().removesuffix(".gz").removesuffix(".bgz")
    return _EXTENSIONS.get(Path(name).suffix)
