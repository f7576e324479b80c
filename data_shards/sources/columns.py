"""Columns of a table as numbers, text or categories: missing values are an error unless allowed."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_shards.errors import InputError
from data_shards.sources.tables import Table
from data_shards.sources.text_lines import MISSING

_FLOAT = r"^ *[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)? *$"
_INTEGER = r"^ *-?[0-9]+ *$"

_NUMERIC = (
    pa.types.is_string,
    pa.types.is_integer,
    pa.types.is_floating,
    pa.types.is_decimal,
)


@dataclass(frozen=True, eq=False)
class Categories:
    """A column of labels as numbers.

    Attributes:
        codes: int32, shape ``(rows,)``: position in ``names``; -1 where the value is missing.
        names: the distinct labels, sorted as text.
    """

    codes: npt.NDArray[np.int32]
    names: tuple[str, ...]


def numbers(
    table: Table,
    column: str,
    *,
    missing: Literal["error", "nan"] = "error",
    tokens: Sequence[str] = MISSING,
) -> npt.NDArray[np.float64]:
    """Return a column as numbers.

    Args:
        table: the table.
        column: its name.
        missing: "error" refuses missing values, "nan" returns NaN for them.
        tokens: what stands for a missing value in text.

    Returns:
        float64, shape ``(rows,)``; never infinite.

    Raises:
        InputError: no such column; text that is no number; an infinite or a missing value.
    """
    values, absent = _column(table, column, tokens)
    if pa.types.is_string(values.type):
        _check_grammar(table, column, values, absent, _FLOAT, "a number")
        values = pc.utf8_trim_whitespace(pc.if_else(absent, pa.scalar(None, pa.string()), values))
    if not any(is_numeric(values.type) for is_numeric in _NUMERIC):
        raise _not_floats(table, column, values.type)
    try:
        found = np.asarray(pc.cast(values, pa.float64()).to_numpy(zero_copy_only=False))
    except pa.ArrowInvalid:
        raise _not_floats(table, column, values.type) from None
    gone = np.isnan(found)
    if missing == "error" and gone.any():
        raise _missing(table, column, gone, 'pass missing="nan"')
    infinite = np.flatnonzero(np.isinf(found))
    if infinite.size:
        raise table.error(
            int(infinite[0]),
            f"column {column!r} is infinite or too large",
            "give a finite number, or NA where it is not known",
        )
    return found


def integers(table: Table, column: str) -> npt.NDArray[np.int64]:
    """Return a column as int64, shape ``(rows,)``; ``1.0`` and missing values are refused.

    Raises:
        InputError: no such column, or a value that is missing, no integer or beyond 64 bits.
    """
    values, absent = _column(table, column, MISSING)
    gone = np.asarray(absent)
    if gone.any():
        raise _missing(table, column, gone, "read it with numbers(), which has NaN")
    if pa.types.is_string(values.type):
        _check_grammar(table, column, values, absent, _INTEGER, "an integer")
        values = pc.utf8_trim_whitespace(values)
    elif not pa.types.is_integer(values.type):
        raise InputError(
            f"column {column!r} holds {values.type}, not integers",
            path=table.path,
            remedy="read it with numbers()",
        )
    try:
        return np.asarray(pc.cast(values, pa.int64()).to_numpy(), dtype=np.int64)
    except pa.ArrowInvalid:
        limits = np.iinfo(np.int64)
        texts = values.to_pylist()
        row = next(i for i, v in enumerate(texts) if not limits.min <= int(v) <= limits.max)
        raise table.error(
            row, f"{column} is {texts[row]}, beyond 64 bits", "correct the value"
        ) from None


def strings(
    table: Table,
    column: str,
    *,
    missing: Literal["error", "keep"] = "error",
    tokens: Sequence[str] = MISSING,
) -> list[str]:
    """Return a column as text, as it is written (integers and booleans of Parquet as digits).

    Args:
        table: the table.
        column: its name.
        missing: "error" refuses missing values; "keep" returns what is written for them.
        tokens: what stands for a missing value.

    Raises:
        InputError: no such column, a missing value, or a column that is no text.
    """
    values, absent = _column(table, column, tokens)
    values = _as_text(table, column, values)
    gone = np.asarray(absent if missing == "error" else pc.is_null(values))
    if gone.any():
        raise _missing(table, column, gone, 'pass missing="keep" if it is a value like others')
    found: list[str] = values.to_pylist()
    return found


def categories(
    table: Table,
    column: str,
    *,
    missing: Literal["error", "code"] = "error",
    tokens: Sequence[str] = MISSING,
) -> Categories:
    """Return a column of labels as codes into its sorted labels.

    Args:
        table: the table.
        column: its name.
        missing: "error" refuses missing values; "code" gives them the code -1.
        tokens: what stands for a missing value.

    Raises:
        InputError: no such column, a missing value, a column that is no text, or two labels that
            differ only by white space around them.
    """
    values, absent = _column(table, column, tokens)
    values = _as_text(table, column, values)
    gone = np.asarray(absent)
    if missing == "error" and gone.any():
        raise _missing(table, column, gone, 'pass missing="code"')
    encoded = pc.dictionary_encode(pc.if_else(absent, pa.scalar(None, pa.string()), values))
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    labels: list[str] = encoded.dictionary.to_pylist()
    _refuse_twins(table, column, labels)
    names = tuple(sorted(labels))
    rank = {name: code for code, name in enumerate(names)}
    order = np.array([*(rank[label] for label in labels), -1], dtype=np.int32)
    return Categories(order[np.asarray(encoded.indices.fill_null(len(labels)))], names)


def _column(table: Table, column: str, tokens: Sequence[str]) -> tuple[Any, Any]:
    """Return one array of a column, and which values are missing."""
    if column not in table.columns:
        near = difflib.get_close_matches(column, table.columns, n=1, cutoff=0.5)
        known = ", ".join(table.columns[:12]) + (", ..." if len(table.columns) > 12 else "")
        raise InputError(
            f"no column {column!r}",
            path=table.path,
            remedy=f"did you mean {near[0]!r}?" if near else f"the columns are {known}",
        )
    values = table.data.column(column).combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_large_string(values.type) or pa.types.is_null(values.type):
        values = values.cast(pa.string())
    if pa.types.is_string(values.type):
        absent = pc.is_in(values, value_set=pa.array([*tokens, None], pa.string()))
    else:
        absent = pc.is_null(values, nan_is_null=True)
    return values, absent


def _as_text(table: Table, column: str, values: Any) -> Any:
    kind = values.type
    if pa.types.is_string(kind):
        return values
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return values.cast(pa.string())
    raise InputError(
        f"column {column!r} holds {kind}, not text",
        path=table.path,
        remedy="give a column of labels",
    )


def _check_grammar(
    table: Table, column: str, values: Any, absent: Any, grammar: str, what: str
) -> None:
    """Refuse text that is neither missing nor of the form."""
    fits = np.asarray(pc.or_(absent, pc.match_substring_regex(values, grammar).fill_null(True)))
    if fits.all():
        return
    row = int(np.argmin(fits))
    raise table.error(
        row,
        f"{column} is {values[row].as_py()!r}, not {what}",
        f"correct the value; for what is missing write one of {', '.join(MISSING[1:])} or nothing",
    )


def _not_floats(table: Table, column: str, kind: pa.DataType) -> InputError:
    return InputError(
        f"column {column!r} ({kind}) can't be read as float64",
        path=table.path,
        remedy="give a column of numbers; integers above 2^53 are read by integers()",
    )


def _missing(table: Table, column: str, gone: npt.NDArray[np.bool_], remedy: str) -> InputError:
    row, count = int(np.argmax(gone)), int(gone.sum())
    more = f" (and {count - 1:,} more)" if count > 1 else ""
    return table.error(row, f"{column} is missing{more}", f"fill the value in, or {remedy}")


def _refuse_twins(table: Table, column: str, labels: list[str]) -> None:
    bare: dict[str, str] = {}
    for label in labels:
        twin = bare.setdefault(label.strip(), label)
        if twin != label:
            raise InputError(
                f"labels {twin!r} and {label!r} of column {column!r} differ only by white space",
                path=table.path,
                remedy="write them alike",
            )
