"""The documentation's Python examples run, in order, on small files of the names that they use."""

from __future__ import annotations

import gzip
import re
import shutil
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pybigtools
import pyBigWig
import pysam
import pytest
from scipy import io, sparse

from tests.data_shards.sources.matrices import write_gctx

DOCS = Path(__file__).resolve().parents[1] / "docs"
LENGTHS = {"chr1": 4000, "chr2": 3000}


def examples(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(), re.M | re.S)


def write_genome(folder: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    genome = {name: "".join(rng.choice(list("ACGT"), n)) for name, n in LENGTHS.items()}
    with gzip.open(folder / "genome.fa.gz", "wt") as stream:
        for name, text in genome.items():
            stream.write(f">{name}\n{text}\n")
    (folder / "hairpins.fa").write_text(">a\nACGU\n>b\nGGCU\n")
    return genome


def write_intervals(folder: Path) -> None:
    (folder / "peaks.narrowPeak").write_text("chr1\t100\t300\tp\t0\t.\t1\t1\t1\t50\n")
    with gzip.open(folder / "atac.bedpe.gz", "wt") as stream:
        stream.write("chr1\t100\t300\nchr2\t5\t90\n")
    (folder / "reads.tagAlign").write_text("chr1\t100\t130\tN\t0\t+\nchr1\t600\t630\tN\t0\t-\n")
    (folder / "genes.bed12").write_text(
        "chr1\t100\t500\tg\t0\t+\t100\t500\t0\t2\t50,100,\t0,300,\n"
    )
    writer = pybigtools.open(str(folder / "peaks.bb"), "w")
    writer.write(LENGTHS, iter([("chr1", 10, 20, ""), ("chr2", 40, 90, "")]))
    attributes = 'gene_id "g1"; gene_biotype "protein_coding";'
    more = f'{attributes} transcript_id "t1"; tag "basic";'
    (folder / "genes.gtf").write_text(
        f"chr1\tx\tgene\t101\t500\t.\t-\t.\t{attributes}\n"
        f"chr1\tx\ttranscript\t101\t500\t.\t-\t.\t{more}\n"
        f"chr1\tx\texon\t101\t500\t.\t-\t.\t{more}\n"
    )


def write_signal(folder: Path) -> None:
    bigwig = pyBigWig.open(str(folder / "signal.bw"), "w")
    bigwig.addHeader(list(LENGTHS.items()))
    bigwig.addEntries(["chr1", "chr1"], [100, 400], ends=[150, 900], values=[1.5, 2.25])
    bigwig.close()
    (folder / "signal.bedGraph").write_text("chr1\t100\t150\t1.5\nchr1\t400\t900\t2.25\n")
    header = {"HD": {"SO": "coordinate"}, "SQ": [{"SN": n, "LN": k} for n, k in LENGTHS.items()]}
    with pysam.AlignmentFile(str(folder / "reads.bam"), "wb", header=header) as bam:
        for start in (100, 600):
            read = pysam.AlignedSegment()
            read.query_name, read.query_sequence = f"r{start}", "A" * 30
            read.query_qualities = pysam.qualitystring_to_array("I" * 30)
            read.reference_id, read.reference_start = 0, start
            read.mapping_quality, read.cigarstring, read.flag = start // 10, "30M", 0
            bam.write(read)


def write_variants(folder: Path, genome: dict[str, str]) -> None:
    bases = genome["chr1"]
    other = {"A": "C", "C": "G", "G": "T", "T": "A"}
    with pysam.BGZFile(str(folder / "calls.vcf.gz"), "wb") as stream:
        lines = ["##fileformat=VCFv4.2"]
        lines += [f"##contig=<ID={name},length={length}>" for name, length in LENGTHS.items()]
        lines.append('##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">')
        lines.append("#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\tFORMAT\tS1")
        for position in (500, 900):
            ref = bases[position - 1]
            lines.append(f"chr1\t{position}\t.\t{ref}\t{other[ref]}\t9\tPASS\t.\tGT\t0|1")
        stream.write(("\n".join(lines) + "\n").encode())


def write_matrices(folder: Path) -> None:
    rng = np.random.default_rng(1)
    samples, genes = [f"s{i}" for i in range(6)], [f"g{i}" for i in range(4)]
    values = rng.normal(size=(6, 4)).round(3)
    frame = pd.DataFrame(values, index=pd.Index(samples, name="id"), columns=genes)
    frame.T.to_csv(folder / "expression.tsv", sep="\t", index_label="gene")
    frame.reset_index().to_parquet(folder / "expression.parquet")
    write_gctx(folder / "expression.gctx", values.astype(np.float32), samples, genes)
    head = "\t".join(samples)
    rows = ["\t".join(str(value) for value in column) for column in values.T]
    body = [f"{gene}\tna\t{row}\n" for gene, row in zip(genes, rows, strict=True)]
    (folder / "expression.gct").write_text(
        f"#1.2\n4\t6\nName\tDescription\t{head}\n" + "".join(body)
    )
    weighted = [f"{gene}\tna\t1\t{row}\n" for gene, row in zip(genes, rows, strict=True)]
    write_pcl(folder, head, weighted)
    counts = sparse.csr_matrix(rng.integers(0, 3, (6, 4)).astype(np.float32))
    cells = anndata.AnnData(counts)
    cells.obs_names, cells.var_names = samples, genes
    cells.write_h5ad(folder / "cells.h5ad")
    tenx = folder / "filtered_feature_bc_matrix"
    tenx.mkdir()
    io.mmwrite(tenx / "matrix.mtx", sparse.coo_matrix(counts.T.astype(np.int64)))
    (tenx / "barcodes.tsv").write_text("".join(f"{name}\n" for name in samples))
    (tenx / "features.tsv").write_text("".join(f"{g}\t{g}\tGene Expression\n" for g in genes))
    (folder / "samples.tsv").write_text("id\tage\ttissue\ns0\t31\tliver\ns1\tNA\tskin\n")
    (folder / "cell.tsv").write_text("chr1\t100\t0.5\nchr1\t200\t1\n")


def write_pcl(folder: Path, head: str, rows: list[str]) -> None:
    weights = "\t".join("1" * 6)
    (folder / "expression.pcl").write_text(
        f"ID\tNAME\tGWEIGHT\t{head}\nEWEIGHT\t\t\t{weights}\n" + "".join(rows)
    )


def write_arrays(folder: Path) -> None:
    codes = np.random.default_rng(2).integers(0, 4, (10, 25))
    onehot = np.moveaxis(np.eye(4, dtype=np.uint8)[codes], 2, 1)  # samples, channels, positions
    with h5py.File(folder / "train.mat", "w", userblock_size=512) as file:
        file["trainxdata"] = onehot.transpose(2, 1, 0)
    stamp = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8) + b"\x00\x02IM"
    content = bytearray((folder / "train.mat").read_bytes())
    content[: len(stamp)] = stamp
    (folder / "train.mat").write_bytes(bytes(content))
    np.savez(folder / "data.npz", labels=codes[:, :3], other=codes)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of the examples."""
    genome = write_genome(tmp_path)
    write_intervals(tmp_path)
    write_signal(tmp_path)
    write_variants(tmp_path, genome)
    write_matrices(tmp_path)
    write_arrays(tmp_path)
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_examples_of_all_formats_run(folder: Path) -> None:
    found = examples("formats.md")
    assert len(found) == 8
    exec(compile("\n".join(found), "formats.md", "exec"), {})
    assert {path.name for path in folder.glob("*.bai")} == set()


def test_the_example_of_reading_runs(
    danq_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(danq_data, tmp_path / "genome.zarr")
    monkeypatch.chdir(tmp_path)
    [found] = examples("data.md")
    exec(compile(found, "data.md", "exec"), {})


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
