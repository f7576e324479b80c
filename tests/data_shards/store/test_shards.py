"""Shards: written whole, mapped back exactly, never trusted unseen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.errors import CorruptDataError
from data_shards.store.location import Location
from data_shards.store.manifest import (
    ShardRecord,
    checksums,
    read_manifest,
    verify,
    write_manifest,
)
from data_shards.store.schema import Compression
from data_shards.store.shards import (
    PAGE_BYTES,
    ROW_QUANTUM,
    ArrayLayout,
    create_array,
    decode_shard,
    in_order,
    map_shards,
    plain_index,
    read_layout,
    write_shard,
)


def write_array(
    folder: Path,
    name: str,
    values: npt.NDArray[np.generic],
    compression: Compression = "none",
) -> list[ShardRecord]:
    """Write an array in shards of the smallest size; return the records."""
    row, dtype = values.shape[1:], values.dtype.name
    create_array(folder, name, len(values), row, dtype, ROW_QUANTUM, compression)
    records = []
    for number, start in enumerate(range(0, len(values), ROW_QUANTUM)):
        rows = values[start : start + ROW_QUANTUM]
        path = write_shard(folder, name, start, rows)
        size, crc, sha = checksums(folder / path)
        records.append(
            ShardRecord(name, number, str(path), start, start + len(rows), size, crc, sha, 0, ())
        )
    return records


def new_group(path: Path) -> Path:
    zarr.open_group(str(path), mode="w", zarr_format=3)
    return path


@given(
    rows=st.integers(1, 3 * ROW_QUANTUM + 17),
    width=st.sampled_from([(), (1,), (3,), (300,)]),
    dtype=st.sampled_from(["uint8", "int8", "int32", "int64", "float32"]),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15
)
def test_a_mapped_array_is_what_was_written_and_what_zarr_reads(
    tmp_path: Path, rows: int, width: tuple[int, ...], dtype: str
) -> None:
    values = np.random.default_rng(rows).integers(0, 100, (rows, *width)).astype(dtype)
    values[: rows // 2] = 0  # chunks of the fill value must lie in the file too
    folder = new_group(tmp_path / "x.zarr")
    records = write_array(folder, "a", values)
    mapped = map_shards(folder, "a", records)
    assert mapped.dtype == values.dtype
    assert np.array_equal(mapped, values)
    assert np.array_equal(zarr.open_group(str(folder), mode="r")["a"][:], values)
    with pytest.raises(ValueError, match="read-only"):
        mapped[0] = 1


def test_a_view_keeps_the_mapping_alive(tmp_path: Path) -> None:
    folder = new_group(tmp_path / "x.zarr")
    values = np.arange(3 * ROW_QUANTUM, dtype=np.int64)
    view = map_shards(folder, "a", write_array(folder, "a", values))[ROW_QUANTUM - 1 :: ROW_QUANTUM]
    import gc

    gc.collect()
    assert view.tolist() == [ROW_QUANTUM - 1, 2 * ROW_QUANTUM - 1, 3 * ROW_QUANTUM - 1]


def test_only_whole_shards_can_be_written(tmp_path: Path) -> None:
    folder = new_group(tmp_path / "x.zarr")
    create_array(folder, "a", 2 * ROW_QUANTUM, (), "uint8", ROW_QUANTUM)
    with pytest.raises(ValueError, match="does not begin a shard"):
        write_shard(folder, "a", 7, np.zeros(ROW_QUANTUM, np.uint8))
    with pytest.raises(ValueError, match="not the whole shard"):
        write_shard(folder, "a", 0, np.zeros(5, np.uint8))
    with pytest.raises(ValueError, match="multiple of"):
        create_array(folder, "b", 10, (), "uint8", 1000)


@pytest.fixture
def written(tmp_path: Path) -> tuple[Path, list[ShardRecord]]:
    folder = new_group(tmp_path / "x.zarr")
    return folder, write_array(folder, "a", np.arange(3 * ROW_QUANTUM, dtype=np.int32))


def test_a_missing_shard_is_found(written: tuple[Path, list[ShardRecord]]) -> None:
    folder, records = written
    (folder / records[1].path).unlink()
    assert "is missing" in (verify(folder, records[1], content=False) or "")


def test_a_truncated_shard_is_found(written: tuple[Path, list[ShardRecord]]) -> None:
    folder, records = written
    path = folder / records[1].path
    path.write_bytes(path.read_bytes()[:-100])
    assert "bytes where the manifest has" in (verify(folder, records[1], content=False) or "")


def test_a_flipped_bit_is_found(written: tuple[Path, list[ShardRecord]]) -> None:
    folder, records = written
    path = folder / records[1].path
    content = bytearray(path.read_bytes())
    content[1234] ^= 1
    path.write_bytes(bytes(content))
    assert verify(folder, records[1], content=False) is None
    assert "the content changed" in (verify(folder, records[1], content=True) or "")


def test_swapped_shards_are_found(written: tuple[Path, list[ShardRecord]]) -> None:
    folder, records = written
    first, second = (folder / record.path for record in records[:2])
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert verify(folder, records[0], content=True)
    assert verify(folder, records[1], content=True)


def test_a_damaged_index_is_found(written: tuple[Path, list[ShardRecord]]) -> None:
    folder, records = written
    path = folder / records[0].path
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptDataError, match="index is damaged"):
        map_shards(folder, "a", records)


def test_a_manifest_with_a_gap_is_refused(written: tuple[Path, list[ShardRecord]]) -> None:
    folder, records = written
    with pytest.raises(CorruptDataError, match="does not cover"):
        map_shards(folder, "a", [records[0], records[2]])
    with pytest.raises(CorruptDataError, match="does not cover"):
        map_shards(folder, "a", records[:2])


def test_compressed_shards_are_refused_by_the_map(tmp_path: Path) -> None:
    folder = new_group(tmp_path / "x.zarr")
    group = zarr.open_group(str(folder), mode="r+")
    group.create_array("a", shape=(8192,), chunks=(1024,), shards=(4096,), dtype="uint8")
    with pytest.raises(CorruptDataError, match="not stored as whole uncompressed shards"):
        map_shards(folder, "a", [])
    records = write_array(folder, "b", np.arange(9000, dtype=np.int32), "lz4")
    with pytest.raises(CorruptDataError, match="not stored as whole uncompressed shards"):
        map_shards(folder, "b", records)


def layout_of(folder: Path, name: str) -> ArrayLayout:
    return read_layout((folder / name / "zarr.json").read_bytes(), name)


@given(
    rows=st.integers(1, 2 * ROW_QUANTUM + 17),
    width=st.sampled_from([(), (3,), (300,)]),
    dtype=st.sampled_from(["uint8", "int8", "int32", "int64", "float16", "float32"]),
    compression=st.sampled_from(["none", "lz4"]),
)
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=15
)
def test_a_decoded_shard_is_what_was_written_and_what_zarr_reads(
    tmp_path: Path, rows: int, width: tuple[int, ...], dtype: str, compression: Compression
) -> None:
    values = np.random.default_rng(rows).integers(0, 100, (rows, *width)).astype(dtype)
    values[: rows // 2] = 0
    folder = new_group(tmp_path / "x.zarr")
    records = write_array(folder, "a", values, compression)
    layout = layout_of(folder, "a")
    assert (layout.shape, layout.dtype, layout.compression) == (values.shape, dtype, compression)
    decoded = [decode_shard((folder / r.path).read_bytes(), layout, r.shard) for r in records]
    assert all(part.dtype == values.dtype for part in decoded)
    assert np.array_equal(np.concatenate(decoded), values)
    assert np.array_equal(zarr.open_group(str(folder), mode="r")["a"][:], values)


def test_codes_take_less_than_a_third_of_the_room_compressed(tmp_path: Path) -> None:
    folder = new_group(tmp_path / "x.zarr")
    codes = np.random.default_rng(0).integers(0, 4, 1 << 20).astype(np.uint8)
    create_array(folder, "a", len(codes), (), "uint8", len(codes), "lz4")
    size = (folder / write_shard(folder, "a", 0, codes)).stat().st_size
    assert size < len(codes) / 3.8


@pytest.mark.parametrize("dtype", ["uint8", "float16", "int32", "int64"])
def test_compression_shuffles_elements_of_the_dtypes_size(tmp_path: Path, dtype: str) -> None:
    folder = new_group(tmp_path / "x.zarr")
    values = np.arange(ROW_QUANTUM).astype(dtype)
    (record,) = write_array(folder, "a", values, "lz4")
    raw = (folder / record.path).read_bytes()
    lz4, bitshuffle = 1 << 5, 1 << 2  # bits of a blosc 1 header's third byte; its fourth: typesize
    assert raw[2] & (lz4 | bitshuffle) == lz4 | bitshuffle
    assert raw[3] == np.dtype(dtype).itemsize


def test_memory_is_reused_from_shard_to_shard(tmp_path: Path) -> None:
    folder = new_group(tmp_path / "x.zarr")
    values = np.random.default_rng(0).integers(0, 9, 2 * ROW_QUANTUM + 5)
    records = write_array(folder, "a", values, "lz4")
    layout = layout_of(folder, "a")
    memory = np.empty(layout.data_bytes(0), dtype=np.uint8)
    for record in records:
        rows = decode_shard((folder / record.path).read_bytes(), layout, record.shard, memory)
        assert np.shares_memory(rows, memory)
        assert np.array_equal(rows, values[record.start : record.stop])


def test_blosc_runs_in_the_calling_thread_alone() -> None:
    from numcodecs import blosc

    assert blosc.use_threads is False  # zarr's choice, which decoding relies on


def replaced(raw: bytes, at: int, content: bytes) -> bytes:
    return raw[:at] + content + raw[at + len(content) :]


def with_index(raw: bytes, layout: ArrayLayout, entry: int, value: int) -> bytes:
    """Change one number (offset, bytes, offset, ...) of a shard's index; its checksum is right."""
    import google_crc32c

    index = np.frombuffer(raw[-layout.index_bytes : -4], dtype="<u8").copy()
    index[entry] = value
    crc: int = google_crc32c.value(index.tobytes())
    return raw[: -layout.index_bytes] + index.tobytes() + crc.to_bytes(4, "little")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw, _: b"", "index is damaged"),
        (lambda raw, _: raw[:10], "index is damaged"),
        (lambda raw, _: raw[:-1], "index is damaged"),
        (lambda raw, _: raw + b"x", "index is damaged"),
        (lambda raw, _: replaced(raw, len(raw) - 20, b"\7"), "index is damaged"),
        (lambda raw, layout: with_index(raw, layout, 0, 2**64 - 1), "chunk is missing"),
        (lambda raw, layout: with_index(raw, layout, 0, 2**63), "points outside"),
        (lambda raw, layout: with_index(raw, layout, 1, 2**64 - 2), "points outside"),
        (lambda raw, layout: with_index(raw, layout, 1, len(raw)), "points outside"),
        (lambda raw, layout: with_index(raw, layout, 1, 3), "points outside"),
        (lambda raw, layout: with_index(raw, layout, 1, 100), "not the size"),
        (lambda raw, _: replaced(raw, 4, b"\1"), "not the size"),  # bytes of the decoded chunk
        (lambda raw, _: replaced(raw, 0, b"\xff"), "chunk 0 is damaged"),  # version of the format
        (lambda raw, _: raw[20:], "points outside|not the size"),
    ],
)
def test_a_damaged_compressed_shard_is_refused(
    tmp_path: Path, damage: Callable[[bytes, ArrayLayout], bytes], message: str
) -> None:
    folder = new_group(tmp_path / "x.zarr")
    values = np.random.default_rng(0).integers(0, 4, (ROW_QUANTUM, 700)).astype(np.uint8)
    (record,) = write_array(folder, "a", values, "lz4")
    layout = layout_of(folder, "a")
    raw = (folder / record.path).read_bytes()
    assert layout.chunks(0) > 1
    assert np.array_equal(decode_shard(raw, layout, 0), values)
    with pytest.raises(CorruptDataError, match=f"a/c/0: .*({message})"):
        decode_shard(damage(raw, layout), layout, 0, place="a/c/0")


def test_an_uncompressed_shard_with_too_few_bytes_is_refused(tmp_path: Path) -> None:
    folder = new_group(tmp_path / "x.zarr")
    (record,) = write_array(folder, "a", np.arange(ROW_QUANTUM))
    raw = (folder / record.path).read_bytes()
    layout = layout_of(folder, "a")
    cut = raw[8:]  # the index is whole, but what it promises is not there
    with pytest.raises(CorruptDataError, match="do not lie end to end"):
        decode_shard(cut, layout, 0)
    (folder / record.path).write_bytes(cut)
    with pytest.raises(CorruptDataError, match="do not lie end to end"):
        map_shards(folder, "a", [record])
    (folder / record.path).write_bytes(raw[:7])
    with pytest.raises(CorruptDataError, match="index is damaged"):
        map_shards(folder, "a", [record])


def test_the_plain_index_is_the_one_that_zarr_writes(tmp_path: Path) -> None:
    folder = new_group(tmp_path / "x.zarr")
    records = write_array(folder, "a", np.ones((ROW_QUANTUM + 100, 700), dtype=np.uint8))
    layout = layout_of(folder, "a")
    for record in records:
        raw = (folder / record.path).read_bytes()
        assert raw[layout.data_bytes(record.shard) :] == plain_index(layout, record.shard)


def test_any_shard_of_whole_pages_can_be_made(tmp_path: Path) -> None:
    folder = new_group(tmp_path / "x.zarr")
    values = np.random.default_rng(0).integers(0, 9, (9, 2048)).astype(np.int16)
    rows = PAGE_BYTES // values[0].nbytes * 4
    create_array(folder, "a", len(values), values.shape[1:], "int16", rows)
    records = []
    for number, start in enumerate(range(0, len(values), rows)):
        path = write_shard(folder, "a", start, values[start : start + rows])
        stop = min(start + rows, len(values))
        sums = checksums(folder / path)
        records.append(ShardRecord("a", number, str(path), start, stop, *sums, 0, ()))
    assert np.array_equal(map_shards(folder, "a", records), values)


@pytest.mark.parametrize(
    "change",
    [
        lambda j: j["codecs"][0]["configuration"]["codecs"][0]["configuration"].update(
            endian="big"
        ),
        lambda j: j["codecs"][0]["configuration"].update(index_location="start"),
        lambda j: j["codecs"][0]["configuration"].update(index_codecs=[{"name": "bytes"}]),
        lambda j: j["codecs"][0]["configuration"]["chunk_shape"].__setitem__(1, 1),
        lambda j: j["codecs"][0]["configuration"]["codecs"].append(
            {"name": "gzip", "configuration": {"level": 1}}
        ),
        lambda j: j.update(codecs=[{"name": "bytes", "configuration": {"endian": "little"}}]),
        lambda j: j.update(data_type="int33"),
        lambda j: j.pop("shape"),
        lambda j: j.update(zarr_format=2),
        lambda j: j.clear(),
    ],
)
def test_another_layout_is_refused(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    folder = new_group(tmp_path / "x.zarr")
    write_array(folder, "a", np.zeros((10, 2), dtype=np.int32))
    content = json.loads((folder / "a" / "zarr.json").read_text())
    change(content)
    with pytest.raises(CorruptDataError, match=r"somewhere: (not stored|the metadata)"):
        read_layout(json.dumps(content).encode(), "somewhere")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
def test_damaged_metadata_are_refused(content: bytes) -> None:
    with pytest.raises(CorruptDataError, match="somewhere: the metadata can't be read"):
        read_layout(content, "somewhere")


def test_records_come_in_the_order_of_rows(written: tuple[Path, list[ShardRecord]]) -> None:
    folder, records = written
    layout = layout_of(folder, "a")
    assert in_order(layout, records[::-1], "a") == records
    with pytest.raises(CorruptDataError, match="a: the manifest does not cover"):
        in_order(layout, [*records, records[0]], "a")


def test_a_manifest_reads_back_as_written(tmp_path: Path) -> None:
    records = [
        ShardRecord("b", 0, "b/c/0", 0, 10, 99, 2**32 - 1, "ff", 0, (3, 4)),
        ShardRecord("a", 0, "a/c/0", 0, 10, 99, 7, "ee", 1, ()),
    ]
    write_manifest(tmp_path, records)
    assert read_manifest(Location.parse(str(tmp_path))) == sorted(records, key=lambda r: r.array)


def test_a_missing_or_damaged_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptDataError, match="manifest"):
        read_manifest(Location.parse(str(tmp_path)))
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(CorruptDataError, match="manifest"):
        read_manifest(Location.parse(str(tmp_path)))
