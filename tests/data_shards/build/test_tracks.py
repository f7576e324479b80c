"""Track windows hold what pyBigWig and pysam say of each bin, for every kind of signal file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyBigWig
import pysam
import pytest

from data_shards.build.description import read_description
from data_shards.build.run import build
from data_shards.build.windows_plan import WindowsPlan, plan_windows
from data_shards.build.windows_spec import WindowsSpec
from data_shards.check import check
from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError

LENGTHS = {"chr1": 4000, "chr2": 2990, "chr3": 2000}
BIN, WINDOW = 50, 200
SPEC = """
[reference]
fasta = "genome.fa"
[windows]
length = 200
center = 100
stride = 100
strands = "both"
[splits]
valid = ["chr2"]
test = ["chr3"]
[signal]
bin = 50
dtype = "float32"
[[tracks]]
name = "plus"
file = "signal.bw"
missing = 0.0
opposite = "minus"
[[tracks]]
name = "minus"
file = "signal.bedGraph"
summary = "max"
missing = "keep"
opposite = "plus"
[[tracks]]
name = "reads"
file = "reads.bam"
min_mapq = 10
[[tracks]]
name = "tags"
file = "reads.tagAlign"
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "raw"
    folder.mkdir()
    with (folder / "genome.fa").open("w") as stream:
        for name, length in LENGTHS.items():
            stream.write(f">{name}\n{''.join(rng.choice(list('ACGT'), length))}\n")
    bigwig = pyBigWig.open(str(folder / "signal.bw"), "w")
    bigwig.addHeader(list(LENGTHS.items()))
    lines = []
    for name, length in LENGTHS.items():
        edges = np.unique(rng.integers(0, length, 60))
        pairs = list(zip(edges[:-1:2].tolist(), edges[1::2].tolist(), strict=False))
        values = rng.normal(size=len(pairs)).round(3).tolist()
        starts, ends = (list(part) for part in zip(*pairs, strict=True))
        bigwig.addEntries([name] * len(pairs), starts, ends=ends, values=values)
        lines += [f"{name}\t{s}\t{e}\t{v}\n" for (s, e), v in zip(pairs, values, strict=True)]
    bigwig.close()
    (folder / "signal.bedGraph").write_text("".join(lines))
    header = {"HD": {"SO": "coordinate"}, "SQ": [{"SN": n, "LN": k} for n, k in LENGTHS.items()]}
    tags = []
    with pysam.AlignmentFile(str(folder / "reads.bam"), "wb", header=header) as bam:
        for number, (name, length) in enumerate(LENGTHS.items()):
            for i, start in enumerate(np.sort(rng.integers(0, length - 40, 80)).tolist()):
                read = pysam.AlignedSegment()
                read.query_name, read.query_sequence = f"r{number}-{i}", "A" * 30
                read.reference_id, read.reference_start = number, start
                read.mapping_quality, read.cigarstring, read.flag = i % 40, "30M", 0
                bam.write(read)
                tags.append(f"{name}\t{start}\t{start + 30}\tN\t0\t+\n")
    (folder / "reads.tagAlign").write_text("".join(tags))
    (folder / "tracks.toml").write_text(SPEC)
    return folder


def plan(folder: Path) -> WindowsPlan:
    spec = read_description(folder / "tracks.toml")
    assert isinstance(spec, WindowsSpec)
    return plan_windows(
        spec,
        folder,
        recipe="",
        spec_path=folder / "tracks.toml",
        rows_per_shard=4096,
        bases_per_shard=4096,
    )


def expected_bins(folder: Path, contig: str, start: int) -> np.ndarray:
    """Read the four tracks of a window on the forward strand by the libraries themselves."""
    bigwig = pyBigWig.open(str(folder / "signal.bw"))
    values = bigwig.values(contig, start, start + WINDOW, numpy=True).reshape(-1, BIN)
    plus = np.nan_to_num(values).mean(axis=1)
    bare = np.isnan(values).all(axis=1)
    minus = np.where(bare, np.nan, np.nanmax(np.where(bare[:, None], 0, values), axis=1))
    reads = np.zeros(WINDOW // BIN)
    tags = np.zeros(WINDOW // BIN)
    with pysam.AlignmentFile(str(folder / "reads.bam"), check_sq=False) as bam:
        for read in bam:
            for number in range(WINDOW // BIN):
                lo = start + number * BIN
                here = read.reference_name == contig and (
                    read.reference_start < lo + BIN and read.reference_end > lo
                )
                tags[number] += here
                reads[number] += here and read.mapping_quality >= 10
    return np.stack([plus, minus, reads, tags], axis=1)


def test_every_bin_of_every_track_is_what_its_library_says_on_either_strand(
    raw: Path, tmp_path: Path, ray_cluster: None
) -> None:
    build(plan(raw), tmp_path / "x.zarr", command="test")
    data = ShardedDataset(tmp_path / "x.zarr")
    assert data.schema.field("tracks").names == ("plus", "minus", "reads", "tags")
    rows = np.random.default_rng(1).choice(data.schema.samples, 24, replace=False)
    for row, bins in zip(rows, data.gather("tracks", rows), strict=True):
        contig = data.schema.contigs[data.loci.contig[row]].name
        expected = expected_bins(raw, contig, int(data.loci.start[row]))
        if data.loci.strand[row] < 0:
            expected = expected[::-1][:, [1, 0, 2, 3]]
        assert np.allclose(bins, expected, atol=1e-6, equal_nan=True)
    assert not [finding for finding in check(tmp_path / "x.zarr") if not finding.ok]
    assert not list(raw.glob("*.bai")), "nothing is written beside the sources"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('missing = "keep"', 'missing = "error"', "track 'minus' has no data at chr"),
        ('file = "signal.bw"', 'file = "signal.bedGraph"\nformat = "bigWig"', "bigWig"),
        ('dtype = "float32"', 'dtype = "float16"', "1e+06 does not fit float16"),
    ],
)
def test_a_faulty_track_is_named_and_leaves_nothing(
    raw: Path, tmp_path: Path, ray_cluster: None, old: str, new: str, problem: str
) -> None:
    path = raw / "tracks.toml"
    path.write_text(path.read_text().replace(old, new))
    if "float16" in new:
        graph = raw / "signal.bedGraph"
        graph.write_text(graph.read_text() + "chr1\t3990\t4000\t1000000\n")
    with pytest.raises(Exception) as caught:
        build(plan(raw), tmp_path / "x.zarr", command="test")
    error = caught.value
    assert isinstance(error, InputError) or isinstance(getattr(error, "cause", None), InputError)
    assert problem in str(error)
    assert not (tmp_path / "x.zarr").exists()


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("bin = 50", "bin = 30", "windows.length (200) is no multiple of signal.bin (30)"),
        ('opposite = "plus"', "", "opposite 'minus' does not name it in turn"),
        ('name = "tags"', 'name = "reads"', "two tracks are called 'reads'"),
        ('file = "reads.tagAlign"', 'file = "reads.txt"', "the extension tells no format"),
    ],
)
def test_a_description_that_cant_be_meant_is_refused(
    raw: Path, old: str, new: str, problem: str
) -> None:
    path = raw / "tracks.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError) as caught:
        plan(raw)
    assert problem in str(caught.value)
