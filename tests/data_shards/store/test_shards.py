"""Shards: written whole, mapped back exactly, never trusted unseen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.errors import CorruptDataError
from data_shards.store.manifest import (
    ShardRecord,
    checksums,
    read_manifest,
    verify,
    write_manifest,
)
from data_shards.store.shards import ROW_QUANTUM, create_array, map_shards, write_shard


def write_array(folder: Path, name: str, values: npt.NDArray[np.generic]) -> list[ShardRecord]:
    """Write an array in shards of the smallest size; return the records."""
    create_array(folder, name, len(values), values.shape[1:], values.dtype.name, ROW_QUANTUM)
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


def test_a_manifest_reads_back_as_written(tmp_path: Path) -> None:
    records = [
        ShardRecord("b", 0, "b/c/0", 0, 10, 99, 2**32 - 1, "ff", 0, (3, 4)),
        ShardRecord("a", 0, "a/c/0", 0, 10, 99, 7, "ee", 1, ()),
    ]
    write_manifest(tmp_path, records)
    assert read_manifest(tmp_path) == sorted(records, key=lambda r: r.array)


def test_a_missing_or_damaged_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptDataError, match="manifest"):
        read_manifest(tmp_path)
    (tmp_path / "manifest.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(CorruptDataError, match="manifest"):
        read_manifest(tmp_path)
