"""Reading a finished data set: batches by vectorised gathers from mapped shards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.augment import Draws
from data_shards.bits import unpack
from data_shards.errors import CorruptDataError
from data_shards.gather import Ragged, Rows, gather, ragged
from data_shards.loci import Loci
from data_shards.sequence import Codes
from data_shards.store.cache import ShardCache
from data_shards.store.location import Location
from data_shards.store.manifest import ShardRecord, read_manifest, verify
from data_shards.store.mapped import MappedArray
from data_shards.store.reader import ArrayReader, open_array
from data_shards.store.schema import Attributes, Schema, fingerprint, read_attributes

_LOG = logging.getLogger(__name__)

STREAM_BUDGET = 512 << 20
"""Bytes of memory for an array that neither lies here uncompressed nor fits into the cache."""


class ShardedDataset:
    """A finished data set, read-only, here or in an object store.

    Opening compares every local shard's presence and size, and the manifest's fingerprint, with the
    attributes. The first use of an array verifies the checksums of its shards (several GB/s), so a
    changed shard is an error and never a wrong batch. An array that is not used is not read: a
    worker of the first stage never touches labels, one of the last never touches the reference.

    Args:
        place: the ``.zarr`` folder, or ``s3://bucket/prefix``, ``gs://bucket/prefix``.
        stream_budget: bytes of memory for an array that has to be streamed.
        notify: told in one sentence when an array is streamed, and why.

    Attributes:
        place: where it is, absolute.
        attributes: schema, provenance and fingerprint.
        shards: the manifest.

    Raises:
        InputError: there is no finished data set at ``place``, or it can't be reached.
        CorruptDataError: a shard is missing, truncated or changed.
    """

    def __init__(
        self,
        place: Path | str | Location,
        *,
        stream_budget: int = STREAM_BUDGET,
        notify: Callable[[str], None] = _LOG.warning,
    ) -> None:
        self.place = _absolute(place)
        self.attributes: Attributes = read_attributes(self.place)
        self.shards: list[ShardRecord] = read_manifest(self.place)
        self._opened: dict[str, ArrayReader] = {}
        self._stream_budget, self._notify = stream_budget, notify
        found = fingerprint(self.schema, self.shards)
        if found != self.attributes.fingerprint:
            raise CorruptDataError(
                f"{self.place}: manifest and attributes do not belong together "
                f"(fingerprint {found[:12]}, expected {self.attributes.fingerprint[:12]})"
            )
        folder = self.place.folder
        if folder is not None:
            for shard in self.shards:
                if fault := verify(folder, shard, content=False):
                    raise CorruptDataError(fault)

    @property
    def schema(self) -> Schema:
        """What is in the data set."""
        return self.attributes.schema_

    @property
    def opened(self) -> frozenset[str]:
        """Names of the arrays that have been touched."""
        return frozenset(self._opened)

    def gather(self, field: str, rows: Rows, draws: Draws | None = None) -> npt.NDArray[Any]:
        """Read one field of some samples.

        Args:
            field: name of the field.
            rows: sample numbers, int64, shape (batch,), in any order.
            draws: how each sample is augmented, if at all.

        Returns:
            Shape (batch, *shape of the field): codes, bits or numbers as the schema says; ragged
            fields are padded to the longest sample, sparse ones are made dense.

        Raises:
            InputError: there is no such field.
            CorruptDataError: a shard of its arrays changed.
        """
        return gather(self.schema.field(field), self.schema, self.array, rows, draws)

    def ragged(self, field: str, rows: Rows) -> Ragged:
        """Read a ragged field without padding."""
        return ragged(self.schema.field(field), self.array, rows)

    def mask(self, field: str, rows: Rows) -> npt.NDArray[np.bool_]:
        """Say where the padded samples of a ragged field have values, shape (batch, width)."""
        lengths = self.array(f"{field}.length").take(rows)
        return np.asarray(np.arange(self.schema.field(field).shape[0]) < lengths[:, None])

    @cached_property
    def loci(self) -> Loci:
        """The table of windows."""
        return Loci(*(self.whole(name) for name in ("contig", "start", "strand", "split")))

    @property
    def reference(self) -> Codes:
        """All contigs end to end, uint8 codes, shape (bases,)."""
        return self.whole("reference")

    def bits(self, field: str, rows: Rows) -> npt.NDArray[np.uint8]:
        """Read a field of bits as zeros and ones, uint8, shape (batch, names)."""
        return unpack(self.gather(field, rows), len(self.schema.field(field).names))

    def labels(self, rows: Rows) -> npt.NDArray[np.uint8]:
        """Read the field ``labels`` as zeros and ones, uint8, shape (batch, tasks)."""
        return self.bits("labels", rows)

    def split_rows(self, split: str) -> Rows:
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

    def whole(self, array: str) -> npt.NDArray[Any]:
        """Return an array of the group as one mapped numpy array."""
        reader = self.array(array)
        if not isinstance(reader, MappedArray):
            raise TypeError(f"array {array!r} is streamed, not mapped")
        return reader.array

    def array(self, name: str) -> ArrayReader:
        """Open an array of the group, verifying its shards; the same object ever after."""
        if name not in self._opened:
            local = self.place.folder is not None
            entry = self.schema.array(name)
            here = local and entry.compression == "none"
            self._opened[name] = open_array(
                self.place,
                entry,
                [shard for shard in self.shards if shard.array == name],
                fingerprint=self.attributes.fingerprint,
                cache=None if here else ShardCache.of_node(),
                stream_budget=self._stream_budget,
                notify=self._notify,
            )
        return self._opened[name]


def _absolute(place: Path | str | Location) -> Location:
    """Name a place so that it means the same in every process."""
    location = place if isinstance(place, Location) else Location.parse(str(place))
    return location if location.folder is None else Location.parse(str(location.folder.resolve()))
