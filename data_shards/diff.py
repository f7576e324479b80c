"""What differs between two data sets, by their schemas and manifests: no data are read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_shards.dataset import ShardedDataset
from data_shards.store.manifest import ShardRecord


@dataclass(frozen=True)
class Difference:
    """One thing that differs.

    Attributes:
        what: where it is: a key of the schema, a source file, or an array.
        first: as the first data set has it.
        second: as the second has it.
    """

    what: str
    first: str
    second: str


def diff(first: ShardedDataset, second: ShardedDataset) -> list[Difference]:
    """List what differs, most general first; empty if the fingerprints are equal.

    Arrays are compared by the checksums of their shards; where shards are of equal rows, the rows
    of the first one that differs are named.
    """
    if first.attributes.fingerprint == second.attributes.fingerprint:
        return []
    found = list(_schemas(first, second))
    found += _sources(first, second)
    names = [shard.array for shard in (*first.shards, *second.shards)]
    for name in dict.fromkeys(names):
        mine, theirs = _of(first, name), _of(second, name)
        if not mine or not theirs:
            found.append(Difference(f"array {name}", _there(mine), _there(theirs)))
        elif difference := _arrays(name, mine, theirs):
            found.append(difference)
    return found


def _schemas(first: ShardedDataset, second: ShardedDataset) -> Iterator[Difference]:
    mine, theirs = (
        dict(_leaves("", data.schema.model_dump(mode="json", by_alias=True)))
        for data in (first, second)
    )
    for key in dict.fromkeys((*mine, *theirs)):
        if mine.get(key) != theirs.get(key):
            yield Difference(key, _shown(mine.get(key)), _shown(theirs.get(key)))


def _leaves(prefix: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Walk a nested value; entries of a list that have a name go by it."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(f"{prefix}.{key}" if prefix else key, inner)
    elif isinstance(value, list) and value and all(isinstance(v, dict) for v in value):
        for inner in value:
            yield from _leaves(f"{prefix}.{inner.get('name', '')}", inner)
    else:
        yield prefix, value


def _sources(first: ShardedDataset, second: ShardedDataset) -> Iterator[Difference]:
    mine, theirs = (
        {source.name: source.sha256 for source in data.attributes.provenance.sources}
        for data in (first, second)
    )
    for name in dict.fromkeys((*mine, *theirs)):
        if mine.get(name) != theirs.get(name):
            shown = [side.get(name, "none")[:12] for side in (mine, theirs)]
            yield Difference(f"source {name}", *shown)


def _arrays(name: str, mine: list[ShardRecord], theirs: list[ShardRecord]) -> Difference | None:
    rows = [(shard.start, shard.stop) for shard in mine]
    if rows != [(shard.start, shard.stop) for shard in theirs]:
        return Difference(f"array {name}", _there(mine), _there(theirs))
    unequal = [a for a, b in zip(mine, theirs, strict=True) if a.sha256 != b.sha256]
    if not unequal:
        return None
    where = f"{len(unequal)} of {len(mine)} shards, first rows {unequal[0].start:,} to "
    return Difference(f"array {name}", f"{where}{unequal[0].stop:,}", "other bytes there")


def _of(data: ShardedDataset, array: str) -> list[ShardRecord]:
    return sorted((s for s in data.shards if s.array == array), key=lambda s: s.shard)


def _there(shards: list[ShardRecord]) -> str:
    return f"{shards[-1].stop:,} rows in {len(shards)} shards" if shards else "none"


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
