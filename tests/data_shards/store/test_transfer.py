"""A data set goes to an object store and back unchanged, resumes, and never overwrites."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_shards.check import check
from data_shards.dataset import ShardedDataset
from data_shards.errors import CorruptDataError, InputError
from data_shards.store.location import Location
from data_shards.store.transfer import fetch, publish


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Location]:
    """A place in an empty bucket of a real S3 server on this machine."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("REPLISOME_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("REPLISOME_CACHE_BYTES", str(1 << 30))
    bucket = f"genomes-{secrets.token_hex(4)}"  # the servers of one process share their buckets
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket=bucket)
    yield Location.parse(f"s3://{bucket}/danq/x.zarr")
    server.stop()


def test_what_was_published_reads_as_the_local_one(place: Location, danq_data: Path) -> None:
    publish(danq_data, place)
    local, remote = ShardedDataset(danq_data), ShardedDataset(str(place))
    assert remote.attributes.fingerprint == local.attributes.fingerprint
    rows = np.random.default_rng(0).integers(0, local.schema.samples, 200)
    for field in ("sequence", "labels"):
        assert np.array_equal(remote.gather(field, rows), local.gather(field, rows))
    assert not [finding for finding in check(str(place)) if not finding.ok]


def test_a_copy_back_is_the_same_byte_for_byte(
    place: Location, danq_data: Path, tmp_path: Path
) -> None:
    publish(danq_data, place)
    fetch(place, tmp_path / "y.zarr")
    for path in danq_data.rglob("*"):
        if path.is_file():
            assert (tmp_path / "y.zarr" / path.relative_to(danq_data)).read_bytes() == (
                path.read_bytes()
            )
    with pytest.raises(InputError, match="the output path exists"):
        fetch(place, tmp_path / "y.zarr")


def test_a_killed_copy_continues_and_is_no_data_set_before_its_end(
    place: Location, danq_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(what: str, done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(danq_data, place, die)
    with pytest.raises(InputError, match="no finished data set here"):
        ShardedDataset(place)
    sent: list[str] = []
    write = Location.write

    def counted(self: Location, relative: str, content: bytes) -> None:
        sent.append(relative)
        write(self, relative, content)

    monkeypatch.setattr(Location, "write", counted)
    publish(danq_data, place)
    shards = {record.path for record in ShardedDataset(danq_data).shards}
    assert len(shards & set(sent)) <= len(shards) - 3, "what had arrived is not sent again"
    assert ShardedDataset(place).schema.samples == 9600


def test_a_prefix_that_is_taken_or_being_written_to_is_refused(
    place: Location, danq_data: Path
) -> None:
    place.write(".lock", json.dumps({"fingerprint": "another"}).encode())
    with pytest.raises(InputError, match="another data set is being written here"):
        publish(danq_data, place)
    place.delete(".lock")
    publish(danq_data, place)
    with pytest.raises(InputError, match="the output exists"):
        publish(danq_data, place)


def test_a_changed_shard_is_neither_published_nor_fetched(
    place: Location, danq_data: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(danq_data, tmp_path / "x.zarr"))
    shard = ShardedDataset(out).shards[0]
    content = bytearray((out / shard.path).read_bytes())
    content[3] ^= 1
    (out / shard.path).write_bytes(bytes(content))
    with pytest.raises(CorruptDataError, match="the content changed"):
        publish(out, place)
    place.delete(".lock")
    publish(danq_data, place)
    place.write(shard.path, bytes(content))
    with pytest.raises(CorruptDataError, match=shard.path):
        fetch(place, tmp_path / "y.zarr")
    assert not (tmp_path / "y.zarr").exists()


def test_a_store_that_cant_be_reached_is_told_as_such(
    place: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="no finished data set here"):
        ShardedDataset(place)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="no answer from the object store"):
        ShardedDataset(str(place))
