"""`data check` finds what is wrong, one fault at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import zarr

from data_shards.check import check
from data_shards.dataset import ShardedDataset
from data_shards.store.manifest import checksums, write_manifest
from data_shards.store.schema import ATTRIBUTE, fingerprint


def test_a_good_data_set_has_no_fault(danq_data: Path) -> None:
    findings = check(danq_data)
    assert [finding.check for finding in findings] == [
        "files",
        "splits",
        "loci",
        "sequence",
        "labels",
        "leakage",
        "leakage",
        "leakage",
        "leakage",
    ]
    assert all(finding.ok for finding in findings)


def test_changed_bytes_are_a_fault_of_the_files(danq_data: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(danq_data, tmp_path / "x.zarr"))
    path = out / "reference" / "c" / "0"
    content = bytearray(path.read_bytes())
    content[9] ^= 1
    path.write_bytes(bytes(content))
    [finding] = check(out)
    assert not finding.ok
    assert "the content changed" in finding.detail


def tamper(out: Path, array: str, change: object) -> None:
    """Change an array and make all checksums agree again, as a faulty writer would."""
    data = ShardedDataset(out)
    group = zarr.open_group(str(out), mode="r+")
    values = group[array][:]
    change(values)  # type: ignore[operator]
    group[array].with_config({"write_empty_chunks": True})[:] = values
    shards = []
    for shard in data.shards:
        size, crc, sha = checksums(out / shard.path)
        shards.append(
            type(shard)(
                **{
                    **shard.content(),
                    "sums": shard.sums,
                    "bytes": size,
                    "crc32c": crc,
                    "sha256": sha,
                }
            )
        )
    write_manifest(out, shards)
    attributes = dict(group.attrs[ATTRIBUTE])  # type: ignore[arg-type]
    attributes["fingerprint"] = fingerprint(data.schema, shards)
    group.attrs[ATTRIBUTE] = attributes


def set_row(row: int, value: int) -> object:
    def change(values: np.ndarray) -> None:
        values[row] = value

    return change


@pytest.mark.parametrize(
    ("array", "change", "check_name", "problem"),
    [
        ("reference", set_row(5, 9), "sequence", "a code above 4"),
        ("start", set_row(3, 10**9), "loci", "row 3: the window is not on its contig"),
        ("contig", set_row(3, 77), "loci", "row 3: unknown contig"),
        ("start", set_row(1, 0), "loci", "1 windows are there more than once"),
        ("split", set_row(2, 2), "splits", "train: rows marked as another split"),
        ("contig", set_row(2, 11), "splits", "train: rows on another split's contig"),
        ("labels", set_row(2, 7), "labels", "label sums differ"),
    ],
)
def test_each_fault_is_found(
    danq_data: Path, tmp_path: Path, array: str, change: object, check_name: str, problem: str
) -> None:
    out = Path(shutil.copytree(danq_data, tmp_path / "x.zarr"))
    tamper(out, array, change)
    faults = [finding for finding in check(out) if not finding.ok]
    assert any(f.check == check_name and problem in f.detail for f in faults), faults


def test_inputs_that_two_splits_have_are_told_and_a_fault_above_the_limit(
    danq_data: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(danq_data, tmp_path / "x.zarr"))
    data = ShardedDataset(danq_data)
    first = data.schema.split("test").start
    offsets = data.schema.reference.offsets

    def place(row: int) -> int:
        return int(offsets[data.loci.contig[row]] + data.loci.start[row])

    def copy_ten(values: np.ndarray) -> None:
        for row in range(9):  # as they are
            source = values[place(row) : place(row) + 300]
            values[place(first + row) : place(first + row) + 300] = source
        source = values[place(20) : place(20) + 300]  # and one turned to the other strand
        values[place(first + 20) : place(first + 20) + 300] = 3 - source[::-1]

    tamper(out, "reference", copy_ten)
    found = {f.detail.split(" in two")[0]: f for f in check(out) if f.check == "leakage"}
    assert found["equal inputs"].ok, "9 of 3,200 held-out samples are below the limit"
    assert "9 in train, 9 in test" in found["equal inputs"].detail
    assert "1 in train, 1 in test" in found["reverse complements"].detail
    strict = {f.detail.split(" in two")[0]: f for f in check(out, max_duplicates=0)}
    assert not strict["equal inputs"].ok
    assert not strict["reverse complements"].ok
    assert strict["overlapping loci"].ok
