"""A build keeps to its memory, and a full disk is told and leaves nothing finished."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_shards.build.run import build
from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from tests.data_shards.build.test_run import SMALL, make_plan

# What a worker may have in memory beyond what it starts with, whatever the size of the source:
# a few blocks of a source being read, the pages of a staged file being written, a shard or two.
BUDGET = 160 << 20

WORKER = """
import resource, sys
from pathlib import Path
from data_shards.build.description import read_description
from data_shards.build.rows_plan import plan_rows
from data_shards.build.rows_spec import RowsSpec
from data_shards.build.windows_plan import plan_windows
from data_shards.progress import silent
import pyarrow.csv, pyarrow.compute  # they are no growth
raw = Path(sys.argv[1])
spec = read_description(raw / "data.toml")
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
start = peak()
make = plan_rows if isinstance(spec, RowsSpec) else plan_windows
plan = make(spec, raw, recipe="", spec_path=raw / "data.toml")
staging = raw / "staging"
staging.mkdir()
schema = plan.stage(staging, silent)
worker, jobs = plan.worker(), plan.jobs(schema)
del plan
size = 0
for job in jobs:
    size += sum(rows.nbytes for rows in worker.shard(staging, schema, job).values())
print(peak() - start, size)
"""


def growth(raw: Path) -> tuple[int, int]:
    """Return the bytes that planning, staging and all shards took, and those that they made."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(raw)], capture_output=True, text=True, check=True
    )
    grown, size = done.stdout.split()
    return int(grown), int(size)


def write_matrix(folder: Path, genes: int) -> None:
    """Write a matrix of genes x 2,000 samples as text."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    line = "\t".join(f"{value:.3f}" for value in rng.normal(size=2000)) + "\n"
    with (folder / "x.tsv").open("w") as stream:
        stream.write("gene\t" + "\t".join(f"s{i}" for i in range(2000)) + "\n")
        for gene in range(genes):
            stream.write(f"g{gene}\t{line}")
    (folder / "data.toml").write_text(
        'kind = "rows"\n[[matrices]]\nname = "x"\nfile = "x.tsv"\nsamples = "columns"\n'
        'normalise = ["zscore"]\n[splits]\nby = "random"\n'
    )


def write_genome(folder: Path, bases: int) -> None:
    """Write a genome of three contigs, and a peak every 10 kb."""
    folder.mkdir()
    line = "".join(np.random.default_rng(0).choice(list("ACGT"), 100)) + "\n"
    names = ("chr1", "chr2", "chr3")
    with (folder / "g.fa").open("w") as fasta, (folder / "x.bed").open("w") as bed:
        for name in names:
            fasta.write(f">{name}\n")
            for _ in range(bases // 300 // 1000):
                fasta.write(line * 1000)
            length = bases // 300 // 1000 * 100_000
            for start in range(0, length - 1000, 10_000):
                bed.write(f"{name}\t{start}\t{start + 500}\n")
    (folder / "data.toml").write_text(
        '[reference]\nfasta = "g.fa"\n[splits]\nvalid = ["chr2"]\ntest = ["chr3"]\n'
        '[[tasks]]\nname = "x"\nfile = "x.bed"\n'
    )


@pytest.mark.slow
@pytest.mark.parametrize(("write", "unit"), [(write_matrix, 2_000), (write_genome, 30_000_000)])
def test_a_source_ten_times_larger_takes_no_more_memory_than_the_budget(
    tmp_path: Path, write: object, unit: int
) -> None:
    write(tmp_path / "small", unit)  # type: ignore[operator]
    write(tmp_path / "large", 10 * unit)  # type: ignore[operator]
    small, made_small = growth(tmp_path / "small")
    large, made_large = growth(tmp_path / "large")
    assert made_large > 9 * made_small
    assert small < BUDGET
    assert large < BUDGET, f"{large >> 20} MiB for {made_large >> 20} MiB of data"


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 3 MiB; only root can make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_too_small_is_refused_before_the_work(simulated: Path, little_disk: Path) -> None:
    with pytest.raises(InputError, match=r"needs [\d,]+ more bytes, the disk has"):
        build(make_plan(simulated, SMALL), little_disk / "x.zarr", command="test")
    assert not (little_disk / "x.zarr").exists()


def test_a_disk_that_fills_up_is_told_and_the_build_goes_on_when_there_is_room(
    simulated: Path, little_disk: Path, ray_cluster: None
) -> None:
    out, ballast = little_disk / "x.zarr", little_disk / "ballast"

    def fill(what: str, done: int, total: int) -> None:
        if what == "building" and done == 1 and not ballast.exists():
            room = os.statvfs(little_disk).f_bavail * 4096
            with contextlib.suppress(OSError):  # the tasks write at the same time: full is full
                ballast.write_bytes(bytes(max(0, room - 8192)))

    subprocess.run(["mount", "-o", "remount,size=9m", str(little_disk)], check=True)
    with pytest.raises(InputError, match="the disk is full"):
        build(make_plan(simulated, SMALL), out, command="test", progress=fill)
    assert not out.exists()
    with pytest.raises(InputError, match="not finished"):
        ShardedDataset(out)
    ballast.unlink()
    seen: list[int] = []
    build(
        make_plan(simulated, SMALL),
        out,
        command="test",
        progress=lambda what, done, _: seen.append(done) if what == "building" else None,
    )
    assert seen[0] >= 1, "what was done before is not done again"
    assert ShardedDataset(out).schema.samples == 9600
