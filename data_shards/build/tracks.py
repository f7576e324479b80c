"""Signal tracks of a windows data set: checked and staged once, then read in bins by every task."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.build.windows_spec import SignalSpec, TrackFormat, TrackSpec
from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.gather import bin_offsets
from data_shards.sources.alignments import (
    AlignmentHeader,
    Filters,
    bin_counts,
    bin_intervals,
    open_alignments,
    scan_alignments,
)
from data_shards.sources.intervals import Intervals, read_intervals
from data_shards.sources.signal import (
    BedGraph,
    BigWigHeader,
    bedgraph,
    binned,
    open_bigwig,
    scan_bigwig,
    to_dtype,
)
from data_shards.store.schema import Schema

ReadBins = Callable[[int, int, int], npt.NDArray[np.floating[Any]]]
"""From (contig number, first base, end base) to its bins; NaN is a bin without data."""

_HEADER = "header.json"
_EXTENSIONS: dict[str, TrackFormat] = {
    ".bw": "bigWig",
    ".bigwig": "bigWig",
    ".bedgraph": "bedGraph",
    ".bdg": "bedGraph",
    ".bg": "bedGraph",
    ".bam": "bam",
    ".cram": "cram",
    ".tagalign": "tagAlign",
}


def track_format(spec: TrackSpec) -> TrackFormat:
    """Return the stated format of a track, or that of its extension.

    Raises:
        InputError: the extension says nothing.
    """
    if spec.format is not None:
        return spec.format
    name = spec.file.lower().removesuffix(".gz").removesuffix(".bgz")
    found = _EXTENSIONS.get(Path(name).suffix)
    if found is None:
        raise InputError(
            f"track {spec.name!r}: the extension tells no format",
            path=spec.file,
            remedy=f"set format to one of {', '.join(dict.fromkeys(_EXTENSIONS.values()))}",
        )
    return found


def stage_track(
    spec: TrackSpec, path: Path, contigs: Contigs, naming: Naming, fasta: Path, folder: Path
) -> None:
    """Read a track once, check it against the reference, and leave what tasks need in ``folder``.

    Args:
        spec: of the track.
        path: of its file.
        contigs: of the reference.
        naming: how the file names them.
        fasta: the reference, which a CRAM is decoded with.
        folder: is made. Must stay as long as the track is read.

    Raises:
        InputError: the file is faulty, or of another genome.
    """
    folder.mkdir(exist_ok=True)
    kind = track_format(spec)
    header: dict[str, Any] = {}
    if kind == "bigWig":
        header["names"] = scan_bigwig(path, contigs, naming).names
    elif kind in ("bam", "cram"):
        scanned = scan_alignments(path, contigs, naming, folder, fasta if kind == "cram" else None)
        header = {
            "names": scanned.names,
            "index": str(scanned.index),
            "fasta": None if scanned.fasta is None else str(scanned.fasta),
        }
    else:
        intervals = read_intervals(
            path, contigs, naming, "bedGraph" if kind == "bedGraph" else "tagAlign"
        )
        if kind == "bedGraph":
            graph = bedgraph(intervals, contigs, path)
            arrays = {name: getattr(graph, name) for name in ("bounds", "start", "end", "value")}
        else:
            arrays = {name: getattr(intervals, name) for name in ("contig", "start", "end")}
        for name, values in arrays.items():
            np.save(folder / f"{name}.npy", values)
    (folder / _HEADER).write_text(json.dumps(header))


@contextmanager
def open_staged(
    spec: TrackSpec, path: Path, contigs: Contigs, folder: Path, bin: int
) -> Iterator[ReadBins]:
    """Open a staged track for reading its bins.

    Args:
        spec: of the track.
        path: of its file, where it was when it was staged.
        contigs: of the reference.
        folder: what :func:`stage_track` wrote.
        bin: bases in a bin.
    """
    header = json.loads((folder / _HEADER).read_text())
    kind = track_format(spec)
    missing = spec.missing if isinstance(spec.missing, float) else None
    if kind == "bigWig":
        with open_bigwig(BigWigHeader(path, contigs, tuple(header["names"]))) as bigwig:
            yield lambda contig, start, stop: binned(
                bigwig, contig, start, stop, bin, spec.summary, missing
            )
    elif kind in ("bam", "cram"):
        scanned = AlignmentHeader(
            path,
            Path(header["index"]),
            None if header["fasta"] is None else Path(header["fasta"]),
            contigs,
            tuple(header["names"]),
        )
        filters = Filters(min_mapq=spec.min_mapq)
        with open_alignments(scanned) as reads:
            yield lambda contig, start, stop: bin_counts(
                reads, contig, start, stop, bin, filters
            ).astype(np.float32)
    else:
        yield _text_track(kind, spec, path, contigs, folder, bin)


def _text_track(
    kind: TrackFormat, spec: TrackSpec, path: Path, contigs: Contigs, folder: Path, bin: int
) -> ReadBins:
    def load(name: str) -> npt.NDArray[Any]:
        loaded: npt.NDArray[Any] = np.load(folder / f"{name}.npy", mmap_mode="r")
        return loaded

    missing = spec.missing if isinstance(spec.missing, float) else None
    if kind == "bedGraph":
        graph = BedGraph(path, contigs, *(load(n) for n in ("bounds", "start", "end", "value")))
        return lambda contig, start, stop: binned(
            graph, contig, start, stop, bin, spec.summary, missing
        )
    contig_of, first, end = (load(name) for name in ("contig", "start", "end"))
    nothing = np.zeros(len(first), dtype=np.int8)
    reads = Intervals(contig_of, first, end, nothing, nothing.astype(np.float64))
    return lambda contig, start, stop: bin_intervals(reads, contig, start, stop, bin).astype(
        np.float32
    )


def read_tracks(
    tracks: list[tuple[TrackSpec, Path, Path]],
    signal: SignalSpec,
    schema: Schema,
    start: int,
    stop: int,
) -> npt.NDArray[Any]:
    """Read a range of the bins of all contigs laid end to end.

    Args:
        tracks: for each its description, its file and its staging folder.
        signal: size and type of the bins.
        schema: gives the contigs.
        start: first bin.
        stop: end bin, exclusive.

    Returns:
        Shape (stop - start, tracks), dtype as ``signal`` says.

    Raises:
        InputError: a bin has no data where that is an error, or a value does not fit the dtype.
    """
    contigs, size = schema.reference, signal.bin
    offsets = bin_offsets(schema, size)
    out = np.empty((stop - start, len(tracks)), dtype=signal.dtype)
    for column, (spec, path, folder) in enumerate(tracks):
        with open_staged(spec, path, contigs, folder, size) as read:
            for number, length in enumerate(contigs.lengths):
                lo = max(start - int(offsets[number]), 0)
                hi = min(stop - int(offsets[number]), -(-length // size))
                if lo >= hi:
                    continue
                first, name = lo * size, contigs.names[number]
                values = read(number, first, min(hi * size, length))
                if spec.missing == "error":
                    _refuse_missing(values, spec, path, name, first, size)
                place = int(offsets[number]) + lo - start
                stored = to_dtype(values, np.dtype(signal.dtype), path, name, first, size)
                out[place : place + hi - lo, column] = stored
    return out


def _refuse_missing(
    values: npt.NDArray[Any], spec: TrackSpec, path: Path, contig: str, first: int, size: int
) -> None:
    bare = np.flatnonzero(np.isnan(values))
    if len(bare):
        begin = first + int(bare[0]) * size
        raise InputError(
            f"track {spec.name!r} has no data at {contig}:{begin:,}-{begin + size:,}",
            path=path,
            remedy='say what that means: missing = 0.0 (no signal), or missing = "keep" (NaN)',
        )
