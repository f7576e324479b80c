"""FASTA records as samples: exact, streamed, and refused with the line."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.errors import InputError
from data_shards.sequence import decode
from data_shards.sources.sequences import stream_records


def records(path: Path, block: int = 1 << 20, **options: str) -> list[tuple[str, str]]:
    found = []
    for some in stream_records(path, block_bytes=block, **options):  # type: ignore[arg-type]
        ends = np.cumsum(some.lengths)
        found += [
            (name, decode(some.codes[end - length : end]))
            for name, end, length in zip(some.names, ends, some.lengths, strict=True)
        ]
    return found


@given(
    st.lists(st.text("ACGTNacgtn", min_size=1, max_size=80), min_size=1, max_size=20),
    st.integers(1, 30),
    st.integers(1, 300),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_goes_in_comes_out_for_any_line_width_and_block(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], width: int, block: int, end: str
) -> None:
    path = tmp_path_factory.mktemp("fasta") / "x.fa.gz"
    with gzip.open(path, "wt", newline="") as stream:
        for number, text in enumerate(texts):
            stream.write(f">r{number} some words{end}")
            for start in range(0, len(text), width):
                stream.write(text[start : start + width] + end)
            stream.write(end)
    expected = [(f"r{number}", text.upper()) for number, text in enumerate(texts)]
    assert records(path, block) == expected


def test_rna_is_read_as_dna_where_it_is_said_to_be_rna(tmp_path: Path) -> None:
    path = tmp_path / "x.fa"
    path.write_text(">a\nACGUu\n")
    assert records(path, alphabet="rna") == [("a", "ACGTT")]
    with pytest.raises(InputError, match=r'line 2[\s\S]*set alphabet = "rna"'):
        records(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("ACGT\n", "line 1: text before the first header"),
        (">a\nAC\n> \nAC\n", "line 3: a header without a name"),
        (">a\n>b\nAC\n", "line 1: record 'a' has no sequence"),
        (">a\nAC\n>b\n", "line 3: record 'b' has no sequence"),
        (">a\nAC!T\n", "line 2: '!' at position 2"),
        ("\n\n", "no record in the file"),
    ],
)
def test_a_faulty_record_is_named_by_its_line(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "x.fa"
    path.write_text(text)
    with pytest.raises(InputError, match=problem):
        records(path)


def test_real_hairpins_are_what_a_plain_reader_sees(shared_data: Path) -> None:
    path = shared_data / "deepmirgene" / "human_pos.fa.gz"
    with gzip.open(path, "rt") as stream:
        parts = stream.read().split(">")[1:]
    expected = [
        (part.split()[0], "".join(part.splitlines()[1:]).upper().replace("U", "T"))
        for part in parts
    ]
    assert records(path, 1000, alphabet="rna") == expected
