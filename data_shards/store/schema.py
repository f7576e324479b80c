"""What a data set says about itself: the typed attributes of its Zarr group.

A windows data set ``X.zarr`` is one Zarr v3 group:

====================  =======  ==============================  =====================================
array                 dtype    shape                           holds
====================  =======  ==============================  =====================================
``reference``         uint8    (bases,)                        all contigs end to end, as codes
``contig``            int32    (samples,)                      number of the window's contig
``start``             int64    (samples,)                      first base, 0-based, forward strand
``strand``            int8     (samples,)                      +1, or -1: read reverse complement
``split``             uint8    (samples,)                      0 train, 1 valid, 2 test
``labels``            uint8    (samples, ceil(tasks / 8))      bit t % 8 of byte t // 8 is task t
====================  =======  ==============================  =====================================

Row i of every array but ``reference`` is sample i. Beside the arrays lies ``manifest.parquet``.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import zarr
from pydantic import Field

from data_shards.contigs import Contigs
from data_shards.documents import Document, parse
from data_shards.errors import CorruptDataError, InputError
from data_shards.loci import WindowSpec
from data_shards.sources.files import SourceFile
from data_shards.store.manifest import ShardRecord

SCHEMA_VERSION = 1
ATTRIBUTE = "replisome"
PARTIAL_SUFFIX = ".partial"


class ContigEntry(Document):
    """One contig of the reference: name and length in bp."""

    name: str
    length: int


class TaskEntry(Document):
    """One label column: its name, and the tasks that must be positive for it to be scored."""

    name: str
    given: tuple[str, ...] = ()
    rule: str = Field(description="how the label came about, for a person to read")


class FieldEntry(Document):
    """One array: what its numbers mean."""

    name: str
    dtype: str
    encoding: str
    missing: str | None = Field(None, description="the code that stands for a missing value")


class Split(Document):
    """Row range of a split, 0-based half-open, and its contigs."""

    start: int
    stop: int
    contigs: tuple[str, ...]

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
    kind: str = "windows"
    recipe: str
    alphabet: str
    samples: int
    window: WindowSpec
    contigs: tuple[ContigEntry, ...]
    tasks: tuple[TaskEntry, ...]
    fields: tuple[FieldEntry, ...]
    splits: dict[str, Split]
    rows_per_shard: int
    bases_per_shard: int

    @property
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
    prose = {"tasks": {"__all__": {"rule"}}, "fields": {"__all__": {"encoding"}}}
    content = {
        "schema": schema.model_dump(mode="json", exclude=prose),
        "shards": [shard.content() for shard in sorted(shards, key=lambda s: (s.array, s.shard))],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def read_attributes(path: Path) -> Attributes:
    """Read the attributes of a finished data set.

    Raises:
        InputError: no data set is there, it is unfinished, or it was made by another version.
        CorruptDataError: it is a Zarr group without our attributes.
    """
    if not path.exists():
        partial = path.with_name(path.name + PARTIAL_SUFFIX)
        if partial.exists():
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
    stored = zarr.open_group(str(path), mode="r").attrs.asdict().get(ATTRIBUTE)
    if not isinstance(stored, dict):
        raise CorruptDataError(f"{path}: the Zarr group has no {ATTRIBUTE!r} attributes")
    found = stored.get("schema", {}).get("version")
    if found != SCHEMA_VERSION:
        raise InputError(
            f"schema version {found}, this program reads {SCHEMA_VERSION}",
            path=path,
            remedy="build the data set again, or use the version of replisome that made it",
        )
    return parse(Attributes, stored, path)
