"""A description that can't be meant is refused, with the key and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.build.description import read_description
from data_shards.build.rows_spec import RowsSpec
from data_shards.errors import InputError

GOOD = """
kind = "rows"
[samples]
sheet = "samples.tsv"
id = "name"
[[matrices]]
name = "expression"
file = "x.gct"
[[columns]]
name = "subtype"
columns = ["subtype"]
kind = "class"
[splits]
by = "group"
column = "patient"
"""


def test_a_description_of_rows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(GOOD)
    spec = read_description(path)
    assert isinstance(spec, RowsSpec)
    assert spec.matrices[0].role == "input"
    assert spec.columns[0].role == "target"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('kind = "rows"', 'kind = "row"', "kind = 'row'"),
        ('id = "name"', "", "samples.id is needed to match the sheet by name"),
        ('sheet = "samples.tsv"\nid = "name"', "", "reads a column, but samples.sheet"),
        ('name = "subtype"', 'name = "expression"', "two fields are called 'expression'"),
        ('name = "subtype"', 'name = "id"', "a field can't be called 'id'"),
        ('columns = ["subtype"]', 'columns = ["a", "b"]', "takes one column"),
        ('columns = ["subtype"]', "", "give columns or by_file"),
        ('column = "patient"', "", 'splits.by = "group" needs splits.column'),
        ('column = "patient"', 'column = "p"\nvalid = 0.5\ntest = 0.5', "must leave something"),
        ('by = "group"', 'by = "kfold"\nfolds = 4\nfold = 4', "is none of 4 folds"),
        ('by = "group"', 'by = "homology"', 'splits.by = "homology" needs splits.field'),
        ('file = "x.gct"', 'file = "x.gct"\nnormalize = ["log1p"]', "unknown key"),
        ("[splits]", '[[arrays]]\nname = "a"\nfile = "a.npy"\n[splits]', "has no sample names"),
    ],
)
def test_what_cant_be_meant_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in GOOD
    path = tmp_path / "x.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(InputError) as caught:
        read_description(path)
    assert problem in str(caught.value)
    assert str(path) in str(caught.value)
