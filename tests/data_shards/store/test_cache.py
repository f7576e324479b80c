"""The node's cache: fetched once, verified, within its size, whole after any kill."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr

from data_shards.errors import CorruptDataError, InputError
from data_shards.progress import Progress, silent
from data_shards.store import cache as module
from data_shards.store.cache import CachedArray, CacheFullError, Lease, ShardCache
from data_shards.store.location import Location
from data_shards.store.manifest import ShardRecord
from data_shards.store.schema import Compression
from data_shards.store.shards import ROW_QUANTUM, map_shards
from tests.data_shards.store import test_location
from tests.data_shards.store.test_location import Store
from tests.data_shards.store.test_shards import new_group, write_array

server, store = test_location.server, test_location.store

BIG = 1 << 30
VALUES = np.random.default_rng(0).integers(0, 9, (2 * ROW_QUANTUM + 5, 7)).astype(np.int16)
SHARDS = 3


class Source:
    """An array in a folder or a bucket, and its manifest records."""

    def __init__(
        self,
        folder: Path,
        compression: Compression = "lz4",
        values: npt.NDArray[Any] = VALUES,
    ) -> None:
        self.folder, self.values = folder, values
        self.records = write_array(new_group(folder), "a", values, compression)
        self.metadata = (folder / "a" / "zarr.json").read_bytes()
        self.location = Location.parse(str(folder))

    def upload(self, prefix: str) -> Source:
        """Put it into the bucket ``bucket`` and read it from there."""
        self.location = Location.parse(f"s3://bucket/{prefix}")
        for path in self.folder.rglob("*"):
            if path.is_file():
                self.location.write(str(path.relative_to(self.folder)), path.read_bytes())
        return self

    def ensure(
        self, cache: ShardCache, fingerprint: str = "f0", progress: Progress = silent
    ) -> CachedArray:
        return cache.ensure(self.location, fingerprint, "a", self.metadata, self.records, progress)

    def bytes(self, cache_folder: Path, fingerprint: str = "f0") -> int:
        """Room that it takes in a cache."""
        files = (cache_folder / fingerprint / "a" / "c").rglob("0")
        return sum(path.stat().st_size for path in files if path.is_file())


def mapped(cached: CachedArray) -> npt.NDArray[Any]:
    return map_shards(cached.folder, "a", cached.records)


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", BIG)


@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize("values", [VALUES, VALUES[:0], VALUES[:1, 0]], ids=["3", "0", "1"])
def test_a_cached_array_is_mapped_and_any_zarr_reader_reads_it(
    tmp_path: Path, cache: ShardCache, compression: Compression, values: npt.NDArray[Any]
) -> None:
    source = Source(tmp_path / "x.zarr", compression, values)
    cached = source.ensure(cache)
    assert np.array_equal(mapped(cached), values)
    assert mapped(cached).dtype == values.dtype
    assert np.array_equal(zarr.open_group(str(cached.folder), mode="r")["a"][:], values)


def test_what_is_cached_is_not_fetched_again(
    tmp_path: Path, cache: ShardCache, store: Store
) -> None:
    source = Source(tmp_path / "x.zarr").upload("x.zarr")
    store.requests.seen.clear()
    source.ensure(cache)
    expected = sorted(f"/bucket/x.zarr/{record.path}" for record in source.records)
    assert store.requests.objects() == expected
    source.ensure(cache)
    assert len(store.requests.seen) == SHARDS


def ensure_in_child(arguments: tuple[Any, ...], barrier: Any, pipe: Any) -> None:
    cache, location, metadata, records = arguments
    barrier.wait()
    told: list[tuple[str, int, int]] = []
    cached = cache.ensure(location, "f0", "a", metadata, records, lambda *now: told.append(now))
    pipe.send((int(mapped(cached).sum(dtype=np.int64)), told))


def test_two_processes_at_once_fetch_once(tmp_path: Path, cache: ShardCache, store: Store) -> None:
    source = Source(tmp_path / "x.zarr").upload("x.zarr")
    store.requests.seen.clear()
    context = multiprocessing.get_context("spawn")
    barrier, (mine, theirs) = context.Barrier(2), context.Pipe()
    arguments = (cache, source.location, source.metadata, source.records)
    children = [
        context.Process(target=ensure_in_child, args=(arguments, barrier, theirs)) for _ in range(2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    for _ in children:
        total, told = mine.recv()
        assert total == VALUES.sum(dtype=np.int64)
        assert told[0] == ("caching a", 0, SHARDS)
    assert len(store.requests.objects()) == SHARDS


def test_progress_counts_shards(tmp_path: Path, cache: ShardCache) -> None:
    source = Source(tmp_path / "x.zarr")
    told: list[tuple[str, int, int]] = []
    source.ensure(cache, progress=lambda *now: told.append(now))
    assert told == [("caching a", n, SHARDS) for n in range(SHARDS + 1)]


@pytest.mark.parametrize("compression", ["none", "lz4"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "the shard is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "bytes where there should be"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "bytes where there should be"),
        (
            lambda path: path.write_bytes(b"\7" + path.read_bytes()[1:]),
            r"the content changed \(crc32c",
        ),
    ],
)
def test_a_damaged_source_is_refused_and_never_cached(
    tmp_path: Path,
    cache: ShardCache,
    compression: Compression,
    damage: Callable[[Path], object],
    message: str,
) -> None:
    source = Source(tmp_path / "x.zarr", compression)
    good = shutil.copytree(source.folder, tmp_path / "good.zarr")
    damage(source.folder / source.records[1].path)
    with pytest.raises(CorruptDataError, match=f"a/c/1/0: .*{message}"):
        source.ensure(cache)
    source.location = Location.parse(str(good))
    assert np.array_equal(mapped(source.ensure(cache)), VALUES)


@pytest.mark.parametrize("kind", ["content", "size", "missing", "metadata"])
def test_a_damaged_cache_heals(tmp_path: Path, cache: ShardCache, store: Store, kind: str) -> None:
    source = Source(tmp_path / "x.zarr").upload("x.zarr")
    cached = source.ensure(cache)
    path = cached.folder / cached.records[1].path
    if kind == "content":
        path.write_bytes(b"\7" + path.read_bytes()[1:])
    elif kind == "size":
        os.truncate(path, 4096)
    elif kind == "missing":
        path.unlink()
    else:
        (cached.folder / "a" / "zarr.json").unlink()
    store.requests.seen.clear()
    assert np.array_equal(mapped(source.ensure(cache)), VALUES)
    fetched = [f"/bucket/x.zarr/{source.records[1].path}"] if kind != "metadata" else []
    assert store.requests.objects() == fetched


SLOW_BUILDER = """
import sys, time
from pathlib import Path
from data_shards.store import cache as module
from tests.data_shards.store.test_cache import Source, ShardCache, BIG

write = module._write
def slow(path, content):
    if path.suffix == "" and path.parent.parent.name == "c" and path.parent.name == "1":
        path.parent.mkdir(parents=True)
        path.with_name(path.name + ".partial").write_bytes(b"half")
        notes = Path(sys.argv[2]) / "f0" / ".state" / "a.jsonl"
        while not notes.read_text():  # the shard before is noted by another thread
            time.sleep(0.01)
        print("writing", flush=True)
        time.sleep(60)
    write(path, content)
module._write = slow
module._FETCHES = 1
source = Source(Path(sys.argv[1]))
source.ensure(ShardCache(Path(sys.argv[2]), BIG))
"""


def test_a_killed_builder_leaves_nothing_wrong(tmp_path: Path, cache: ShardCache) -> None:
    command = [sys.executable, "-c", SLOW_BUILDER, str(tmp_path / "x.zarr"), str(cache.folder)]
    builder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path.cwd())
    assert builder.stdout is not None
    assert builder.stdout.readline() == "writing\n"
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    builder.stdout.close()
    assert (cache.folder / "f0" / ".state" / "a.jsonl").read_text().count("\n") == 1
    with (cache.folder / "f0" / ".state" / "a.jsonl").open("a") as notes:
        notes.write('{"shard": 1, "by')  # a line cut by the kill
    source = Source(tmp_path / "y.zarr")
    told: list[tuple[str, int, int]] = []
    cached = source.ensure(cache, progress=lambda *now: told.append(now))
    assert told[0] == ("caching a", 1, SHARDS)  # the finished shard counts
    assert np.array_equal(mapped(cached), VALUES)
    assert not list(cached.folder.rglob("*.partial"))


def test_what_was_used_last_stays(tmp_path: Path, cache: ShardCache) -> None:
    source = Source(tmp_path / "x.zarr")
    source.ensure(cache)
    size = source.bytes(cache.folder)
    cache = replace(cache, capacity_bytes=3 * size)
    for number, name in enumerate(("f1", "f2")):
        source.ensure(cache, name)
        os.utime(cache.folder / f"{name}.lock", (10 + number,) * 2)  # long ago, f1 first
    source.ensure(cache, "f0")
    source.ensure(cache, "f3")
    assert names(cache) == ["f0", "f2", "f3"]
    assert source.bytes(cache.folder, "f3") == size


def names(cache: ShardCache) -> list[str]:
    return sorted(path.name for path in cache.folder.glob("f?"))


def test_what_is_in_use_is_never_removed(tmp_path: Path, cache: ShardCache) -> None:
    source = Source(tmp_path / "x.zarr")
    used = source.ensure(cache)
    size = source.bytes(cache.folder)
    cache = replace(cache, capacity_bytes=2 * size)
    source.ensure(cache, "f1")
    source.ensure(cache, "f2")
    assert names(cache) == ["f0", "f2"]
    again = pickle.loads(pickle.dumps(used.lease))  # as in a spawned worker
    del used
    source.ensure(cache, "f3")
    assert names(cache) == ["f0", "f3"]
    del again
    source.ensure(cache, "f4")
    assert names(cache) == ["f3", "f4"]


def hold(path: Path, pipe: Any) -> None:
    lease = Lease(path)
    pipe.send("held")
    pipe.recv()
    del lease


def test_another_process_keeps_what_it_uses(tmp_path: Path, cache: ShardCache) -> None:
    source = Source(tmp_path / "x.zarr")
    source.ensure(cache)
    cache = replace(cache, capacity_bytes=source.bytes(cache.folder))
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=hold, args=(cache.folder / "f0.lock", theirs))
    child.start()
    assert mine.recv() == "held"
    with pytest.raises(CacheFullError, match="are in use"):
        source.ensure(cache, "f1")
    assert names(cache) == ["f0", "f1"]  # f1: an empty place
    mine.send("done")
    child.join(10)
    source.ensure(cache, "f1")
    assert names(cache) == ["f1"]


def test_nothing_is_removed_in_vain(tmp_path: Path, cache: ShardCache) -> None:
    source = Source(tmp_path / "x.zarr")
    source.ensure(cache)
    cache = replace(cache, capacity_bytes=source.bytes(cache.folder) - 1)
    with pytest.raises(CacheFullError, match=r"[\d,]+ bytes do not fit .*REPLISOME_CACHE_BYTES"):
        source.ensure(cache, "f1")
    assert np.array_equal(mapped(source.ensure(cache)), VALUES)


def test_an_unfinished_array_counts_whole(tmp_path: Path, cache: ShardCache) -> None:
    source = Source(tmp_path / "x.zarr")
    broken = Source(tmp_path / "y.zarr")
    (broken.folder / broken.records[2].path).unlink()
    used = lease_of(cache, "f1")
    with pytest.raises(CorruptDataError):
        broken.ensure(cache, "f1")
    source.ensure(cache)
    size = source.bytes(cache.folder)
    cache = replace(cache, capacity_bytes=2 * size - 1)
    shutil.rmtree(cache.folder / "f0")
    with pytest.raises(CacheFullError):
        source.ensure(cache)
    del used
    source.ensure(cache)
    assert names(cache) == ["f0"]


def lease_of(cache: ShardCache, name: str) -> Lease:
    cache.folder.mkdir(parents=True, exist_ok=True)
    return Lease(cache.folder / f"{name}.lock")


def test_half_of_a_removed_data_set_is_swept_away(tmp_path: Path, cache: ShardCache) -> None:
    leftover = cache.folder / ".evicted-f9"
    leftover.mkdir(parents=True)
    (leftover / "half").write_bytes(b"")
    Source(tmp_path / "x.zarr").ensure(cache)
    assert not leftover.exists()


def test_a_full_disk_is_no_room(
    tmp_path: Path, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(tmp_path / "x.zarr")
    write = module._write

    def full(path: Path, content: bytes | memoryview) -> None:
        if "c" in path.parts and path.parent.name == "2":
            raise OSError(errno.ENOSPC, "No space left on device")
        write(path, content)

    monkeypatch.setattr(module, "_write", full)
    with pytest.raises(CacheFullError, match=f"the disk of the cache {cache.folder} is full"):
        source.ensure(cache)
    assert not (cache.folder / "f0" / "a").exists()  # it would hold the last of the room
    monkeypatch.setattr(module, "_write", write)
    assert np.array_equal(mapped(source.ensure(cache)), VALUES)


def test_a_disk_with_too_little_room_makes_room_first(
    tmp_path: Path, cache: ShardCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(tmp_path / "x.zarr")
    source.ensure(cache)
    size = source.bytes(cache.folder)

    def usage(folder: Path) -> Any:
        used = sum(source.bytes(folder, name) for name in ("f0", "f1"))
        return type("Usage", (), {"free": int(1.5 * size) - used})

    monkeypatch.setattr(shutil, "disk_usage", usage)
    source.ensure(cache, "f1")
    assert names(cache) == ["f1"]
    held = source.ensure(cache, "f1")
    with pytest.raises(CacheFullError, match="do not fit on the disk"):
        source.ensure(cache, "f2")
    assert np.array_equal(mapped(held), VALUES)


def test_the_environment_names_folder_and_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLISOME_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("REPLISOME_CACHE_BYTES", "12345")
    assert ShardCache.of_node() == ShardCache(tmp_path / "here", 12345)
    monkeypatch.delenv("REPLISOME_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ShardCache.of_node().folder == tmp_path / ".cache" / "replisome"


def test_the_size_is_half_of_what_was_free_at_first_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLISOME_CACHE", str(tmp_path))
    monkeypatch.delenv("REPLISOME_CACHE_BYTES", raising=False)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 2002}))
    assert ShardCache.of_node().capacity_bytes == 1001
    monkeypatch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10}))
    assert ShardCache.of_node().capacity_bytes == 1001


@pytest.mark.parametrize("value", ["10GB", "-1", "1e9", " 5", "²"])
def test_a_size_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("REPLISOME_CACHE_BYTES", value)
    with pytest.raises(InputError, match=f"REPLISOME_CACHE_BYTES = {re.escape(repr(value))}"):
        ShardCache.of_node()


def test_a_folder_that_can_not_be_written_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("REPLISOME_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(InputError, match="file/below: the cache can't be used") as error:
        ShardCache.of_node()
    assert "REPLISOME_CACHE" in (error.value.remedy or "")


def test_a_fingerprint_that_is_a_path_is_refused(tmp_path: Path, cache: ShardCache) -> None:
    source = Source(tmp_path / "x.zarr")
    for name in ("../x", "", "a/b"):
        with pytest.raises(ValueError, match="is no fingerprint"):
            source.ensure(cache, name)


def test_records_that_do_not_cover_the_array_are_refused(tmp_path: Path, cache: ShardCache) -> None:
    source = Source(tmp_path / "x.zarr")
    wrong: list[ShardRecord] = source.records[:2]
    with pytest.raises(CorruptDataError, match="does not cover"):
        cache.ensure(source.location, "f0", "a", source.metadata, wrong)


def test_waiting_for_a_builder_is_told(tmp_path: Path, cache: ShardCache) -> None:
    source = Source(tmp_path / "x.zarr")
    state = cache.folder / "f0" / ".state"
    state.mkdir(parents=True)
    context = multiprocessing.get_context("fork")
    mine, theirs = context.Pipe()
    child = context.Process(target=hold_lock, args=(state / "a.lock", theirs))
    child.start()
    assert mine.recv() == "held"
    told: list[float] = []
    begin = time.monotonic()
    cached = source.ensure(cache, progress=lambda *_: told.append(time.monotonic() - begin))
    child.join(10)
    assert told[0] < 0.3 <= told[1]
    assert np.array_equal(mapped(cached), VALUES)


def hold_lock(path: Path, pipe: Any) -> None:
    with module._locked(path):
        pipe.send("held")
        time.sleep(0.5)
