"""Lines, fields and numbers of text against Python's own reading of them."""

from __future__ import annotations

import csv
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_shards.errors import InputError
from data_shards.sources import text_lines
from data_shards.sources.text_lines import (
    MISSING,
    first_fault,
    line_of_record,
    parse_values,
    split_fields,
    text_blocks,
)

F64, F32, I64, I32 = (np.dtype(t) for t in ("float64", "float32", "int64", "int32"))
RELAXED = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@given(
    pieces=st.lists(st.sampled_from([b"a", b"bcd", b"\n", b"\r\n", b"\r", b"\t", b"\n\n"])),
    size=st.integers(1, 9),
    packed=st.booleans(),
)
@RELAXED
def test_blocks_are_the_lines_of_the_file_whatever_ends_them(
    tmp_path: Path, pieces: list[bytes], size: int, packed: bool
) -> None:
    text = b"".join(pieces)
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(text) if packed else text)
    blocks = list(text_blocks(path, size))
    assert [line for block in blocks for line in block.splitlines()] == text.splitlines()
    assert all(block.endswith((b"\n", b"\r")) for block in blocks[:-1])


def test_a_utf8_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\xef\xbb\xbfa\tb\n")
    assert list(text_blocks(path, 100)) == [b"a\tb\n"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("a\tb\n".encode("utf-16"), "UTF-16"),
        (gzip.compress(b"a\tb\n" * 1000)[:-20], "can't be read"),
        (gzip.compress(b"a\tb\n" * 1000)[:20] + b"x" * 99, "can't be read"),
    ],
    ids=["utf-16", "truncated gzip", "damaged gzip"],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        list(text_blocks(path, 100))


def test_a_line_without_end_is_refused_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "LINE_LIMIT", 1000)
    path = tmp_path / "x"
    path.write_bytes(b"a" * 5000)
    with pytest.raises(InputError, match="a line is longer than 1,000 bytes"):
        list(text_blocks(path, 100))


@pytest.mark.parametrize("path", ["missing", "."])
def test_what_is_no_file_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(InputError, match=r"no such file|is a directory"):
        list(text_blocks(tmp_path / path, 100))


def test_records_are_found_past_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"head\n\na\n\r\nb\nc")
    assert [line_of_record(path, 2, i) for i in range(4)] == [3, 5, 6, None]


FIELD = st.text(st.sampled_from('a"\t ,'), max_size=4)


@given(fields=st.lists(FIELD, min_size=1, max_size=5), quote=st.booleans())
@RELAXED
def test_quoted_fields_are_what_the_csv_module_reads(fields: list[str], quote: bool) -> None:
    def written(field: str) -> str:
        if quote or "\t" in field or field.startswith('"'):
            return '"' + field.replace('"', '""') + '"'
        return field

    line = "\t".join(map(written, fields))
    found = [field.decode() for field in split_fields(line.encode(), b"\t")]
    assert found == fields == (next(csv.reader([line], delimiter="\t")) or [""])


def test_the_rest_of_a_line_stays_as_it_is() -> None:
    assert split_fields(b'"a\tb"\t"1"\t2', b"\t", 1) == [b"a\tb", b'"1"\t2']
    assert split_fields(b"a\t1\t2", b"\t", 1) == [b"a", b"1\t2"]


@pytest.mark.parametrize("line", [b'"a\tb', b'a\t"b', b'"a"b\tc', b'"a"" \tc'])
def test_quotes_that_are_not_closed_are_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="quote"):
        split_fields(line, b"\t")


VALUE = st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.none())


@given(
    rows=st.integers(1, 4).flatmap(
        lambda n: st.lists(st.lists(VALUE, min_size=n, max_size=n), min_size=1, max_size=5)
    ),
    data=st.data(),
    quote=st.booleans(),
)
@RELAXED
def test_floats_are_parsed_to_the_last_bit(
    rows: list[list[float | None]], data: st.DataObject, quote: bool
) -> None:
    def written(value: float | None) -> str:
        text = data.draw(st.sampled_from(MISSING)) if value is None else repr(value)
        return f'"{text}"' if quote else text

    lines = ["\t".join(map(written, row)).encode() for row in rows]
    found = parse_values(lines, len(rows[0]), b"\t", F64)
    wanted = np.array([[math.nan if v is None else v for v in row] for row in rows])
    assert found is not None
    assert found.dtype == F64
    assert np.array_equal(found, wanted, equal_nan=True)


@given(rows=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=9))
@RELAXED
def test_integers_are_exact_over_the_whole_range(rows: list[int]) -> None:
    found = parse_values([str(n).encode() for n in rows], 1, b",", I64)
    assert found is not None
    assert found[:, 0].tolist() == rows


@pytest.mark.parametrize(
    ("value", "dtype", "problem"),
    [
        (b"high", F64, "'high' is not a number"),
        (b"1,5", F64, "'1,5' is not a number"),
        (b"0x10", F64, "'0x10' is not a number"),
        (b"1_0", F64, "'1_0' is not a number"),
        (b"1d3", F64, "'1d3' is not a number"),
        (b"nan(1)", F64, "'nan(1)' is not a number"),
        (b"N/A", F64, "'N/A' is not a number"),
        (b" ", F64, "' ' is not a number"),
        (b" NA", F64, "' NA' is not a number"),
        (b"1\x01", F64, "is not a number"),
        (b"1\x00", F64, "is not a number"),
        (b"\xff", F64, "is not a number"),
        ("\u0661".encode(), F64, "is not a number"),
        (b"x" * 99, F64, "xxx...' is not a number"),
        (b"inf", F64, "'inf' is infinite"),
        (b"-Infinity", F64, "'-Infinity' is infinite"),
        (b"1e999", F64, "'1e999' is too large for float64"),
        (b"1e39", F32, "'1e39' is too large for float32"),
        (b"1.0", I64, "'1.0' is not an integer"),
        (b"0x1F", I64, "'0x1F' is not an integer"),
        (b"9223372036854775808", I64, "too large for int64"),
        (b"9" * 5000, I64, "too large for int64"),
        (b"3000000000", I32, "too large for int32"),
        (b"NA", I64, "'NA' is missing, which int64 can't say"),
        (b"", I64, "'' is missing, which int64 can't say"),
    ],
)
def test_a_value_that_is_refused_is_found_again(
    value: bytes, dtype: np.dtype[np.generic], problem: str
) -> None:
    lines = [b"1\t2", b"3\t" + value, b"x\t4"]
    assert parse_values(lines[:2], 2, b"\t", dtype) is None
    fault = first_fault(lines, b"\t", dtype)
    assert fault is not None
    assert fault[:2] == (1, 1)
    assert problem in fault[2]


@pytest.mark.parametrize("dtype", [F64, F32, I64, I32])
def test_spaces_around_a_number_are_no_part_of_it(dtype: np.dtype[np.generic]) -> None:
    found = parse_values([b" 1\t2 ", b"3\t-4"], 2, b"\t", dtype)
    assert found is not None
    assert found.dtype == dtype
    assert found.tolist() == [[1, 2], [3, -4]]
    assert first_fault([b" 1\t2 ", b"3\t-4"], b"\t", dtype) is None


@pytest.mark.parametrize("text", ["nan", "NAN", "-nan", "NaN"])
def test_nan_is_missing_in_any_case(text: str) -> None:
    found = parse_values([text.encode()], 1, b"\t", F64)
    assert found is not None
    assert np.isnan(found).all()
    assert first_fault([text.encode()], b"\t", F64) is None


def test_a_quoted_line_end_does_not_join_two_values() -> None:
    assert parse_values([b'"1\t2"', b"3\t4"], 2, b"\t", F64) is None
