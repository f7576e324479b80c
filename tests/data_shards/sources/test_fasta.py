"""FASTA reading against pysam, and every refusal with its file, line and remedy."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pysam
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.contigs import Contigs
from data_shards.errors import InputError
from data_shards.sequence import decode
from data_shards.sources.fasta import check_order, read_codes, scan_fasta, stage_fasta
from data_shards.sources.files import identify

GENOMES = st.dictionaries(
    st.from_regex(r"[A-Za-z0-9_.]{1,12}", fullmatch=True),
    st.text(alphabet="ACGTNacgtnRYK", min_size=1, max_size=300),
    min_size=1,
    max_size=5,
)


def write(path: Path, genome: dict[str, str], width: int = 50) -> Path:
    lines = []
    for name, sequence in genome.items():
        lines.append(f">{name} a description")
        lines += [sequence[i : i + width] for i in range(0, len(sequence), width)]
    text = "\n".join(lines) + "\n"
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text)
    return path


@pytest.mark.parametrize("suffix", [".fa", ".fa.gz"])
@given(genome=GENOMES, cut=st.tuples(st.floats(0, 1), st.floats(0, 1)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_contigs_and_any_stretch_are_what_pysam_reads(
    tmp_path: Path, suffix: str, genome: dict[str, str], cut: tuple[float, float]
) -> None:
    path = write(tmp_path / f"genome{suffix}", genome)
    (tmp_path / "stage").mkdir(exist_ok=True)
    contigs = scan_fasta(path)
    staged = stage_fasta(path, tmp_path / "stage")
    with pysam.FastxFile(str(path)) as fasta:
        records = {record.name: record.sequence for record in fasta}
    assert dict(zip(contigs.names, contigs.lengths, strict=True)) == {
        name: len(sequence) for name, sequence in records.items()
    }
    whole = "".join(records.values()).upper()
    for letter in "RYK":
        whole = whole.replace(letter, "N")
    start, stop = sorted(int(c * len(whole)) for c in cut)
    assert decode(read_codes(staged, contigs, start, stop)) == whole[start:stop]


def test_nothing_is_written_beside_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source"
    stage = tmp_path / "stage"
    source.mkdir()
    stage.mkdir()
    path = write(source / "g.fa", {"chr1": "ACGT" * 30})
    stage_fasta(path, stage)
    assert [p.name for p in source.iterdir()] == ["g.fa"]


def test_the_yeast_genome_is_what_pysam_reads(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "genomes" / "Saccharomyces_cerevisiae.R64-1-1.dna.toplevel.fa.gz"
    contigs = scan_fasta(path)
    assert len(contigs.names) == 17
    staged = stage_fasta(path, tmp_path)
    with pysam.FastxFile(str(path)) as fasta:
        whole = "".join(record.sequence for record in fasta)
    assert contigs.total == len(whole)
    rng = np.random.default_rng(0)
    for start in rng.integers(0, contigs.total - 5000, 20).tolist():
        assert decode(read_codes(staged, contigs, start, start + 5000)) == whole[start:][:5000]


@pytest.mark.parametrize(
    ("text", "line", "problem", "remedy"),
    [
        (">a\nACGT\n>b\nACXT\n", 4, "'X' in column 3", "IUPAC"),
        (">a\nACGU\n", 2, "'U' in column 4", "write T for U"),
        (">a\nACGT\n>a\nAC\n", 3, "contig 'a' is there twice (first on line 1)", "rename"),
        (">a\n>b\nAC\n", 1, "contig 'a' has no sequence", "remove the header"),
        (">a\nAC\n>b\n", 3, "contig 'b' has no sequence", "remove the header"),
        ("ACGT\n", 1, "text before the first header: 'ACGT'", "'>chr1'"),
        ("> a\nACGT\n", 1, "a header without a name", "'>name'"),
    ],
)
def test_a_faulty_line_is_named_with_its_remedy(
    tmp_path: Path, text: str, line: int, problem: str, remedy: str
) -> None:
    path = tmp_path / "bad.fa"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        scan_fasta(path)
    assert (caught.value.path, caught.value.line) == (path, line)
    assert problem in str(caught.value)
    assert remedy in (caught.value.remedy or "")


def test_shuffled_contigs_are_refused_unless_the_file_order_is_asked_for(tmp_path: Path) -> None:
    genome = {"chr2": "A" * 10, "chr1": "A" * 20, "chr3": "A" * 15}
    path = write(tmp_path / "g.fa", genome)
    contigs = scan_fasta(path)
    with pytest.raises(InputError, match="contigs are not sorted: 'chr1' comes after 'chr2'") as e:
        check_order(path, contigs, contigs, "sorted")
    assert e.value.line == 3
    assert 'order = "file"' in (e.value.remedy or "")
    check_order(path, contigs, contigs, "file")
    tiled = Contigs(("chr2", "chr3"), (10, 15))
    check_order(path, contigs, tiled, "sorted")


def test_lines_of_unequal_length_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ragged.fa"
    path.write_text(">a\nACGT\nAC\nACGT\n")
    with pytest.raises(InputError, match="can't be indexed"):
        stage_fasta(path, tmp_path)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    for path, content in (("e.fa", b""), ("e.fa.gz", gzip.compress(b""))):
        (tmp_path / path).write_bytes(content)
        with pytest.raises(InputError, match="the file is empty"):
            identify(tmp_path / path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        identify(tmp_path / "nothing.fa")
    with pytest.raises(InputError, match="is a directory"):
        identify(tmp_path)


@pytest.mark.parametrize("keep", [0.3, 0.99])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, keep: float) -> None:
    rng = np.random.default_rng(0)
    packed = gzip.compress(rng.bytes(100_000))
    path = tmp_path / "cut.fa.gz"
    path.write_bytes(packed[: int(keep * len(packed))])
    with pytest.raises(InputError, match="the gzip data stop in the middle") as caught:
        identify(path)
    assert "truncated" in (caught.value.remedy or "")


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(b"ACGT" * 50_000))
    packed[-6] ^= 0xFF  # its checksum
    path = tmp_path / "bad.fa.gz"
    path.write_bytes(bytes(packed))
    with pytest.raises(InputError, match="damaged gzip data"):
        identify(path)


def test_a_gzip_file_of_several_members_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "members.gz"
    path.write_bytes(gzip.compress(b"ACGT" * 1000) + gzip.compress(b"TTTT" * 1000))
    assert identify(path).bytes == path.stat().st_size
