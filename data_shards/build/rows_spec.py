"""What a person writes to describe a rows data set: samples that are materialised, field by field.

The file says which files and columns make up a sample, how files are matched (by the samples' names
or by position), how numbers are normalised and how samples are split. ``docs/data.md`` has an
annotated example.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from data_shards.build.homology import Measure
from data_shards.build.normalise import Step
from data_shards.documents import Document
from data_shards.sources.matrix import MatrixFormat, SampleAxis
from data_shards.store.schema import Role

FieldName = r"^[A-Za-z][A-Za-z0-9_]*$"
FloatType = Literal["float32", "float16"]
Missing = Literal["error", "keep"]


class SamplesSpec(Document):
    """Who the samples are, and how the files' rows are matched."""

    sheet: str | None = Field(None, description="table with one line a sample, relative to --from")
    header: tuple[str, ...] = Field((), description="column names, if the sheet has no header line")
    id: str | None = Field(None, description="the sheet's column of sample names")
    match: Literal["name", "position"] = Field(
        "name", description='"position": sample i of every file is sample i'
    )
    unmatched: Literal["error", "drop"] = Field(
        "error", description='"drop" leaves out samples that some file lacks, and says how many'
    )

    @model_validator(mode="after")
    def _sheet_has_names(self) -> Self:
        if self.sheet is not None and self.match == "name" and self.id is None:
            raise ValueError(
                'samples.id is needed to match the sheet by name (or match="position")'
            )
        if self.sheet is None and (self.id is not None or self.header):
            raise ValueError("samples.id and samples.header are of a sheet, and there is none")
        return self


class MatrixSpec(Document):
    """A dense or sparse matrix of numbers with named samples and features."""

    name: str = Field(pattern=FieldName)
    file: str
    role: Role = "input"
    format: MatrixFormat | None = Field(None, description="default: by extension")
    samples: SampleAxis | None = Field(
        None, description='which axis of a text or Parquet matrix is the samples: "rows", "columns"'
    )
    header: Literal["full", "short"] | None = Field(
        None, description='of a text matrix: "short" has no name over the first column, as R writes'
    )
    names: str | None = Field(None, description="of a Parquet matrix: the column of row names")
    layer: str | None = Field(None, description="of an h5ad: a layer, or raw.X; default X")
    duplicates: Literal["error", "keep"] = Field(
        "error", description='"keep" allows features of one name (probe sets)'
    )
    features: str | None = Field(
        None, description="file with one feature name a line: keep these, in this order"
    )
    normalise: tuple[Step, ...] = Field((), description="in this order, fitted on training only")
    missing: Missing = Field("error", description='"keep" stores NaN')
    dtype: FloatType | None = Field(None, description="default: float32, integers as they are")


class ArraySpec(Document):
    """An array without names: .npy, .npz, HDF5, MATLAB; matched by position."""

    name: str = Field(pattern=FieldName)
    file: str
    role: Role = "input"
    array: str | None = Field(None, description="its name in the file, if there are several")
    sample_axis: int = Field(0, description="which axis is the samples")
    onehot: str | None = Field(
        None, description='channels of one-hot DNA, as "AGCT": stored as codes'
    )
    channel_axis: int = Field(1, description="axis of the channels in a sample, samples first")
    bits: bool = Field(False, description="zeros and ones, stored as bits")
    normalise: tuple[Step, ...] = ()
    missing: Missing = "error"
    dtype: FloatType | None = None

    @model_validator(mode="after")
    def _one_encoding(self) -> Self:
        if self.bits and (self.onehot is not None or self.normalise or self.dtype is not None):
            raise ValueError("bits are neither one-hot, normalised, nor of another dtype")
        if self.onehot is not None and (self.normalise or self.dtype is not None):
            raise ValueError("codes are neither normalised nor of another dtype")
        return self


class SequenceSpec(Document):
    """Sequences of any length: FASTA records, or a column of the sheet."""

    name: str = Field(pattern=FieldName)
    role: Role = "input"
    fasta: tuple[str, ...] = Field((), description="files; a record is a sample")
    column: str | None = Field(None, description="of the sheet")
    alphabet: Literal["dna", "rna"] = Field("dna", description='"rna" reads U as T')
    max_length: int | None = Field(None, ge=1, description="longer sequences are an error")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.fasta) == (self.column is not None):
            raise ValueError(f"sequence {self.name!r}: give fasta or column, and not both")
        return self


class ColumnSpec(Document):
    """Columns of the sheet as a field, or a label that a sample has from its FASTA file."""

    name: str = Field(pattern=FieldName)
    role: Role = "target"
    columns: tuple[str, ...] = Field((), description="of the sheet")
    by_file: dict[str, str] = Field(
        default_factory=dict, description="FASTA file -> value for all of its records"
    )
    kind: Literal["number", "class", "labels"] = Field(
        "number",
        description='"class": any text, coded; "labels": zeros and ones, stored as bits',
    )
    missing: Missing = Field("error", description='"keep" stores NaN; numbers only')

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if bool(self.columns) == bool(self.by_file):
            raise ValueError(f"column field {self.name!r}: give columns or by_file, and not both")
        if self.kind == "class" and len(self.columns) > 1:
            raise ValueError(f"class field {self.name!r} takes one column")
        if self.missing == "keep" and self.kind != "number":
            raise ValueError(f"field {self.name!r}: only numbers can be missing")
        return self


class RowSplitSpec(Document):
    """How samples are split, before anything else is done with them."""

    by: Literal["random", "group", "column", "kfold", "homology"]
    column: str | None = Field(None, description="of the sheet: groups, or names of splits")
    prefix: int | None = Field(
        None, ge=1, description="the group is this many first characters (TCGA patient: 12)"
    )
    valid: float = Field(0.1, gt=0, lt=1, description="fraction")
    test: float = Field(0.1, gt=0, lt=1, description="fraction")
    stratify: str | None = Field(None, description="class column whose proportions are kept")
    folds: int = Field(5, ge=3)
    fold: int = Field(0, ge=0, description="the fold that is the test split")
    field: str | None = Field(None, description="sequence field whose homologues stay together")
    kmer: int = Field(8, ge=3, le=31)
    threshold: float = Field(
        0.1, gt=0, le=1, description="similarity of k-mers from which two are homologues"
    )
    measure: Measure = Field(
        "jaccard", description='"containment": shared k-mers over those of the shorter sequence'
    )
    seed: int = 0

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.by in ("group", "column") and self.column is None:
            raise ValueError(f'splits.by = "{self.by}" needs splits.column')
        if self.by == "homology" and self.field is None:
            raise ValueError('splits.by = "homology" needs splits.field')
        if self.valid + self.test >= 1:
            raise ValueError("splits.valid + splits.test must leave something for training")
        if self.by == "kfold" and self.fold >= self.folds:
            raise ValueError(f"splits.fold {self.fold} is none of {self.folds} folds (from 0)")
        return self


class RowsSpec(Document):
    """A rows data set, described."""

    kind: Literal["rows"]
    samples: SamplesSpec = SamplesSpec()
    matrices: tuple[MatrixSpec, ...] = ()
    arrays: tuple[ArraySpec, ...] = ()
    sequences: tuple[SequenceSpec, ...] = ()
    columns: tuple[ColumnSpec, ...] = ()
    splits: RowSplitSpec

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        names = [
            *(field.name for field in self.matrices),
            *(field.name for field in self.arrays),
            *(field.name for field in self.sequences),
            *(field.name for field in self.columns),
        ]
        if not names:
            raise ValueError(
                "no field: give [[matrices]], [[arrays]], [[sequences]] or [[columns]]"
            )
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two fields are called {name!r}")
            if name in ("split", "id", "group"):
                raise ValueError(f"a field can't be called {name!r}")
        needs = [field.name for field in self.columns if field.columns]
        needs += [field.name for field in self.sequences if field.column]
        if needs and self.samples.sheet is None:
            raise ValueError(f"field {needs[0]!r} reads a column, but samples.sheet is not given")
        if self.arrays and self.samples.match == "name":
            raise ValueError(
                f'array {self.arrays[0].name!r} has no sample names: set samples.match = "position"'
            )
        if self.splits.field is not None and self.splits.field not in [
            field.name for field in self.sequences
        ]:
            raise ValueError(f"splits.field {self.splits.field!r} is no sequence field")
        return self
