"""Reading a finished windows data set: batches by vectorised gathers from mapped shards."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from data_shards.bits import unpack
from data_shards.errors import CorruptDataError
from data_shards.loci import Loci
from data_shards.sequence import Codes, reverse_complement
from data_shards.store.manifest import ShardRecord, read_manifest, verify
from data_shards.store.schema import Attributes, Schema, fingerprint, read_attributes
from data_shards.store.shards import map_shards


class WindowsDataset:
    """A finished windows data set, read-only.

    Opening compares every shard's presence and size, and the manifest's fingerprint, with the
    attributes. The first use of an array verifies the checksums of its shards (several GB/s), so a
    changed shard is an error and never a wrong batch. An array that is not used is not read: a
    worker of the first stage never touches labels, one of the last never touches the reference.

    Attributes:
        path: the ``.zarr`` folder.
        attributes: schema, provenance and fingerprint.
        shards: the manifest.

    Raises:
        InputError: there is no finished data set at ``path``.
        CorruptDataError: a shard is missing, truncated or changed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.attributes: Attributes = read_attributes(path)
        self.shards: list[ShardRecord] = read_manifest(path)
        found = fingerprint(self.schema, self.shards)
        if found != self.attributes.fingerprint:
            raise CorruptDataError(
                f"{path}: manifest and attributes do not belong together "
                f"(fingerprint {found[:12]}, expected {self.attributes.fingerprint[:12]})"
            )
        for shard in self.shards:
            if fault := verify(path, shard, content=False):
                raise CorruptDataError(fault)

    @property
    def schema(self) -> Schema:
        """What is in the data set."""
        return self.attributes.schema_

    @cached_property
    def loci(self) -> Loci:
        """The table of windows."""
        return Loci(*(self._map(name) for name in ("contig", "start", "strand", "split")))

    @cached_property
    def reference(self) -> Codes:
        """All contigs end to end, uint8 codes, shape (bases,)."""
        return self._map("reference")

    def codes(self, rows: npt.NDArray[np.int64]) -> Codes:
        """Read sequences.

        Args:
            rows: sample numbers, shape (batch,).

        Returns:
            uint8 codes, shape (batch, window length).
        """
        loci = self.loci
        offsets = self.schema.reference.offsets
        begin = offsets[loci.contig[rows]] + loci.start[rows]
        codes: Codes = self._windows[begin]
        backward = loci.strand[rows] < 0
        if backward.any():
            codes[backward] = reverse_complement(codes[backward])
        return codes

    def packed_labels(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Read labels as stored: bits, uint8, shape (batch, ceil(tasks / 8))."""
        packed: npt.NDArray[np.uint8] = self._labels[rows]
        return packed

    def labels(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """Read labels as zeros and ones, uint8, shape (batch, tasks)."""
        return unpack(self.packed_labels(rows), len(self.schema.tasks))

    def split_rows(self, split: str) -> npt.NDArray[np.int64]:
        """Return the sample numbers of a split, in stored order, int64.

        Raises:
            InputError: there is no such split.
        """
        entry = self.schema.split(split)
        return np.arange(entry.start, entry.stop, dtype=np.int64)

    def positives(self) -> dict[str, npt.NDArray[np.int64]]:
        """Count positives of each task in each split; int64, shape (tasks,)."""
        return {
            split: self.labels(self.split_rows(split)).sum(axis=0, dtype=np.int64)
            for split in self.schema.splits
        }

    @cached_property
    def _labels(self) -> npt.NDArray[np.uint8]:
        return self._map("labels")

    @cached_property
    def _windows(self) -> Codes:
        """Every window of the reference as a view, shape (bases - length + 1, length)."""
        return sliding_window_view(self.reference, self.schema.window.length)

    def _map(self, array: str) -> npt.NDArray[Any]:
        shards = [shard for shard in self.shards if shard.array == array]
        for shard in shards:
            if fault := verify(self.path, shard, content=True):
                raise CorruptDataError(fault)
        return map_shards(self.path, array, shards)
