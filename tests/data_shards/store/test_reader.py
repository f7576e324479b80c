"""An array reads the same wherever its bytes are; what can't be read is said and never guessed."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.errors import CorruptDataError, InputError
from data_shards.store.cache import ShardCache
from data_shards.store.manifest import write_manifest
from data_shards.store.mapped import MappedArray, map_array
from data_shards.store.reader import (
    ArrayReader,
    StreamedArray,
    open_array,
)
from data_shards.store.schema import ArrayEntry, Compression
from data_shards.store.shards import ROW_QUANTUM, read_layout
from tests.data_shards.store import test_location
from tests.data_shards.store.test_cache import BIG, VALUES, Source
from tests.data_shards.store.test_location import Store

server, store = test_location.server, test_location.store


def entry(source: Source, **changes: object) -> ArrayEntry:
    values: dict[str, Any] = {
        "name": "a",
        "dtype": source.values.dtype.name,
        "shape": source.values.shape,
        "shard_rows": ROW_QUANTUM,
        "compression": "lz4" if b"blosc" in source.metadata else "none",
        **changes,
    }
    return ArrayEntry(**values)


def opened(
    source: Source,
    cache: ShardCache | None = None,
    budget: int = BIG,
    notify: Callable[[str], None] = pytest.fail,
    **changes: object,
) -> ArrayReader:
    return open_array(
        source.location,
        entry(source, **changes),
        source.records,
        fingerprint="f0",
        cache=cache,
        stream_budget=budget,
        notify=notify,
    )


def streamed(source: Source, budget: int = BIG) -> StreamedArray:
    found = opened(source, None, budget, lambda _: None)
    assert isinstance(found, StreamedArray)
    return found


@pytest.fixture
def cache(tmp_path: Path) -> ShardCache:
    return ShardCache(tmp_path / "cache", BIG)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Not to be changed by tests."""
    return Source(tmp_path_factory.mktemp("packed") / "x.zarr", "lz4")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Not to be changed by tests."""
    return Source(tmp_path_factory.mktemp("plain") / "x.zarr", "none")


@given(
    total=st.integers(1, 3 * ROW_QUANTUM),
    width=st.sampled_from([(), (3,), (2, 2)]),
    dtype=st.sampled_from(["uint8", "float16", "int64"]),
    compression=st.sampled_from(["none", "lz4"]),
    length=st.integers(1, 2 * ROW_QUANTUM + 5),
    shards=st.integers(1, 3),
    seed=st.integers(0, 2**32 - 1),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=25
)
def test_every_reader_gathers_what_numpy_gathers(
    tmp_path: Path,
    total: int,
    width: tuple[int, ...],
    dtype: str,
    compression: Compression,
    length: int,
    shards: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 100, (total, *width)).astype(dtype)
    length = min(length, total)
    source = Source(tmp_path / "x.zarr", compression, values)
    largest = ROW_QUANTUM * values[:1].nbytes + 100
    readers: list[ArrayReader] = [
        MappedArray(values),
        StreamedArray(
            source.location,
            "a",
            read_layout(source.metadata, "a"),
            source.records,
            shards * largest + (largest if compression == "lz4" else 0),
        ),
    ]
    if compression == "none":
        readers.append(map_array(source.folder, "a", source.records))
    rows = rng.integers(0, total, 300)
    starts = rng.integers(0, total - length + 1, 20)
    runs = np.stack([values[start : start + length] for start in starts])
    for reader in readers:
        assert (reader.shape, reader.dtype) == (values.shape, values.dtype)
        assert np.array_equal(reader.take(rows), values[rows])
        assert np.array_equal(reader.slices(starts, length), runs)
        for found in (reader.take(rows), reader.slices(starts, length)):
            assert found.dtype == values.dtype
            found[...] = 7  # the caller's own
        assert reader.take(rows[:0]).shape == (0, *width)
        assert reader.slices(starts[:0], length).shape == (0, length, *width)
        assert np.array_equal(reader.take(rows), values[rows])
    shutil.rmtree(source.folder)


@pytest.fixture(params=["mapped", "streamed"])
def reader(request: pytest.FixtureRequest, plain: Source, packed: Source) -> ArrayReader:
    return opened(plain) if request.param == "mapped" else streamed(packed)


@pytest.mark.parametrize("rows", [[-1], [len(VALUES)], [0, 2**62], [0, -(2**63)]])
def test_a_row_outside_of_the_array_is_an_error(reader: ArrayReader, rows: list[int]) -> None:
    wrong = next(row for row in rows if row)
    with pytest.raises(IndexError, match=f"rows {wrong} to"):
        reader.take(np.array(rows))
    with pytest.raises(IndexError, match=f"rows {wrong} to"):
        reader.slices(np.array(rows), 3)


@pytest.mark.parametrize("length", [-1, 0, len(VALUES) + 1])
def test_a_run_that_can_not_be_is_an_error(reader: ArrayReader, length: int) -> None:
    with pytest.raises(IndexError, match=f"runs of {length} rows from an array of {len(VALUES)}"):
        reader.slices(np.array([0]), length)


def test_the_last_run_is_within(reader: ArrayReader) -> None:
    starts = np.array([len(VALUES) - 5])
    assert np.array_equal(reader.slices(starts, 5)[0], VALUES[-5:])
    with pytest.raises(IndexError):
        reader.slices(starts + 1, 5)


def test_local_uncompressed_shards_are_mapped_in_place(plain: Source, cache: ShardCache) -> None:
    found = opened(plain, cache)
    assert isinstance(found, MappedArray)
    assert found.files is not None
    assert found.files.folder == plain.folder
    assert not cache.folder.exists()
    assert np.array_equal(found.array, VALUES)


def test_a_path_does_as_well(plain: Source) -> None:
    found = open_array(
        plain.folder,
        entry(plain),
        plain.records,
        fingerprint="f0",
        cache=None,
        stream_budget=0,
        notify=pytest.fail,
    )
    assert np.array_equal(found.take(np.arange(len(VALUES))), VALUES)


def test_local_compressed_shards_are_mapped_from_the_cache(
    packed: Source, cache: ShardCache
) -> None:
    found = opened(packed, cache)
    assert isinstance(found, MappedArray)
    assert found.files is not None
    assert found.files.folder == cache.folder / "f0"
    assert np.array_equal(found.array, VALUES)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_remote_shards_are_mapped_from_the_cache(
    tmp_path: Path, cache: ShardCache, store: Store, compression: Compression
) -> None:
    source = Source(tmp_path / "x.zarr", compression).upload("x.zarr")
    for _ in range(2):
        found = opened(source, cache)
        assert isinstance(found, MappedArray)
        assert np.array_equal(found.array, VALUES)
    shards = [path for path in store.requests.objects() if "/c/" in path]
    assert len(shards) == len(source.records)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_what_has_no_room_in_the_cache_is_streamed_and_said(
    tmp_path: Path, store: Store, compression: Compression
) -> None:
    source = Source(tmp_path / "x.zarr", compression).upload("x.zarr")
    told: list[str] = []
    small = ShardCache(tmp_path / "cache", 1000)
    found = opened(source, small, 1_000_000, told.append)
    assert isinstance(found, StreamedArray)
    (text,) = told
    assert text.startswith(
        "s3://bucket/x.zarr/a: streamed in 1,000,000 bytes of memory, because its"
    )
    assert "do not fit into the cache" in text
    store.requests.seen.clear()
    rows = np.random.default_rng(0).permutation(len(VALUES))
    assert np.array_equal(found.take(rows), VALUES[rows])
    assert store.requests.objects() == [f"/bucket/x.zarr/{r.path}" for r in source.records]


def test_without_a_cache_it_is_streamed_and_said(packed: Source) -> None:
    told: list[str] = []
    assert isinstance(opened(packed, None, BIG, told.append), StreamedArray)
    assert "because there is no cache" in told[0]


@pytest.mark.parametrize(
    "change",
    [{"dtype": "uint16"}, {"shape": (5, 7)}, {"shard_rows": 1}, {"compression": "none"}],
)
def test_an_array_that_is_not_as_the_schema_says_is_refused(
    packed: Source, change: dict[str, object]
) -> None:
    with pytest.raises(CorruptDataError, match=r"x\.zarr/a: stored as .* where the schema says"):
        opened(packed, None, **change)


def test_an_array_that_is_missing_is_refused(plain: Source) -> None:
    with pytest.raises(CorruptDataError, match=r"x\.zarr/b: the array is missing"):
        opened(plain, None, name="b")


def test_a_changed_local_shard_is_refused(tmp_path: Path) -> None:
    source = Source(tmp_path / "x.zarr", "none")
    path = source.folder / source.records[1].path
    path.write_bytes(b"\7" + path.read_bytes()[1:])
    with pytest.raises(CorruptDataError, match="a/c/1/0: the content changed"):
        opened(source)


SHARD = ROW_QUANTUM * VALUES[:1].nbytes


def budget_for(source: Source, shards: int) -> int:
    return shards * SHARD + max(record.bytes for record in source.records)


def test_the_shards_that_were_used_last_are_kept(packed: Source) -> None:
    array = streamed(packed, budget_for(packed, 2))
    first, second, third = (np.array([n * ROW_QUANTUM]) for n in range(3))
    for rows in (first, second, first, third, first, second):
        assert np.array_equal(array.take(rows), VALUES[rows])
    assert (array.counts.hits, array.counts.misses) == (2, 4)
    sizes = [record.bytes for record in packed.records]
    assert array.counts.bytes == sum(sizes) + sizes[1]


def test_a_call_fetches_each_shard_once_whatever_the_budget(packed: Source) -> None:
    array = streamed(packed, budget_for(packed, 1))
    rows = np.random.default_rng(0).permutation(len(VALUES))
    assert np.array_equal(array.take(rows), VALUES[rows])
    assert array.counts.misses == 3
    starts = np.arange(len(VALUES) - 3000, 0, -1000)
    runs = np.stack([VALUES[start : start + 3000] for start in starts])
    assert np.array_equal(array.slices(starts, 3000), runs)
    assert array.counts.misses == 6


def test_the_budget_holds(tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 4, (24 * ROW_QUANTUM, 100)).astype(np.uint8)
    source = Source(tmp_path / "x.zarr", "lz4", values)
    shard = ROW_QUANTUM * 100
    array = streamed(source, 4 * shard)
    rows = np.arange(0, len(values), 100)

    def memory() -> int:
        gc.collect()
        held = [o for o in gc.get_objects() if type(o) is StreamedArray]
        kept = [part for o in held for part, _ in o._kept.values()]
        free = [part for o in held for part in (*o._free, o._scratch)]
        return sum(part.nbytes for part in (*kept, *free))

    before = memory()
    for _ in range(2):
        assert np.array_equal(array.take(rows), values[rows])
    assert before < memory() <= 4 * shard
    assert array.counts.misses == 48


def test_a_budget_of_less_than_a_shard_is_refused(packed: Source) -> None:
    need = budget_for(packed, 1)
    assert isinstance(streamed(packed, need), StreamedArray)
    with pytest.raises(InputError, match=f"{need - 1:,} bytes .* takes {need:,}") as error:
        streamed(packed, need - 1)
    assert "allow more memory" in (error.value.remedy or "")


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_damaged_streamed_shard_is_an_error_and_the_rest_is_read(
    tmp_path: Path, compression: Compression
) -> None:
    source = Source(tmp_path / "x.zarr", compression)
    array = StreamedArray(
        source.location,
        "a",
        read_layout(source.metadata, "a"),
        source.records,
        budget_for(source, 2),
    )
    path = source.folder / source.records[1].path
    good = path.read_bytes()
    for damage, message in (
        (good[:-1], "bytes where there should be"),
        (b"\7" + good[1:], "the content changed"),
        (None, "the shard is missing"),
    ):
        path.unlink() if damage is None else path.write_bytes(damage)
        with pytest.raises(CorruptDataError, match=f"a/c/1/0: .*{message}"):
            array.take(np.array([5, ROW_QUANTUM]))
        assert np.array_equal(array.take(np.array([5])), VALUES[[5]])
    path.write_bytes(good)
    rows = np.arange(len(VALUES))
    assert np.array_equal(array.take(rows), VALUES)


def test_threads_share_a_streamed_array(packed: Source) -> None:
    array = streamed(packed, budget_for(packed, 1))
    wrong: list[int] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(10):
            rows = rng.integers(0, len(VALUES), 50)
            starts = rng.integers(0, len(VALUES) - 100, 10)
            runs = np.stack([VALUES[start : start + 100] for start in starts])
            good = np.array_equal(array.take(rows), VALUES[rows])
            if not (good and np.array_equal(array.slices(starts, 100), runs)):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def read_in_child(array: ArrayReader, pipe: Any) -> None:
    try:
        pipe.send(array.take(np.array([3, len(VALUES) - 1])))
    except RuntimeError as error:
        pipe.send(str(error))


def from_child(method: str, array: ArrayReader) -> Any:
    context = multiprocessing.get_context(method)
    mine, theirs = context.Pipe()
    child = context.Process(target=read_in_child, args=(array, theirs))  # type: ignore[attr-defined]
    child.start()
    assert mine.poll(30), "the child hangs"
    found = mine.recv()
    child.join(10)
    return found


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_read_what_the_parent_mapped(plain: Source, method: str) -> None:
    array = opened(plain)
    assert np.array_equal(from_child(method, array), VALUES[[3, -1]])


def test_a_streamed_array_works_in_a_spawned_child_and_not_in_a_forked_one(
    tmp_path: Path, store: Store
) -> None:
    source = Source(tmp_path / "x.zarr").upload("x.zarr")
    array = streamed(source)
    array.take(np.array([0]))
    assert np.array_equal(from_child("spawn", array), VALUES[[3, -1]])
    text = from_child("fork", array)
    assert f"s3://bucket/x.zarr/a: streamed by process {os.getpid()}, which forked" in text
    assert "'spawn'" in text


def test_a_pickled_mapped_array_is_mapped_again_and_keeps_its_place_in_the_cache(
    packed: Source, cache: ShardCache
) -> None:
    array = opened(packed, cache)
    frozen = pickle.dumps(array)
    assert len(frozen) < 2000 < VALUES.nbytes
    again = pickle.loads(frozen)
    assert np.array_equal(again.array, VALUES)
    assert not again.array.flags.writeable
    del array
    tight = ShardCache(cache.folder, SHARD * 3)
    told: list[str] = []
    assert isinstance(
        open_array(
            packed.location,
            entry(packed),
            packed.records,
            fingerprint="f1",
            cache=tight,
            stream_budget=BIG,
            notify=told.append,
        ),
        StreamedArray,
    )
    assert "are in use" in told[0]


READ_ALL = """
import pickle, sys
array = pickle.loads(bytes.fromhex(sys.argv[1]))
print(int(array.array.sum()), flush=True)
sys.stdin.readline()
share, ours = 0, False
for line in open("/proc/self/smaps"):
    if line[0] in "0123456789abcdef":
        ours = str(array.files.folder) in line
    elif ours and line.startswith("Pss:"):
        share += int(line.split()[1])
print(share, flush=True)
sys.stdin.readline()
"""


def test_two_processes_share_the_pages_of_the_cache(tmp_path: Path, cache: ShardCache) -> None:
    values = np.random.default_rng(0).integers(0, 4, (4 * ROW_QUANTUM, 2000)).astype(np.uint8)
    array = opened(Source(tmp_path / "x.zarr", "lz4", values), cache)
    command = [sys.executable, "-c", READ_ALL, pickle.dumps(array).hex()]
    children = [
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        for _ in range(2)
    ]
    shares = []
    for child in children:
        assert child.stdout is not None
        assert int(child.stdout.readline()) == int(values.sum(dtype=np.int64))
    for child in children:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdin.write("\n")
        child.stdin.flush()
        shares.append(int(child.stdout.readline()) * 1024)
    for child in children:
        child.communicate("\n")
    whole = values.nbytes
    assert shares == pytest.approx([whole / 2] * 2, rel=0.02)


TRUNCATE = """
import faulthandler, os, sys
import numpy as np
from pathlib import Path
from data_shards.store.manifest import read_manifest
from data_shards.store.location import Location
from data_shards.store.mapped import map_array

folder = Path(sys.argv[1])
assert not faulthandler.is_enabled()
array = map_array(folder, "a", read_manifest(Location.parse(str(folder))))
rows = np.arange(0, array.shape[0], 100)
array.take(rows)
os.truncate(folder / "a/c/1/0", 4096)
array.files._next = 0.0 if sys.argv[2] == "seen" else float("inf")  # a second later, or at once
array.take(rows)
"""


@pytest.mark.parametrize("when", ["seen", "at once"])
def test_a_shard_shortened_under_its_map_never_ends_in_silence(tmp_path: Path, when: str) -> None:
    values = np.zeros((2 * ROW_QUANTUM, 100), dtype=np.uint8)
    source = Source(tmp_path / "x.zarr", "none", values)
    write_manifest(source.folder, source.records)
    ended = subprocess.run(
        [sys.executable, "-c", TRUNCATE, str(source.folder), when],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path.cwd(),
        env={k: v for k, v in os.environ.items() if k != "PYTHONFAULTHANDLER"},
    )
    if when == "seen":
        assert ended.returncode == 1
        assert "CorruptDataError" in ended.stderr
        assert f"{source.folder}/a/c/1/0: 4,096 bytes where the manifest has" in ended.stderr
        assert "while it was in use" in ended.stderr
    else:
        assert ended.returncode == -signal.SIGBUS
        assert "Fatal Python error: Bus error" in ended.stderr
        assert f"in gathering from {source.folder}/a (a shard shortened" in ended.stderr


def test_sizes_are_looked_at_again_after_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Source(tmp_path / "x.zarr", "none")
    array = opened(source)
    assert isinstance(array, MappedArray)
    assert array.files is not None
    (source.folder / source.records[2].path).unlink()
    rows = np.array([0])
    array.take(rows)  # a moment after the map: not looked at
    monkeypatch.setattr(array.files, "_next", 0.0)
    with pytest.raises(CorruptDataError, match="a/c/2/0: the shard is missing, while it was"):
        array.take(rows)


def test_an_unwatched_array_is_gathered_too(plain: Source) -> None:
    values: npt.NDArray[np.int16] = VALUES
    assert np.array_equal(MappedArray(values).take(np.array([1, 0])), values[[1, 0]])
    assert pickle.loads(pickle.dumps(MappedArray(values))).files is None
