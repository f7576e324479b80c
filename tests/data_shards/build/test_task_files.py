"""Tasks from files that are not BED: GTF features, bigBed intervals, peak summits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_shards.build.task_files import read_task_file
from data_shards.build.windows import select
from data_shards.build.windows_spec import TaskSpec
from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError

CONTIGS = Contigs(("chr1",), (1000,))
GTF = (
    'chr1\tx\tgene\t101\t200\t.\t+\t.\tgene_id "a"; gene_biotype "protein_coding";\n'
    'chr1\tx\tgene\t301\t400\t.\t-\t.\tgene_id "b"; gene_biotype "protein_coding";\n'
    'chr1\tx\tgene\t501\t600\t.\t-\t.\tgene_id "c"; gene_biotype "rRNA";\n'
)


def read(path: Path, **task: object) -> list[tuple[int, int]]:
    spec = TaskSpec(name="t", file=path.name, **task)  # type: ignore[arg-type]
    frame = select(read_task_file(path, spec, CONTIGS, Naming()), spec, CONTIGS)
    return list(zip(frame["start"].tolist(), frame["end"].tolist(), strict=True))


def test_transcription_start_sites_of_coding_genes_come_from_a_gtf(tmp_path: Path) -> None:
    path = tmp_path / "genes.gtf"
    path.write_text(GTF)
    where = {"gene_biotype": "protein_coding"}
    starts = read(path, feature="gene", where=where, anchor="start", flank=5)
    assert starts == [(95, 106), (394, 405)]
    assert read(path, feature="gene") == [(100, 200), (300, 400), (500, 600)]


def test_a_gtf_without_a_feature_and_a_bed_with_one_are_refused(tmp_path: Path) -> None:
    gtf, bed = tmp_path / "genes.gtf", tmp_path / "x.bed"
    gtf.write_text(GTF)
    bed.write_text("chr1\t1\t2\n")
    with pytest.raises(InputError, match="does not say which lines of the GTF it means"):
        read(gtf)
    with pytest.raises(InputError, match="which only a GTF file has"):
        read(bed, feature="gene")


def test_bigbed_intervals_are_those_of_its_bed(tmp_path: Path) -> None:
    import pybigtools

    path = tmp_path / "x.bb"
    writer = pybigtools.open(str(path), "w")
    entries = [("chr1", 10, 20, ""), ("chr1", 40, 90, ""), ("chr1", 300, 301, "")]
    writer.write({"chr1": 1000}, iter(entries))
    assert read(path) == [(10, 20), (40, 90), (300, 301)]


def test_peaks_are_anchored_at_their_summits(tmp_path: Path) -> None:
    path = tmp_path / "x.narrowPeak"
    path.write_text("chr1\t100\t200\ta\t0\t.\t1\t1\t1\t30\nchr1\t400\t500\tb\t0\t.\t1\t1\t1\t99\n")
    assert read(path, anchor="summit", flank=2) == [(128, 133), (497, 502)]
    assert np.diff(read(path)).ravel().tolist() == [100, 100]
