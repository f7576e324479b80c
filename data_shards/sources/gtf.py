"""Gene models from GTF (GTF2, Ensembl, GENCODE): features with the names of their genes.

The file counts from 1 with both ends in; everything returned is 0-based and half-open.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.sources.intervals import Intervals, concatenate
from data_shards.sources.tabular import (
    BLOCK_BYTES,
    RecordError,
    check_bounds,
    contig_numbers,
    convert,
    first_record,
    integers,
    numbers,
    read_blocks,
    strands,
)

# Attribute -> the value, or values, of which a line must have one.
Where = Mapping[str, str | Sequence[str]]

_WIDTH = 9
_COLUMNS = {"contig": 0, "feature": 2, "start": 3, "end": 4, "score": 5, "strand": 6, "text": 8}
_LAYOUT = "columns are contig, source, feature, start, end, score, strand, frame, attributes"
# An attribute is a name, white space, and a value in quotes (then with any sign) or without.
_VALUE = r'(?:"[^"]*"|[^\s";]+)'
_ATTRIBUTE = rf'\s*[^\s";=]+\s+{_VALUE}\s*'
_WHOLE = rf"^(?:{_ATTRIBUTE};)*(?:{_ATTRIBUTE})?\s*$"


@dataclass(frozen=True)
class Features:
    """Features of one kind, in the order of the file. All arrays have shape (features,).

    Attributes:
        intervals: where they are, with strand and score.
        gene_id: string, never null.
        transcript_id: string; null for genes, and only for them.
        gene_name: string, the attribute gene_name, else gene; null where there is neither.
        biotype: string, the attribute gene_biotype, else gene_type; null where there is neither.
    """

    intervals: Intervals
    gene_id: pa.StringArray
    transcript_id: pa.StringArray
    gene_name: pa.StringArray
    biotype: pa.StringArray

    def __len__(self) -> int:
        return len(self.intervals)

    def take(self, keep: npt.NDArray[np.bool_]) -> Features:
        """Keep the features where the mask is true."""
        mask = pa.array(keep)
        return Features(
            self.intervals.take(keep),
            self.gene_id.filter(mask),
            self.transcript_id.filter(mask),
            self.gene_name.filter(mask),
            self.biotype.filter(mask),
        )


def stream_features(
    path: Path,
    contigs: Contigs,
    naming: Naming,
    feature: str,
    where: Where | None = None,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[Features]:
    """Read the lines of one feature from a GTF file, block by block.

    Only the lines that are chosen by feature and attributes are checked beyond their column count,
    so a file may have other lines on contigs that the reference lacks.

    Args:
        path: plain or gzip file; ``#`` lines and blank lines are passed over.
        contigs: of the reference.
        naming: how this file names them.
        feature: value of column 3: gene, transcript, exon, CDS, ...
        where: for each attribute the value, or values, of which a line must have one. An
            attribute that a line has several times (tag) passes by any of them.
        block_bytes: text read at a time, in bytes.

    Yields:
        One feature a line, in file order. Where an attribute is there twice the first one counts.

    Raises:
        InputError: names file and line of: a wrong column count, attributes that can't be read,
            a missing or empty gene_id (or transcript_id, unless feature is gene), a position that
            is no number, an unknown contig, start < 1, start > end, end beyond the contig, a bad
            strand or score; or the file has no such line. It is always the first faulty line.
    """
    if where and not all(where.values()):
        raise ValueError(f"no value to choose by: {where}")
    line, width = first_record(path)
    if width != _WIDTH:
        raise InputError(
            f"{width} tab-separated column(s) where GTF has {_WIDTH}",
            path=path,
            line=line,
            remedy=_LAYOUT,
        )
    seen: dict[str, None] = {}
    any_found = False
    for block in read_blocks(path, line, width, _COLUMNS, block_bytes):
        found = convert(block, lambda table: _chosen(table, contigs, naming, feature, where or {}))
        if len(found):
            any_found = True
            yield found
        elif not any_found:
            seen |= dict.fromkeys(pc.unique(block.table["feature"]).to_pylist())
    if not any_found:
        raise _none_found(path, feature, where or {}, list(seen))


def read_features(
    path: Path, contigs: Contigs, naming: Naming, feature: str, where: Where | None = None
) -> Features:
    """Read all lines of one feature; see :func:`stream_features`, which takes less memory."""
    parts = list(stream_features(path, contigs, naming, feature, where))
    return Features(
        concatenate([part.intervals for part in parts]),
        pa.concat_arrays([part.gene_id for part in parts]),
        pa.concat_arrays([part.transcript_id for part in parts]),
        pa.concat_arrays([part.gene_name for part in parts]),
        pa.concat_arrays([part.biotype for part in parts]),
    )


def genes(path: Path, contigs: Contigs, naming: Naming, where: Where | None = None) -> Features:
    """Read the genes of a GTF file, as :func:`read_features`."""
    return read_features(path, contigs, naming, "gene", where)


def transcripts(
    path: Path, contigs: Contigs, naming: Naming, where: Where | None = None
) -> Features:
    """Read the transcripts of a GTF file, introns included, as :func:`read_features`."""
    return read_features(path, contigs, naming, "transcript", where)


def exons(path: Path, contigs: Contigs, naming: Naming, where: Where | None = None) -> Features:
    """Read the exons of a GTF file, as :func:`read_features`: one for each of its transcripts."""
    return read_features(path, contigs, naming, "exon", where)


def tss(features: Features) -> Features:
    """Shrink genes or transcripts to their start sites.

    Args:
        features: all with a strand.

    Returns:
        As many features of one base: the first of those on +, the last of those on -. Start
        sites that several transcripts share are there several times.

    Raises:
        InputError: names the gene of a feature without a strand.
    """
    whole = features.intervals
    if (unknown := np.flatnonzero(whole.strand == 0)).size:
        raise InputError(
            f"gene {features.gene_id[int(unknown[0])].as_py()!r} has no strand",
            remedy="take features without a strand out: they have no start site",
        )
    base = np.where(whole.strand > 0, whole.start, whole.end - 1)
    return replace(features, intervals=replace(whole, start=base, end=base + 1))


def _chosen(
    table: pa.Table, contigs: Contigs, naming: Naming, feature: str, where: Where
) -> Features:
    """Convert the lines that feature and attributes choose."""
    mask = pc.equal(table["feature"], feature)
    rows = np.flatnonzero(mask.to_numpy())
    chosen = table.filter(mask)
    try:
        readable = pc.match_substring_regex(chosen["text"], _WHOLE)
        if (wrong := pc.index(readable, value=False).as_py()) >= 0:
            raise _unreadable(wrong, chosen["text"][wrong].as_py())
        for name, values in where.items():
            mask = pc.match_substring_regex(chosen["text"], _having(name, values))
            rows = rows[mask.to_numpy()]
            chosen = chosen.filter(mask)
        return _features(chosen, contigs, naming, feature)
    except RecordError as fault:
        record = int(rows[fault.record])
        raise RecordError(record, fault.problem, fault.remedy) from None


def _features(table: pa.Table, contigs: Contigs, naming: Naming, feature: str) -> Features:
    start = integers(table["start"], "start", _LAYOUT)
    end = integers(table["end"], "end", _LAYOUT)
    contig = contig_numbers(table["contig"], contigs, naming)
    check_bounds(contig, start, end, contigs, base=1)
    strand = strands(table["strand"])
    score = numbers(table["score"], "score", _LAYOUT)
    text = table["text"].combine_chunks()
    transcript_id = pa.nulls(len(text), pa.string())
    if feature != "gene":
        transcript_id = _required(text, "transcript_id")
    return Features(
        Intervals(contig, start - 1, end, strand, score),
        _required(text, "gene_id"),
        transcript_id,
        pc.coalesce(_attribute(text, "gene_name"), _attribute(text, "gene")),
        pc.coalesce(_attribute(text, "gene_biotype"), _attribute(text, "gene_type")),
    )


def _attribute(text: pa.StringArray, name: str) -> pa.StringArray:
    """Return the first value of an attribute; null where it is missing or empty."""
    value = r'(?:"(?P<quoted>[^"]*)"|(?P<bare>[^\s";]+))'
    pattern = rf"^(?:{_ATTRIBUTE};)*?\s*{re.escape(name)}\s+{value}\s*(?:;|$)"
    found = pc.extract_regex(text, pattern)
    # A group that took no part is empty.
    both = pc.binary_join_element_wise(found.field("quoted"), found.field("bare"), "")
    stated = pc.and_(pc.is_valid(found), pc.not_equal(both, ""))
    return pc.if_else(stated, both, pa.scalar(None, pa.string()))


def _required(text: pa.StringArray, name: str) -> pa.StringArray:
    values = _attribute(text, name)
    if values.null_count:
        record = pc.index(pc.is_valid(values), value=False).as_py()
        remedy = f'add it: {name} "...";'
        raise RecordError(record, f"attribute {name} is missing or empty", remedy)
    return values


def _having(name: str, values: str | Sequence[str]) -> str:
    """Return the pattern of attributes in which this one has one of these values."""
    alternatives = [values] if isinstance(values, str) else values
    either = "|".join(re.escape(value) for value in alternatives)
    attribute = rf'{re.escape(name)}\s+(?:"(?:{either})"|(?:{either}))'
    return rf"^(?:{_ATTRIBUTE};)*?\s*{attribute}\s*(?:;|$)"


def _unreadable(record: int, text: str) -> RecordError:
    shown = text if len(text) <= 60 else text[:60] + "..."
    remedy = 'attributes are written as: gene_id "YAL001C"; transcript_id "YAL001C_mRNA";'
    if re.match(r"[^\s;]+=", text):
        remedy = f"this looks like GFF3: convert it to GTF, where {remedy}"
    return RecordError(record, f"attributes can't be read: {shown!r}", remedy)


def _none_found(path: Path, feature: str, where: Where, seen: Sequence[str]) -> InputError:
    if feature not in seen:
        return InputError(
            f"no line of feature {feature!r} in the file",
            path=path,
            remedy=f"the file has: {', '.join(sorted(seen)[:20])}",
        )
    rule = " and ".join(f"{name} = {values!r}" for name, values in where.items())
    return InputError(
        f"no line of feature {feature!r} has {rule}",
        path=path,
        remedy="compare names and values with the attributes in column 9",
    )
