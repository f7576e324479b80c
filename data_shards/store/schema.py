"""What a data set says about itself: the typed attributes of its Zarr group.

A data set is one Zarr v3 group. Its samples are numbered 0 to n - 1, split after split; row i of
every per-sample array is sample i. What a person or a network asks for are **fields**; each kind of
field has its arrays:

==========  =========================================  =============================================
kind        arrays                                     a sample of it
==========  =========================================  =============================================
window      ``reference`` (bases,) uint8               codes, shape (length,): the bases at the
            ``contig`` ``start`` ``strand`` (n,)       sample's locus
track       NAME (bins, channels)                      shape (length / bin, channels): the bins of
            and the loci, as above                     the sample's locus
dense       NAME (n, ...)                              the row
bits        NAME (n, ceil(names / 8)) uint8            bit t % 8 (lowest first) of byte t // 8 is
                                                       name t
ragged      NAME.values (total,), NAME.start (n,)      ``values[start:start + length]``, padded to
            int64, NAME.length (n,) int32              the longest
sparse      as ragged, and NAME.indices (total,)       a row of a CSR matrix, made dense
==========  =========================================  =============================================

``split`` (n,) uint8 says 0 train, 1 valid, 2 test. ``docs/store.md`` is the whole format; beside
the arrays lies ``manifest.parquet``.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_shards.contigs import Contigs
from data_shards.documents import Document, parse
from data_shards.errors import CorruptDataError, InputError
from data_shards.loci import WindowSpec
from data_shards.sequence import ALPHABET
from data_shards.sources.files import SourceFile
from data_shards.store.location import Location, MissingObjectError
from data_shards.store.manifest import ShardRecord

SCHEMA_VERSION = 2
ATTRIBUTE = "replisome"
PARTIAL_SUFFIX = ".partial"

Compression = Literal["none", "lz4"]
Role = Literal["input", "target", "meta"]
Kind = Literal["window", "track", "dense", "bits", "ragged", "sparse"]


class ContigEntry(Document):
    """One contig of the reference: name and length in bp."""

    name: str
    length: int


class TaskEntry(Document):
    """One label column: its name, and the tasks that must be positive for it to be scored."""

    name: str
    given: tuple[str, ...] = ()
    rule: str = Field(description="how the label came about, for a person to read")


class ArrayEntry(Document):
    """One array of the group, as stored."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    shard_rows: int = Field(description="rows (along axis 0) of one shard file")
    compression: Compression = "none"


class FieldEntry(Document):
    """One thing that a sample has; see the module's table."""

    name: str
    role: Role
    kind: Kind
    dtype: str = Field(description="of what a reader gets")
    shape: tuple[int, ...] = Field(description="of one sample, as a reader gets it")
    encoding: str = Field(description="what the numbers mean, for a person to read")
    missing: float | None = Field(None, description="stands for a missing value; NaN is None")
    pad: float | None = Field(None, description="fills a ragged row up to the longest")
    names: tuple[str, ...] = Field((), description="of the last axis, or of the classes")
    bin: int | None = Field(None, description="bp a bin of a track")
    swap: tuple[int, ...] = Field(
        (), description="on the other strand, which channel takes the place of each; none: itself"
    )
    normalise: str | None = Field(None, description="the fitted transform that was applied, JSON")


class Split(Document):
    """Row range of a split, 0-based half-open, and the contigs it has windows on."""

    start: int
    stop: int
    contigs: tuple[str, ...] = ()

    @property
    def samples(self) -> int:
        """Number of samples."""
        return self.stop - self.start


class Provenance(Document):
    """Where the data set came from; not part of its fingerprint."""

    command: str
    sources: tuple[SourceFile, ...]
    versions: dict[str, str]
    created: str


class Schema(Document):
    """Everything a reader needs to know before it touches an array."""

    version: int = SCHEMA_VERSION
    kind: Literal["windows", "rows"]
    recipe: str
    alphabet: str = ALPHABET
    samples: int
    window_: WindowSpec | None = Field(None, alias="window", description="of a windows data set")
    contigs: tuple[ContigEntry, ...] = ()
    tasks: tuple[TaskEntry, ...] = Field((), description="columns of the 'labels' field")
    fields: tuple[FieldEntry, ...]
    splits: dict[str, Split]
    arrays: tuple[ArrayEntry, ...]

    @property
    def window(self) -> WindowSpec:
        """Geometry of the windows.

        Raises:
            InputError: it is a rows data set.
        """
        if self.window_ is None:
            raise InputError(
                "a rows data set has no windows",
                remedy='build a data set with kind = "windows" for this recipe',
            )
        return self.window_

    def field(self, name: str) -> FieldEntry:
        """Return a field by name.

        Raises:
            InputError: there is no such field.
        """
        for entry in self.fields:
            if entry.name == name:
                return entry
        known = ", ".join(entry.name for entry in self.fields)
        raise InputError(f"no field {name!r} in the data set", remedy=f"it has: {known}")

    def array(self, name: str) -> ArrayEntry:
        """Return an array by name; KeyError if there is none."""
        return {entry.name: entry for entry in self.arrays}[name]

    @cached_property
    def reference(self) -> Contigs:
        """The contigs as one value."""
        return Contigs(
            tuple(entry.name for entry in self.contigs),
            tuple(entry.length for entry in self.contigs),
        )

    @property
    def task_names(self) -> tuple[str, ...]:
        """Names of the label columns, in order."""
        return tuple(task.name for task in self.tasks)

    def split(self, name: str) -> Split:
        """Return a split by name.

        Raises:
            InputError: there is no such split.
        """
        if name not in self.splits:
            raise InputError(
                f"no split {name!r} in the data set",
                remedy=f"it has: {', '.join(self.splits)}",
            )
        return self.splits[name]


class Attributes(Document):
    """The group's attributes, whole."""

    schema_: Schema = Field(alias="schema")
    provenance: Provenance
    fingerprint: str


def fingerprint(schema: Schema, shards: list[ShardRecord]) -> str:
    """Return the sha256 over schema and manifest: equal content, equal fingerprint.

    Provenance is left out, so the same data built elsewhere have the same fingerprint, and so is
    text for people, so that a better wording is no other data set.
    """
    prose: dict[str, Any] = {
        "tasks": {"__all__": {"rule"}},
        "fields": {"__all__": {"encoding"}},
    }
    content = {
        "schema": schema.model_dump(mode="json", by_alias=True, exclude=prose),
        "shards": [shard.content() for shard in sorted(shards, key=lambda s: (s.array, s.shard))],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_attributes(place: Location) -> Attributes:
    """Read the attributes of a finished data set.

    Raises:
        InputError: no data set is there, it is unfinished, or it was made by another version; or
            the object store can't be reached.
        CorruptDataError: it is a Zarr group without our attributes.
    """
    if place.folder is not None:
        _refuse_no_group(place.folder)
    try:
        content = place.read("zarr.json")
    except MissingObjectError:
        raise InputError(
            "no finished data set here",
            path=str(place),
            remedy="check the URL; a data set that is still being written has no zarr.json yet",
        ) from None
    try:
        group = json.loads(content)
    except ValueError as error:
        raise CorruptDataError(f"{place.url('zarr.json')}: no JSON ({error})") from error
    stored = group.get("attributes", {}).get(ATTRIBUTE) if isinstance(group, dict) else None
    if not isinstance(stored, dict):
        raise CorruptDataError(f"{place}: the Zarr group has no {ATTRIBUTE!r} attributes")
    found = stored.get("schema", {}).get("version")
    if found != SCHEMA_VERSION:
        raise InputError(
            f"schema version {found}, this program reads {SCHEMA_VERSION}",
            path=str(place),
            remedy="build the data set again, or use the version of replisome that made it",
        )
    return parse(Attributes, stored, str(place))


def _refuse_no_group(path: Path) -> None:
    if not path.exists():
        if path.with_name(path.name + PARTIAL_SUFFIX).exists():
            raise InputError(
                "the data set is not finished",
                path=path,
                remedy="run the same 'replisome data build' again: it continues where it stopped",
            )
        raise InputError("no such data set", path=path, remedy="build it: replisome data build -h")
    if not (path / "zarr.json").is_file():
        raise InputError(
            "not a Zarr group", path=path, remedy="give the folder that 'data build' wrote"
        )
