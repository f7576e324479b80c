"""Peaks against background: windows on peaks, and as many elsewhere of the same GC content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_shards.build.description import read_description
from data_shards.build.run import build
from data_shards.build.windows_plan import WindowsPlan, plan_windows
from data_shards.build.windows_spec import WindowsSpec
from data_shards.check import check
from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError

SPEC = """
[reference]
fasta = "genome.fa"
[windows]
length = 100
center = 100
[splits]
valid = ["chr2"]
test = ["chr3"]
[loci]
file = "peaks.narrowPeak"
anchor = "summit"
label = "bound"
negatives = 2
exclude = ["blacklist.bed"]
[[tasks]]
name = "element"
file = "elements.bed"
min_count = 1
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "raw"
    folder.mkdir()
    peaks = []
    with (folder / "genome.fa").open("w") as stream:
        for name in ("chr1", "chr2", "chr3"):
            stream.write(f">{name}\n{''.join(rng.choice(list('ACGT'), 60_000))}\n")
            for start in range(500, 59_000, 2_000):
                summit = int(rng.integers(0, 200))
                peaks.append(f"{name}\t{start}\t{start + 200}\tp\t0\t.\t1\t1\t1\t{summit}\n")
    peaks.append("chr1\t0\t20\tp\t0\t.\t1\t1\t1\t5\n")  # no room for a window
    peaks.append(peaks[0])  # there already
    (folder / "peaks.narrowPeak").write_text("".join(peaks))
    (folder / "blacklist.bed").write_text("chr1\t10000\t30000\n")
    (folder / "elements.bed").write_text("chr1\t500\t700\nchr2\t500\t700\nchr3\t500\t700\n")
    (folder / "peaks.toml").write_text(SPEC)
    return folder


def plan(folder: Path) -> WindowsPlan:
    spec = read_description(folder / "peaks.toml")
    assert isinstance(spec, WindowsSpec)
    return plan_windows(spec, folder, recipe="", spec_path=folder / "peaks.toml")


def test_each_peak_has_a_window_and_each_window_two_like_it_in_its_own_split(
    raw: Path, tmp_path: Path, ray_cluster: None
) -> None:
    made = plan(raw)
    assert made.dropped == 2
    build(made, tmp_path / "x.zarr", command="test")
    data = ShardedDataset(tmp_path / "x.zarr")
    assert data.schema.task_names == ("bound", "element")
    peaks = [line.split("\t") for line in (raw / "peaks.narrowPeak").read_text().splitlines()]
    at = {(p[0], int(p[1]) + int(p[9]) - 50) for p in peaks}
    for split, entry in data.schema.splits.items():
        rows = data.split_rows(split)
        bound = data.bits("labels", rows)[:, 0] == 1
        names = [data.schema.contigs[i].name for i in data.loci.contig[rows]]
        places = list(zip(names, data.loci.start[rows].tolist(), strict=True))
        assert {place for place, on in zip(places, bound, strict=True) if on} <= at
        assert (bound.sum(), entry.samples) == (30, 90)
        codes = data.gather("sequence", rows)
        content = ((codes == 1) | (codes == 2)).sum(axis=1) // 2  # bins of 0.02
        assert (
            np.bincount(content[~bound], minlength=51).tolist()
            == (2 * np.bincount(content[bound], minlength=51)).tolist()
        )
        for (name, start), on in zip(places, bound, strict=True):
            if not on:
                touched = [p for p in peaks if p[0] == name and int(p[1]) < start + 100]
                assert all(int(p[2]) <= start for p in touched)
                assert not (name == "chr1" and start < 30_000 and start + 100 > 10_000)
    faults = [finding.detail for finding in check(tmp_path / "x.zarr") if not finding.ok]
    assert not faults


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('name = "element"', 'name = "bound"', "loci.label 'bound' is also the name of a task"),
        ("[[tasks]]", '[[tracks]]\nname = "t"\nfile = "t.bw"\n[[tasks]]', "tracks need tiles"),
        ('file = "peaks.narrowPeak"', 'file = "elements.bed"', "not every interval has one"),
    ],
)
def test_a_description_that_cant_be_meant_is_refused(
    raw: Path, old: str, new: str, problem: str
) -> None:
    path = raw / "peaks.toml"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(InputError, match=problem):
        plan(raw)


def test_too_few_windows_of_a_gc_content_are_told_and_leave_nothing(
    raw: Path, tmp_path: Path
) -> None:
    path = raw / "peaks.toml"
    path.write_text(path.read_text().replace("negatives = 2", "negatives = 500"))
    with pytest.raises(InputError, match="GC"):
        build(plan(raw), tmp_path / "x.zarr", command="test")
    assert not list(tmp_path.glob("x.zarr*"))
