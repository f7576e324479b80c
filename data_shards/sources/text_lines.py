"""Delimited text by whole lines: bounded blocks, quoted fields, and numbers parsed all at once.

A line may hold a value for each of a million cells, so the cost must not grow with the number of
columns: the values of many lines are laid out as one long column, which pyarrow parses in one go.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv

from data_shards.errors import InputError
from data_shards.sources.files import open_binary

MISSING = ("", "NA", "NaN", "nan", "NULL", "null")
"""What stands for a missing value in text."""

LINE_LIMIT = 256 << 20
"""Bytes of the longest line that is read."""

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_FLOAT = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *", re.ASCII)
_INTEGER = re.compile(r" *-?\d+ *", re.ASCII)
_NAN = re.compile(r" *[+-]?nan *", re.IGNORECASE)
# pyarrow takes nan(...) for a float and 0x1f for an integer: text with these bytes is looked at.
_SUSPECT_FLOAT = (b"(",)
_SUSPECT_INTEGER = (b"x", b"X")


def require_file(path: Path) -> None:
    """Refuse a path that is no file.

    Raises:
        InputError: missing, or a folder.
    """
    if not path.is_file():
        what = "is a directory" if path.is_dir() else "no such file"
        raise InputError(what, path=path, remedy="give the path of a file that exists")


def text_blocks(path: Path, size: int) -> Iterator[bytes]:
    r"""Read a plain or gzip text file in blocks of whole lines.

    A line ends with ``\n``, ``\r\n`` or a lone ``\r``. A UTF-8 byte order mark is passed over.

    Args:
        path: the file.
        size: bytes to read at a time; a block is longer only where a line is.

    Yields:
        Whole lines with their ends (the last line may have none).

    Raises:
        InputError: missing or damaged file, UTF-16, or a line longer than ``LINE_LIMIT``.
    """
    require_file(path)
    carry = b""
    first = True
    try:
        with open_binary(path) as stream:
            while block := stream.read(max(size, len(carry))):
                if first:
                    block, first = _unmarked(path, block), False
                carry += block
                # A "\r" at the very end may be the first half of "\r\n".
                cut = max(carry.rfind(b"\n"), carry.rfind(b"\r", 0, len(carry) - 1)) + 1
                if cut:
                    yield carry[:cut]
                    carry = carry[cut:]
                if len(carry) > LINE_LIMIT:
                    raise InputError(
                        f"a line is longer than {LINE_LIMIT:,} bytes",
                        path=path,
                        remedy="this is not a table of text, or its line ends are lost",
                    )
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"can't be read ({error})", path=path, remedy="copy or download the file again"
        ) from error
    if carry:
        yield carry


def text_lines(path: Path, size: int = 1 << 16) -> Iterator[bytes]:
    """Read a text file line by line, without line ends; see :func:`text_blocks`."""
    for block in text_blocks(path, size):
        yield from block.splitlines()


def line_of_record(path: Path, first_line: int, record: int) -> int | None:
    """Find the 1-based line of a record.

    Args:
        path: the file.
        first_line: 1-based line of the first record. Blank lines after it hold no record.
        record: its number, counted from 0.
    """
    seen = -1
    for number, line in enumerate(text_lines(path), start=1):
        if number >= first_line and line:
            seen += 1
            if seen == record:
                return number
    return None


def split_fields(line: bytes, delimiter: bytes, most: int = -1) -> list[bytes]:
    """Cut a line at its delimiters.

    A field that begins with a double quote ends at the next one (two in a row stand for one quote
    character) and may hold delimiters; anywhere else a quote is a character like others.

    Args:
        line: without line end.
        delimiter: one byte.
        most: cuts to make at most; what is left is the last field, as it stands.

    Returns:
        The fields, without their quotes.

    Raises:
        ValueError: a quoted field has no end, or goes on after it.
    """
    if b'"' not in line:
        return line.split(delimiter, most)
    fields: list[bytes] = []
    at = 0
    while most < 0 or len(fields) < most:
        if line[at : at + 1] == b'"':
            field, at = _quoted(line, at)
            fields.append(field)
            if at == len(line):
                return fields
            if line[at : at + 1] != delimiter:
                raise ValueError("text follows the closing quote of a field")
        else:
            end = line.find(delimiter, at)
            if end < 0:
                fields.append(line[at:])
                return fields
            fields.append(line[at:end])
            at = end
        at += 1
    fields.append(line[at:])
    return fields


def fields_of(path: Path, number: int, line: bytes, delimiter: bytes, most: int = -1) -> list[str]:
    """Cut a line at its delimiters and decode the fields; see :func:`split_fields`.

    Raises:
        InputError: a quoted field that isn't closed, or text that isn't UTF-8; names the line.
    """
    try:
        return [field.decode() for field in split_fields(line, delimiter, most)]
    except UnicodeDecodeError as error:
        raise utf8_error(path, number, error.object) from None
    except ValueError as error:
        raise quote_error(path, number, error) from None


def utf8_error(path: Path, number: int, text: bytes) -> InputError:
    """Return the error for text of a line that isn't UTF-8."""
    return InputError(
        f"text is not UTF-8: {shown(text)}",
        path=path,
        line=number,
        remedy="convert the file, as with: iconv -f latin1 -t utf-8",
    )


def quote_error(path: Path, number: int, fault: ValueError) -> InputError:
    """Return the error for a line that :func:`split_fields` refuses."""
    return InputError(
        str(fault),
        path=path,
        line=number,
        remedy="close the quote on the same line, and write a quote inside a field twice",
    )


def parse_values(
    rows: Sequence[bytes], columns: int, delimiter: bytes, dtype: np.dtype[np.generic]
) -> npt.NDArray[np.generic] | None:
    """Parse the values of many lines at once.

    Args:
        rows: lines of delimited values, without line ends.
        columns: values a line; must have been counted.
        delimiter: one byte.
        dtype: float32, float64, int32 or int64.

    Returns:
        Shape ``(rows, columns)``; NaN where a value is missing. None if some value is no number
        (or is missing or out of range, for integers), or is infinite: see :func:`first_fault`.
    """
    text = b"\n".join(rows).replace(delimiter, b"\n") + b"\n"
    suspects = _SUSPECT_FLOAT if dtype.kind == "f" else _SUSPECT_INTEGER
    suspect = any(mark in text for mark in suspects)
    if suspect and first_fault(rows, delimiter, dtype) is not None:
        return None
    try:
        column = pa.csv.read_csv(
            pa.BufferReader(text),
            pa.csv.ReadOptions(column_names=["v"], use_threads=False, block_size=len(text) + 1),
            # A delimiter that no number holds: where one is, parsing fails.
            pa.csv.ParseOptions(delimiter="\x01", ignore_empty_lines=False),
            pa.csv.ConvertOptions(
                column_types={"v": pa.from_numpy_dtype(dtype)},
                null_values=list(MISSING),
                check_utf8=False,
            ),
        ).column(0)
    except pa.ArrowInvalid:
        return None
    if len(column) != len(rows) * columns or (dtype.kind == "i" and column.null_count):
        return None
    values: npt.NDArray[np.generic] = np.asarray(column.to_numpy(), dtype=dtype)
    if dtype.kind == "f" and np.isinf(values).any():
        return None
    return values.reshape(len(rows), columns)


def first_fault(
    rows: Sequence[bytes], delimiter: bytes, dtype: np.dtype[np.generic]
) -> tuple[int, int, str] | None:
    """Find the first value that :func:`parse_values` refuses.

    Returns:
        Row, column (both counted from 0) and what is wrong with the value; or None.
    """
    for row, line in enumerate(rows):
        try:
            fields = split_fields(line, delimiter)
        except ValueError as error:
            return row, 0, str(error)
        for column, field in enumerate(fields):
            fault = _fault(field, dtype)
            if fault is not None:
                return row, column, fault
    return None


def shown(text: bytes) -> str:
    """Return the beginning of some bytes as it is shown in a message."""
    return repr(text[:40].decode("utf-8", "replace") + ("..." if len(text) > 40 else ""))


def _fault(field: bytes, dtype: np.dtype[np.generic]) -> str | None:
    """Say what is wrong with a value, if anything is."""
    text = field.decode("utf-8", "replace")
    missing = text in MISSING or _NAN.fullmatch(text) is not None
    if missing:
        return None if dtype.kind == "f" else f"value {text!r} is missing, which {dtype} can't say"
    if dtype.kind != "f":
        if not _INTEGER.fullmatch(text):
            return f"value {shown(field)} is not an integer"
        limits = np.iinfo(str(dtype))
        fits = len(text) <= 40 and limits.min <= int(text) <= limits.max
    elif text.strip(" ").lstrip("+-").lower() in {"inf", "infinity"}:
        return f"value {text!r} is infinite"
    elif not _FLOAT.fullmatch(text):
        return f"value {shown(field)} is not a number"
    else:
        with np.errstate(over="ignore"):
            fits = bool(np.isfinite(np.array(float(text)).astype(dtype)))
    return None if fits else f"value {shown(field)} is too large for {dtype}"


def _quoted(line: bytes, start: int) -> tuple[bytes, int]:
    """Read a quoted field; return it and the position after its closing quote."""
    at = start + 1
    while True:
        end = line.find(b'"', at)
        if end < 0:
            raise ValueError("a quoted field is not closed on its line")
        if line[end + 1 : end + 2] != b'"':
            return line[start + 1 : end].replace(b'""', b'"'), end + 1
        at = end + 2


def _unmarked(path: Path, block: bytes) -> bytes:
    if block.startswith(_UTF16_MARKS):
        raise InputError(
            "the text is UTF-16", path=path, remedy="convert it: iconv -f utf-16 -t utf-8"
        )
    return block.removeprefix(_UTF8_MARK)
