"""PCL, Stanford's tables of microarrays: rows are features, columns are samples."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pyarrow as pa

from data_shards.errors import InputError
from data_shards.sources.matrix import MatrixSource, TextDtype
from data_shards.sources.tables import Table
from data_shards.sources.text_lines import fields_of, text_lines
from data_shards.sources.text_matrix import TextLayout, open_rows

_TAB = b"\t"
_TEXT_COLUMNS = (("NAME",), ("GWEIGHT",), ("NAME", "GWEIGHT"))
_WEIGHTS = "EWEIGHT"


def open_pcl(path: Path, dtype: TextDtype, keep_duplicates: bool) -> MatrixSource:
    """Open a PCL file: an identifier, maybe NAME and GWEIGHT, then a column for each sample.

    Args:
        path: plain or gzip text.
        dtype: of the values.
        keep_duplicates: accept repeated names of features.

    Returns:
        The matrix. ``feature_table`` holds the columns NAME and GWEIGHT, ``sample_table`` the row
        EWEIGHT (second line), where the file has them; all as text.

    Raises:
        InputError: what :func:`data_shards.sources.text_matrix.open_rows` refuses; a row EWEIGHT
            that isn't the second line.
    """
    lines = list(islice(text_lines(path), 2))
    if not lines or not lines[0]:
        raise InputError(
            "the first line is empty", path=path, line=1, remedy="begin with the header"
        )
    header = fields_of(path, 1, lines[0], _TAB)
    texts = max(
        (len(t) for t in _TEXT_COLUMNS if tuple(h.upper() for h in header[1 : 1 + len(t)]) == t),
        default=0,
    )
    # A column has its standard name whatever case the file writes.
    lead = (header[0], *(name.upper() for name in header[1 : 1 + texts]))
    weights = None
    first_line = 2
    if len(lines) > 1 and lines[1].split(_TAB, 1)[0].strip(b'"') == _WEIGHTS.encode():
        found = fields_of(path, 2, lines[1], _TAB)
        if len(found) != len(header):
            raise InputError(
                f"{len(found)} columns where the header has {len(header)}",
                path=path,
                line=2,
                remedy="give every sample a weight in the row EWEIGHT",
            )
        data = pa.table({_WEIGHTS: pa.array(found[len(lead) :], pa.string())})
        weights, first_line = Table(path, data), 3
    layout = TextLayout(_TAB, lead, tuple(header[len(lead) :]), 1, first_line)
    matrix = open_rows(
        path, layout, "columns", dtype, keep_duplicates=keep_duplicates, column_table=weights
    )
    if _WEIGHTS in matrix.features:
        raise InputError(
            "a row EWEIGHT that is not the second line",
            path=path,
            remedy="move it to line 2: there it holds the weights of the samples",
        )
    return matrix
