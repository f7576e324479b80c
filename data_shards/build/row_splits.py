"""Which split each sample of a rows data set is in, as its description says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from data_shards.build.homology import homology_groups
from data_shards.build.matching import Matched
from data_shards.build.row_fields import RowField
from data_shards.build.rows_spec import RowSplitSpec, RowsSpec
from data_shards.build.sequence_field import SequenceField
from data_shards.build.splits import (
    balanced_split,
    fold_split,
    given_split,
    random_split,
)
from data_shards.errors import InputError
from data_shards.sources.columns import strings
from data_shards.sources.tables import Table

SHEET = "the sheet"
"""How the sheet is called among the sources that are matched."""


@dataclass(frozen=True)
class Assigned:
    """Where the samples go; arrays of shape (samples,).

    Attributes:
        codes: uint8, index into ``SPLITS``.
        groups: int64, number of the sample's group, or None if each sample is on its own.
    """

    codes: npt.NDArray[np.uint8]
    groups: npt.NDArray[np.int64] | None


def split_rows(
    spec: RowsSpec,
    fields: Sequence[RowField],
    table: Table | None,
    matched: Matched,
    spec_path: Path | str,
) -> Assigned:
    """Split the samples.

    Args:
        spec: the description.
        fields: the opened sources.
        table: the sheet, if there is one.
        matched: the samples, and where each source has them.
        spec_path: named in messages about the description.

    Returns:
        The split of each sample, and its group where the rule keeps groups together.

    Raises:
        InputError: the rule can't be applied to these samples; says why.
    """
    rule = spec.splits
    names = list(matched.names) or [str(row) for row in range(matched.count)]
    classes = _column(rule.stratify, table, matched, spec_path) if rule.stratify else None
    if rule.by == "column":
        assert rule.column is not None  # the description's own check
        return Assigned(given_split(_column(rule.column, table, matched, spec_path)), None)
    groups = _groups(rule, names, fields, table, matched, spec_path)
    shown = [group[: rule.prefix] for group in groups]
    number = np.unique(shown, return_inverse=True)[1].astype(np.int64)
    kept = number if len(set(shown)) < len(shown) else None
    if rule.by == "random" and classes is None:
        codes = random_split(
            groups,
            valid=rule.valid,
            test=rule.test,
            seed=rule.seed,
            group_prefix=rule.prefix,
        )
    elif rule.by == "kfold":
        codes = fold_split(
            groups,
            folds=rule.folds,
            fold=rule.fold,
            seed=rule.seed,
            classes=classes,
            group_prefix=rule.prefix,
        )
    else:
        codes = balanced_split(
            groups,
            valid=rule.valid,
            test=rule.test,
            seed=rule.seed,
            classes=classes,
            group_prefix=rule.prefix,
        )
    return Assigned(codes, kept)


def _groups(
    rule: RowSplitSpec,
    names: list[str],
    fields: Sequence[RowField],
    table: Table | None,
    matched: Matched,
    spec_path: Path | str,
) -> list[str]:
    """Name the group of each sample; without a rule for groups each is a group of its own."""
    if rule.by == "homology":
        field = next(f for f in fields if f.name == rule.field)
        assert isinstance(field, SequenceField)  # the description's own check
        codes = np.concatenate([block.codes for block in field.records()])
        rows = matched.rows[field.name]
        starts = np.concatenate([[0], np.cumsum(field.lengths)[:-1]]).astype(np.int64)
        groups = homology_groups(
            codes,
            starts[rows],
            field.lengths[rows],
            k=rule.kmer,
            threshold=rule.threshold,
            measure=rule.measure,
        )
        return [str(group) for group in groups]
    if rule.column is not None:
        return _column(rule.column, table, matched, spec_path)
    return names


def _column(column: str, table: Table | None, matched: Matched, spec_path: Path | str) -> list[str]:
    """Read a column of the sheet, a value for each sample."""
    if table is None:
        raise InputError(
            f"the split uses column {column!r}, but there is no sheet",
            path=spec_path,
            remedy="set samples.sheet",
        )
    values = strings(table, column)
    return [values[row] for row in matched.rows[SHEET]]
