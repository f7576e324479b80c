"""Tab-separated text in blocks of bounded memory, and columns that know at fault which line.

pyarrow parses; the blocks are cut here at line ends, because pyarrow's own streaming reader fails
on a line longer than its block, takes a lone carriage return for a line end, and tells no line.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from data_shards.contigs import Contigs, Naming, naming_hint
from data_shards.errors import InputError
from data_shards.sources.files import open_binary

ResultT = TypeVar("ResultT")

BLOCK_BYTES = 8 << 20
_LONGEST_LINE = 16 << 20
_LARGEST_BLOCK = 1 << 30  # pyarrow counts the bytes of a block in 32 bits
_BOM = b"\xef\xbb\xbf"
_BLANK = (b"", b"\r")
# UCSC's display lines. A contig may be called track1, or even track: digits tell a record.
TRACK_LINES = re.compile(rb"(?:track|browser)(?:[ \r\n]|\t(?![0-9])|$)")
_COMMENT = re.compile(rb"^#[^\n]*", re.MULTILINE)
_LONE_RETURN = re.compile(rb"\r(?!\n)")
_INTEGER = "^-?[0-9]+$"
_NUMBER = r"(?i)^[-+]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[-+]?[0-9]+)?|inf|infinity)$"


class RecordError(Exception):
    """A fault of one record of a block; :func:`convert` turns it into an error with the line."""

    def __init__(self, record: int, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.record, self.problem, self.remedy = record, problem, remedy


@dataclass(frozen=True)
class Block:
    """Consecutive records of a text table.

    Attributes:
        path: the file.
        line: 1-based line at which ``text`` begins.
        text: whole lines; comments are blanked out.
        table: the chosen columns, all as text; one row a record.
        stop: the fault of the text after the last row, if there is one.
    """

    path: Path
    line: int
    text: bytes
    table: pa.Table
    stop: InputError | None

    def line_of(self, record: int) -> int:
        """Return the 1-based line of a record of this block (0-based)."""
        rows = enumerate(self.text.split(b"\n"), start=self.line)
        lines = (number for number, row in rows if row not in _BLANK)
        return next(number for i, number in enumerate(lines) if i == record)


def convert(block: Block, function: Callable[[pa.Table], ResultT]) -> ResultT:
    """Turn the columns of a block into something else, or report its first faulty line.

    Args:
        block: from :func:`read_blocks`.
        function: raises :class:`RecordError` on a fault; must accept any leading rows, also none.

    Raises:
        InputError: for the first faulty line, whatever the order in which faults are found.
    """
    rows, error = block.table, block.stop
    while True:
        try:
            result = function(rows)
        except RecordError as fault:
            line = block.line_of(fault.record)
            error = InputError(fault.problem, path=block.path, line=line, remedy=fault.remedy)
            rows = rows.slice(0, fault.record)  # an earlier line may have a fault of another kind
        else:
            if error is not None:
                raise error
            return result


def first_record(path: Path, header: re.Pattern[bytes] | None = None) -> tuple[int, int]:
    """Find the first line that is no comment, no header and not blank.

    Args:
        path: plain or gzip file.
        header: matches other lines to pass over; lines that begin with ``#`` always are.

    Returns:
        Its 1-based line number and its number of tab-separated columns.

    Raises:
        InputError: there is none; the file can't be read; it isn't text in lines.
    """
    with _reading(path) as stream:
        for number, line in enumerate(_lines(path, stream), start=1):
            text = line.removeprefix(_BOM) if number == 1 else line
            if text.strip() and not text.startswith(b"#") and not (header and header.match(text)):
                return number, text.rstrip(b"\r\n").count(b"\t") + 1
    raise InputError("no interval in the file", path=path, remedy="give a file that has records")


def read_blocks(
    path: Path,
    first_line: int,
    width: int,
    columns: Mapping[str, int],
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Block]:
    r"""Read a text table block after block.

    Args:
        path: plain or gzip file, tab-separated, lines ended by ``\n`` or ``\r\n``. Blank lines
            and comments (``#`` first) are passed over wherever they are.
        first_line: 1-based line to begin at, from :func:`first_record`.
        width: columns that every record must have.
        columns: name -> 0-based position of each column that is wanted.
        block_bytes: text a block, in bytes; a longer line makes a longer block.

    Yields:
        Blocks in file order; some may have no row.

    Raises:
        InputError: the file can't be read, or a line is longer than 16 MiB.
    """
    if not 0 < block_bytes <= _LARGEST_BLOCK:
        raise ValueError(f"block_bytes is {block_bytes}, not within 1 to {_LARGEST_BLOCK}")
    with _reading(path) as stream:
        lines = _lines(path, stream)
        for _ in range(first_line - 1):
            next(lines)
        for line, text in _pieces(path, stream, first_line, block_bytes):
            yield _block(path, line, text, width, columns)


def integers(text: pa.ChunkedArray, what: str, remedy: str) -> npt.NDArray[np.int64]:
    """Parse a column of decimal integers.

    Raises:
        RecordError: a value is no integer, or needs more than 64 bits.
    """
    wrong = pc.index(pc.match_substring_regex(text, _INTEGER), value=False).as_py()
    if wrong >= 0:
        raise RecordError(wrong, f"{what} is {text[wrong].as_py()!r}, not a number", remedy)
    try:
        return np.asarray(pc.cast(text, pa.int64()).to_numpy(), dtype=np.int64)
    except pa.ArrowInvalid:
        limits = np.iinfo(np.int64)
        sizes = [int(value) for value in text.to_pylist()]
        wrong = next(i for i, v in enumerate(sizes) if not limits.min <= v <= limits.max)
        raise RecordError(wrong, f"{what} is {sizes[wrong]}, beyond 64 bits", remedy) from None


def numbers(
    text: pa.ChunkedArray, what: str, remedy: str, *, missing: str | None = "."
) -> npt.NDArray[np.float64]:
    """Parse a column of finite numbers; ``missing`` becomes NaN, and nothing else does.

    Raises:
        RecordError: a value is no number (nan isn't one), or is infinite.
    """
    if missing is not None:
        text = pc.if_else(pc.equal(text, missing), pa.scalar(None, pa.string()), text)
    wrong = pc.index(pc.match_substring_regex(text, _NUMBER), value=False).as_py()
    if wrong >= 0:
        raise RecordError(wrong, f"{what} is {text[wrong].as_py()!r}, not a number", remedy)
    values = np.array(pc.cast(text, pa.float64()).to_numpy(), dtype=np.float64)
    if (infinite := np.flatnonzero(np.isinf(values))).size:
        finite = "give a finite number" + ("" if missing is None else f" or {missing!r}")
        raise RecordError(int(infinite[0]), f"{what} is infinite", finite)
    return values


def contig_numbers(
    text: pa.ChunkedArray, contigs: Contigs, naming: Naming
) -> npt.NDArray[np.int32]:
    """Look up a column of contig names in the reference.

    Raises:
        RecordError: a name is not there.
    """
    names, codes = _encoded(text)
    known = np.array([contigs.index.get(naming.translate(n), -1) for n in names], dtype=np.int32)
    found = known[codes]
    if (unknown := np.flatnonzero(found < 0)).size:
        name = names[codes[unknown[0]]]
        problem = f"contig {name!r} is not in the reference"
        raise RecordError(int(unknown[0]), problem, naming_hint(name, contigs))
    return found


def strands(text: pa.ChunkedArray, *, required: bool = False) -> npt.NDArray[np.int8]:
    """Turn a column of ``+``, ``-`` and (unless one is required) ``.`` into +1, -1 and 0.

    Raises:
        RecordError: a value is something else.
    """
    signs = {"+": 1, "-": -1} | ({} if required else {".": 0})
    symbols, codes = _encoded(text)
    values = np.array([signs.get(symbol, 99) for symbol in symbols], dtype=np.int8)[codes]
    if (bad := np.flatnonzero(values == 99)).size:
        allowed = "'+' or '-'" if required else "'+', '-' or '.'"
        symbol = symbols[codes[bad[0]]]
        raise RecordError(int(bad[0]), f"strand is {symbol!r}", f"write {allowed}")
    return values


def check_bounds(
    contig: npt.NDArray[np.int32],
    start: npt.NDArray[np.int64],
    end: npt.NDArray[np.int64],
    contigs: Contigs,
    *,
    base: Literal[0, 1] = 0,
    which: str = "",
) -> None:
    """Refuse intervals that are empty, reversed or not within their contig.

    Args:
        contig: numbers of contigs in the reference.
        start: as the file has it.
        end: as the file has it.
        contigs: of the reference.
        base: 0 for half-open intervals from 0 (BED), 1 for intervals from 1 with both ends (GTF).
        which: appended to the words start and end in messages.

    Raises:
        RecordError: for the first such interval.
    """
    lengths = np.array(contigs.lengths, dtype=np.int64)
    empty = (start > end) if base else (start >= end)
    faults = np.flatnonzero((start < base) | empty | (end > lengths[contig]))
    if not faults.size:
        return
    record = int(faults[0])
    first, last = int(start[record]), int(end[record])
    name, length = contigs.names[contig[record]], contigs.lengths[contig[record]]
    if first < base:
        problem = f"start{which} is {first}, below {base}"
        remedy = "GTF positions are 1-based" if base else "BED positions are 0-based"
    elif empty[record] and base:
        problem = f"start{which} {first} is past end{which} {last}"
        remedy = "GTF intervals include both ends, the lower one first on either strand"
    elif empty[record]:
        problem = f"start{which} {first} is not below end{which} {last}"
        remedy = "BED intervals are half-open: a single base at 5 is written 5, 6"
    else:
        problem = f"end{which} {last} is past the end of contig {name!r} ({length:,} bp)"
        remedy = "the file belongs to another assembly, or the line is wrong"
    raise RecordError(record, problem, remedy)


def _encoded(text: pa.ChunkedArray) -> tuple[list[str], npt.NDArray[np.int32]]:
    """Return the distinct values of a column and, for each record, which one it has."""
    encoded = pc.dictionary_encode(text.combine_chunks())
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


@contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    try:
        with open_binary(path) as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        remedy = "copy or download the file again"
        raise InputError(f"damaged gzip data ({error})", path=path, remedy=remedy) from error
    except OSError as error:
        remedy = "give a file that can be read"
        raise InputError(f"can't be read ({error.strerror})", path=path, remedy=remedy) from error


def _lines(path: Path, stream: IO[bytes]) -> Iterator[bytes]:
    """Yield lines; refuse what is no text in lines before it fills the memory."""
    number = 0
    while line := stream.readline(_LONGEST_LINE):
        number += 1
        if error := _not_lines(path, number, line):
            raise error
        yield line


def _pieces(
    path: Path, stream: IO[bytes], line: int, block_bytes: int
) -> Iterator[tuple[int, bytes]]:
    """Yield whole lines, about block_bytes at a time, with the number of the first one."""
    rest = b""
    while chunk := stream.read(block_bytes):
        text = rest + chunk
        cut = text.rfind(b"\n") + 1
        if cut:
            yield line, text[:cut]
            line += text.count(b"\n", 0, cut)
        rest = text[cut:]
        if len(rest) >= _LONGEST_LINE and (error := _not_lines(path, line, rest)):
            raise error
    if rest:
        yield line, rest


def _block(path: Path, line: int, text: bytes, width: int, columns: Mapping[str, int]) -> Block:
    """Parse whole lines up to the first one that can't be parsed."""
    stop = _not_lines(path, line, text)
    if stop is not None:
        text = _before(text, line, stop)
    if text.startswith(b"#") or b"\n#" in text:
        text = _COMMENT.sub(b"", text)
    if not text.isascii():
        try:
            text.decode()
        except UnicodeDecodeError as error:
            number = line + text.count(b"\n", 0, error.start)
            problem = f"byte 0x{text[error.start]:02x} is no UTF-8 text"
            stop = InputError(problem, path=path, line=number, remedy="convert it to UTF-8 text")
            text = _before(text, line, stop)
    table, all_good = _parse(text, line, width, columns)
    if not all_good:
        record, stop = _wrong_width(path, line, text, width)
        table = table.slice(0, record)
    return Block(path, line, text, table, stop)


def _before(text: bytes, line: int, error: InputError) -> bytes:
    """Return the lines of a text before the one with the error."""
    number = error.line if error.line is not None else line
    return b"".join(row + b"\n" for row in text.split(b"\n", number - line)[: number - line])


def _parse(text: bytes, line: int, width: int, columns: Mapping[str, int]) -> tuple[pa.Table, bool]:
    """Split lines into columns; tell whether all had the right number of them."""
    wrong: list[object] = []

    def note(row: object) -> str:
        wrong.append(row)
        return "skip"

    if not text or (line > 1 and text.startswith(_BOM)):
        text = b"\n" + text  # pyarrow refuses no text, and drops this mark at the start of any
    names = [f"column {i}" for i in range(width)]
    for name, position in columns.items():
        names[position] = name
    table = pa.csv.read_csv(
        pa.BufferReader(text),
        pa.csv.ReadOptions(column_names=names, use_threads=False, block_size=len(text) + 1),
        pa.csv.ParseOptions(delimiter="\t", quote_char=False, invalid_row_handler=note),
        pa.csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=list(columns),
            strings_can_be_null=False,
        ),
    )
    return table, not wrong


def _wrong_width(path: Path, line: int, text: bytes, width: int) -> tuple[int, InputError]:
    """Find the first record with another number of columns."""
    rows = [pair for pair in enumerate(text.split(b"\n"), start=line) if pair[1] not in _BLANK]
    record, (number, row) = next(
        (i, pair) for i, pair in enumerate(rows) if pair[1].count(b"\t") + 1 != width
    )
    problem = f"{row.count(9) + 1} columns where the first record has {width}"
    remedy = "every line needs the same columns, with tabs between"
    if TRACK_LINES.match(row):
        remedy = "a file holds one track: cut it before this line"
    return record, InputError(problem, path=path, line=number, remedy=remedy)


def _not_lines(path: Path, line: int, text: bytes) -> InputError | None:
    """Find a carriage return that is no part of a line end, or a line without an end."""
    at, problem = 0, ""
    if text.count(b"\r") != text.count(b"\r\n") and (found := _LONE_RETURN.search(text)):
        at, problem = found.start(), "a carriage return that no line feed follows"
    elif len(text) >= _LONGEST_LINE and b"\n" not in text:
        problem = f"a line of more than {_LONGEST_LINE >> 20} MiB"
    line += text.count(b"\n", 0, at)
    remedy = r"give a file of tab-separated text in lines that end with \n or \r\n"
    return InputError(problem, path=path, line=line, remedy=remedy) if problem else None
