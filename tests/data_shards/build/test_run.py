"""Building: exact, atomic, resumable after kill -9, refused where it must be."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pysam
import pytest
import zarr

from data_shards.build.description import read_description
from data_shards.build.run import build
from data_shards.build.windows_plan import WindowsPlan, plan_windows
from data_shards.dataset import ShardedDataset
from data_shards.errors import CorruptDataError, InputError
from data_shards.sequence import decode

SMALL = 4096  # rows and bases a shard: many shards from little data


def make_plan(folder: Path, rows_per_shard: int = 65536) -> WindowsPlan:
    spec = folder / "danq.toml"
    return plan_windows(
        read_description(spec),
        folder,
        recipe="danq",
        spec_path=spec,
        rows_per_shard=rows_per_shard,
        bases_per_shard=32 * SMALL,
    )


@pytest.fixture
def raw(simulated: Path, tmp_path: Path) -> Path:
    """A copy of the simulated files that a test may spoil."""
    return Path(shutil.copytree(simulated, tmp_path / "raw"))


@pytest.fixture(scope="module")
def built(simulated: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("build") / "x.zarr"
    build(make_plan(simulated, SMALL), out, command="test")
    return out


def test_windows_are_what_pysam_reads(built: Path, simulated: Path, tmp_path: Path) -> None:
    data = ShardedDataset(built)
    rows = np.random.default_rng(0).integers(0, data.schema.samples, 300)
    codes = data.gather("sequence", rows)
    fasta = shutil.copy(simulated / "genome.fa", tmp_path)
    with pysam.FastaFile(fasta) as reference:
        for row, sequence in zip(rows, codes, strict=True):
            contig = data.schema.contigs[data.loci.contig[row]].name
            start = int(data.loci.start[row])
            assert decode(sequence) == reference.fetch(contig, start, start + 300)


def test_labels_are_what_the_planted_truth_says(built: Path, simulated: Path) -> None:
    data = ShardedDataset(built)
    planted: dict[tuple[str, int], dict[str, int]] = {}
    for line in (simulated / "planted.bed").read_text().splitlines():
        contig, start, _, motif = line.split("\t")
        planted.setdefault((contig, int(start) // 300), {})[motif] = int(start)
    labels = data.labels(np.arange(data.schema.samples))
    for row in range(data.schema.samples):
        contig = data.schema.contigs[data.loci.contig[row]].name
        found = planted.get((contig, int(data.loci.start[row]) // 300), {})
        a, b = found.get("A"), found.get("B")
        first = a is not None and b is not None and a < b
        near = first and b - a - 10 <= 80  # type: ignore[operator]
        assert labels[row].tolist() == [a is not None, b is not None, first, near]


def test_any_zarr_library_can_open_it(built: Path) -> None:
    group = zarr.open_group(str(built), mode="r")
    data = ShardedDataset(built)
    assert np.array_equal(group["reference"][:], data.reference)
    assert np.array_equal(group["start"][:], data.loci.start)
    assert np.array_equal(group["labels"][:], data.gather("labels", np.arange(data.schema.samples)))


def test_the_same_input_gives_the_same_fingerprint_wherever_it_is_built(
    built: Path, raw: Path, tmp_path: Path
) -> None:
    again = build(make_plan(raw, SMALL), tmp_path / "again.zarr", command="another")
    assert again.fingerprint == ShardedDataset(built).attributes.fingerprint


def test_another_label_gives_another_fingerprint(built: Path, raw: Path, tmp_path: Path) -> None:
    with (raw / "a_before_b.bed").open("a") as stream:
        stream.write("chr1\t50\t250\nchr1\t350\t550\nchr1\t650\t850\nchr1\t950\t1150\n")
    again = build(make_plan(raw, SMALL), tmp_path / "again.zarr", command="test")
    assert again.fingerprint != ShardedDataset(built).attributes.fingerprint


def test_both_strands_are_reverse_complements(raw: Path, tmp_path: Path, ray_cluster: None) -> None:
    spec = raw / "danq.toml"
    spec.write_text(spec.read_text().replace("stride = 300", 'stride = 300\nstrands = "both"'))
    build(make_plan(raw), tmp_path / "x.zarr", command="test")
    data = ShardedDataset(tmp_path / "x.zarr")
    assert data.schema.samples == 2 * 9600
    rows = np.arange(0, 40)
    codes, labels = data.gather("sequence", rows), data.labels(rows)
    assert np.array_equal(codes[1::2], (3 - codes[::2])[:, ::-1])
    assert np.array_equal(labels[::2], labels[1::2])


def test_compressed_shards_hold_the_same_in_fewer_bytes(
    built: Path, simulated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLISOME_CACHE", str(tmp_path / "cache"))
    build(make_plan(simulated, SMALL), tmp_path / "x.zarr", command="test", compression="lz4")
    plain, packed = ShardedDataset(built), ShardedDataset(tmp_path / "x.zarr")
    rows = np.random.default_rng(0).integers(0, plain.schema.samples, 300)
    for field in ("sequence", "labels"):
        assert np.array_equal(packed.gather(field, rows), plain.gather(field, rows))
    sizes = [sum(shard.bytes for shard in data.shards) for data in (packed, plain)]
    assert sizes[0] < sizes[1] / 2
    assert packed.attributes.fingerprint != plain.attributes.fingerprint
    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="r")
    assert np.array_equal(group["reference"][:], plain.reference)


def test_an_output_that_exists_is_refused_and_left_alone(simulated: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.zarr"
    out.mkdir()
    (out / "mine").write_text("x")
    with pytest.raises(InputError, match="the output path exists"):
        build(make_plan(simulated), out, command="test")
    assert [p.name for p in tmp_path.rglob("*")] == ["x.zarr", "mine"]


def test_an_unfinished_build_of_other_input_is_refused(simulated: Path, tmp_path: Path) -> None:
    partial = tmp_path / "x.zarr.partial"
    partial.mkdir()
    (partial / ".identity").write_text("another")
    with pytest.raises(InputError, match="an unfinished build of other input is in the way"):
        build(make_plan(simulated), tmp_path / "x.zarr", command="test")


def test_leftovers_of_a_build_killed_at_its_start_are_no_hindrance(
    built: Path, simulated: Path, tmp_path: Path, ray_cluster: None
) -> None:
    partial = tmp_path / "x.zarr.partial"
    (partial / "labels").mkdir(parents=True)
    (partial / "labels" / "zarr.json").write_text("{}")
    done = build(make_plan(simulated, SMALL), tmp_path / "x.zarr", command="test")
    assert done.fingerprint == ShardedDataset(built).attributes.fingerprint


BUILDER = """
import sys, time
from pathlib import Path
from data_shards.build.run import build
from tests.data_shards.build.test_run import make_plan, SMALL
from jobs.cluster import cluster
raw, out = map(Path, sys.argv[1:])
def progress(what, done, total):
    print(what, done, flush=True)
    if what == "building" and 0 < done < total:
        time.sleep(0.3)
with cluster():
    build(make_plan(raw, SMALL), out, command="test", progress=progress)
"""


def start_builder(raw: Path, out: Path) -> subprocess.Popen[str]:
    root = Path(__file__).resolve().parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(raw), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_build_killed_by_kill_9_continues_and_a_second_builder_is_refused(
    built: Path, simulated: Path, tmp_path: Path, ray_cluster: None
) -> None:
    out = tmp_path / "x.zarr"
    builder = start_builder(simulated, out)
    assert builder.stdout is not None
    for line in builder.stdout:
        if line.split() == ["building", "3"]:
            break
    with pytest.raises(InputError, match="another build of this data set is running"):
        build(make_plan(simulated, SMALL), out, command="test")
    os.killpg(builder.pid, signal.SIGKILL)  # the driver with its whole Ray
    builder.wait()
    assert not out.exists()
    with pytest.raises(InputError, match="not finished"):
        ShardedDataset(out)
    finished: list[int] = []
    partial = out.with_name("x.zarr.partial")
    kept = {path: path.stat().st_mtime_ns for path in (partial / ".done").glob("*.json")}
    assert len(kept) >= 3
    done = build(
        make_plan(simulated, SMALL),
        out,
        command="test",
        progress=lambda what, done, _: finished.append(done) if what == "building" else None,
    )
    assert finished[0] >= 3, "shards that were done are not done again"
    assert done.fingerprint == ShardedDataset(built).attributes.fingerprint
    assert not partial.exists()
    leftovers = {p.name for p in out.rglob("*") if p.name.startswith(".") or "partial" in p.name}
    assert not leftovers


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda out: (out / "labels" / "c" / "0" / "0").unlink(), "the shard is missing"),
        (lambda out: os.truncate(out / "start" / "c" / "1", 100), "bytes where the manifest has"),
        (lambda out: (out / "manifest.parquet").unlink(), "manifest.parquet: can't be read"),
    ],
)
def test_a_spoilt_data_set_is_refused_on_opening(
    built: Path, tmp_path: Path, spoil: object, problem: str
) -> None:
    out = Path(shutil.copytree(built, tmp_path / "x.zarr"))
    spoil(out)  # type: ignore[operator]
    with pytest.raises(CorruptDataError, match=problem):
        ShardedDataset(out)


def test_a_changed_byte_is_refused_on_first_use_of_its_array(built: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(built, tmp_path / "x.zarr"))
    path = out / "reference" / "c" / "2"
    content = bytearray(path.read_bytes())
    content[77] ^= 1
    path.write_bytes(bytes(content))
    data = ShardedDataset(out)
    data.labels(np.arange(3))
    with pytest.raises(CorruptDataError, match="the content changed"):
        data.gather("sequence", np.arange(3))


def test_a_manifest_of_another_build_is_refused(
    built: Path, danq_data: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(built, tmp_path / "x.zarr"))
    shutil.copy(danq_data / "manifest.parquet", out)
    with pytest.raises(CorruptDataError, match="do not belong together"):
        ShardedDataset(out)


def test_no_data_set_and_no_zarr_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such data set"):
        ShardedDataset(tmp_path / "x.zarr")
    with pytest.raises(InputError, match="not a Zarr group"):
        ShardedDataset(tmp_path)
    zarr.open_group(str(tmp_path / "y.zarr"), mode="w")
    with pytest.raises(CorruptDataError, match="has no 'replisome' attributes"):
        ShardedDataset(tmp_path / "y.zarr")
