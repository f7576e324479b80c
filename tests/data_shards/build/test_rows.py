"""Rows data sets from many kinds of files hold what pandas and numpy see in those files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from data_shards.batches import Reading, read_batch
from data_shards.build.description import read_description
from data_shards.build.rows_plan import RowsPlan, plan_rows
from data_shards.build.rows_spec import RowsSpec
from data_shards.build.run import build
from data_shards.check import check
from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from data_shards.order import sample_order
from data_shards.sequence import decode

SAMPLES = 60
SPEC = """
kind = "rows"
[samples]
sheet = "samples.tsv"
id = "name"
[[matrices]]
name = "expression"
file = "expression.tsv"
samples = "columns"
features = "genes.txt"
[[sequences]]
name = "site"
column = "site"
[[sequences]]
name = "promoter"
fasta = ["a.fa", "b.fa"]
[[columns]]
name = "subtype"
columns = ["subtype"]
kind = "class"
[[columns]]
name = "labels"
columns = ["x", "y"]
kind = "labels"
[[columns]]
name = "age"
columns = ["age"]
missing = "keep"
[[columns]]
name = "file"
by_file = { "a.fa" = "0", "b.fa" = "1" }
kind = "labels"
[splits]
by = "group"
column = "patient"
prefix = 3
valid = 0.2
test = 0.2
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A sheet, a matrix of genes x samples in another order, and FASTA files in a third."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "raw"
    folder.mkdir()
    names = [f"s{i:02d}" for i in range(SAMPLES)]
    sheet = pd.DataFrame(
        {
            "name": names,
            "patient": [f"p{i // 3:02d}x{i % 3}" for i in range(SAMPLES)],
            "subtype": rng.choice(["basal", "luminal"], SAMPLES),
            "x": rng.integers(0, 2, SAMPLES),
            "y": rng.integers(0, 2, SAMPLES),
            "age": [f"{40 + i}" if i % 7 else "NA" for i in range(SAMPLES)],
            "site": ["".join(rng.choice(list("ACGT"), 5 + i % 4)) for i in range(SAMPLES)],
        }
    )
    sheet.to_csv(folder / "samples.tsv", sep="\t", index=False)
    matrix = pd.DataFrame(
        rng.normal(size=(30, SAMPLES)).round(3),
        index=[f"g{i}" for i in range(30)],
        columns=list(rng.permutation(names)),
    )
    matrix.to_csv(folder / "expression.tsv", sep="\t", index_label="gene")
    (folder / "genes.txt").write_text("g7\ng2\ng29\n")
    shuffled = list(rng.permutation(names))
    for file, part in (("a.fa", shuffled[:25]), ("b.fa", shuffled[25:])):
        texts = ["".join(rng.choice(list("ACGT"), int(rng.integers(3, 40)))) for _ in part]
        records = [f">{name}\n{text}\n" for name, text in zip(part, texts, strict=True)]
        (folder / file).write_text("".join(records))
    (folder / "rows.toml").write_text(SPEC)
    return folder


def plan(folder: Path, shard_bytes: int = 4096) -> RowsPlan:
    spec = read_description(folder / "rows.toml")
    assert isinstance(spec, RowsSpec)
    return plan_rows(
        spec, folder, recipe="", spec_path=folder / "rows.toml", shard_bytes=shard_bytes
    )


def change(folder: Path, old: str, new: str) -> None:
    path = folder / "rows.toml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def names_of(data: ShardedDataset) -> list[str]:
    found = data.ragged("id", np.arange(data.schema.samples))
    ends = np.cumsum(found.lengths)
    return [
        bytes(found.values[end - length : end]).decode()
        for end, length in zip(ends, found.lengths, strict=True)
    ]


def test_every_field_of_every_sample_is_what_the_files_say(
    raw: Path, tmp_path: Path, ray_cluster: None
) -> None:
    build(plan(raw), tmp_path / "x.zarr", command="test")
    data = ShardedDataset(tmp_path / "x.zarr")
    names, rows = names_of(data), np.arange(SAMPLES)
    sheet = pd.read_csv(raw / "samples.tsv", sep="\t", index_col="name").loc[names]
    matrix = pd.read_csv(raw / "expression.tsv", sep="\t", index_col="gene")
    expected = matrix.loc[["g7", "g2", "g29"], names].to_numpy().T
    assert np.allclose(data.gather("expression", rows), expected, atol=1e-6)
    classes = data.schema.field("subtype").names
    assert [classes[i] for i in data.gather("subtype", rows)] == sheet["subtype"].tolist()
    assert np.array_equal(data.labels(rows), sheet[["x", "y"]].to_numpy())
    assert np.array_equal(
        data.gather("age", rows)[:, 0], sheet["age"].to_numpy(np.float32), equal_nan=True
    )
    for name in ("site", "promoter"):
        lengths = data.ragged(name, rows).lengths
        read = [
            decode(codes[:length])
            for codes, length in zip(data.gather(name, rows), lengths, strict=True)
        ]
        if name == "site":
            assert read == sheet["site"].tolist()
        else:
            text = (raw / "a.fa").read_text() + (raw / "b.fa").read_text()
            records = dict(record.split("\n")[:2] for record in text.split(">")[1:])
            assert read == [records[sample] for sample in names]
    reading = Reading("test", 12, ("promoter", "promoter.mask", "expression", "subtype"))
    batch = read_batch(data, sample_order(12, 0, "none"), reading, 0)
    test = data.schema.split("test")
    for codes, mask, name in zip(
        batch["promoter"], batch["promoter.mask"], names[test.start :], strict=False
    ):
        assert decode(codes[mask].numpy()) == records[name]
    in_b = [f">{sample}\n" in (raw / "b.fa").read_text() for sample in names]
    assert data.bits("file", rows)[:, 0].tolist() == in_b
    assert not [finding for finding in check(tmp_path / "x.zarr") if not finding.ok]


def test_groups_stay_together_and_no_sample_is_lost(raw: Path) -> None:
    made = plan(raw)
    sheet = pd.read_csv(raw / "samples.tsv", sep="\t", index_col="name")
    assert sorted(made.names) == sorted(sheet.index)
    patients = [
        {sheet.loc[name, "patient"][:3] for name in made.names[split.start : split.stop]}
        for split in made.splits.values()
    ]
    assert not patients[0] & patients[1]
    assert not patients[1] & patients[2]
    assert not patients[0] & patients[2]
    assert [split.samples for split in made.splits.values()] == [36, 12, 12]


def test_numbers_are_normalised_by_the_training_split_alone(
    raw: Path, tmp_path: Path, ray_cluster: None
) -> None:
    change(raw, 'features = "genes.txt"', 'features = "genes.txt"\nnormalise = ["zscore"]')
    build(plan(raw), tmp_path / "x.zarr", command="test")
    data = ShardedDataset(tmp_path / "x.zarr")
    names, train = names_of(data), data.schema.split("train")
    matrix = pd.read_csv(raw / "expression.tsv", sep="\t", index_col="gene")
    values = matrix.loc[["g7", "g2", "g29"], names].to_numpy().T
    fitted = values[train.start : train.stop]
    expected = (values - fitted.mean(axis=0)) / fitted.std(axis=0)
    found = data.gather("expression", np.arange(SAMPLES))
    assert np.allclose(found, expected, atol=1e-5)
    assert data.schema.field("expression").normalise is not None


@pytest.mark.parametrize("stored", [sparse.csr_matrix, sparse.csc_matrix])
def test_sparse_counts_stay_sparse(stored: type, tmp_path: Path, ray_cluster: None) -> None:
    import anndata

    raw = tmp_path / "raw"
    raw.mkdir()
    rng = np.random.default_rng(1)
    counts = sparse.random_array((300, 80), density=0.1, rng=rng, format="csr")
    counts.data = rng.integers(1, 900, counts.nnz).astype(np.float32)
    cells = anndata.AnnData(stored(counts))
    cells.obs_names = [f"cell{i}" for i in range(300)]
    cells.var_names = [f"g{i}" for i in range(80)]
    cells.write_h5ad(raw / "cells.h5ad")
    (raw / "rows.toml").write_text(
        'kind = "rows"\n[[matrices]]\nname = "counts"\nfile = "cells.h5ad"\n'
        '[splits]\nby = "random"\nvalid = 0.2\ntest = 0.2\n'
    )
    build(plan(raw), tmp_path / "x.zarr", command="test")
    data = ShardedDataset(tmp_path / "x.zarr")
    assert data.schema.field("counts").kind == "sparse"
    order = [int(name.removeprefix("cell")) for name in names_of(data)]
    assert np.array_equal(data.gather("counts", np.arange(300)), counts.toarray()[order])
    assert not [finding for finding in check(tmp_path / "x.zarr") if not finding.ok]


def test_arrays_go_by_position(tmp_path: Path, ray_cluster: None) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    rng = np.random.default_rng(2)
    codes, labels = rng.integers(0, 4, (200, 25)), rng.integers(0, 2, (200, 11))
    onehot = np.zeros((200, 4, 25), dtype=np.uint8)
    order = "AGCT"
    for channel, letter in enumerate(order):
        onehot[:, channel][codes == "ACGT".index(letter)] = 1
    np.savez_compressed(raw / "data.npz", x=np.moveaxis(onehot, 0, 2), y=labels.astype(np.uint8))
    (raw / "rows.toml").write_text(
        'kind = "rows"\n[samples]\nmatch = "position"\n'
        '[[arrays]]\nname = "x"\nfile = "data.npz"\narray = "x"\nsample_axis = 2\n'
        'onehot = "AGCT"\nchannel_axis = 1\n'
        '[[arrays]]\nname = "labels"\nfile = "data.npz"\narray = "y"\n'
        'bits = true\nrole = "target"\n'
        '[splits]\nby = "random"\nvalid = 0.2\ntest = 0.2\n'
    )
    made = plan(raw)
    places = made.places["x"]
    build(made, tmp_path / "x.zarr", command="test")
    data = ShardedDataset(tmp_path / "x.zarr")
    assert np.array_equal(data.gather("x", places), codes)
    assert np.array_equal(data.labels(places), labels)


@pytest.mark.parametrize(
    ("file", "old", "new", "problem"),
    [
        ("samples.tsv", "s05\t", "s04\t", "sample 's04' is there twice"),
        ("samples.tsv", "s05\t", "t05\t", "1 samples of the sheet are not in"),
        ("genes.txt", "g2\n", "g99\n", "line 2: feature 'g99' is not in expression.tsv"),
        ("genes.txt", "g2\n", "g7\n", "feature 'g7' is named twice"),
        ("rows.toml", '"x", "y"', '"x", "z"', "no column 'z'"),
        ("rows.toml", '"x", "y"', '"x", "age"', "age is missing"),
        ("rows.toml", '"b.fa" = "1"', '"c.fa" = "1"', "by_file names 'c.fa'"),
        ("rows.toml", '"b.fa" = "1"', '"b.fa" = "2"', "a label is 0 or 1"),
        ("rows.toml", 'column = "patient"', 'column = "person"', "no column 'person'"),
        ("a.fa", ">", ">\n>", "a header without a name"),
    ],
)
def test_a_fault_is_named_before_anything_is_written(
    raw: Path, file: str, old: str, new: str, problem: str
) -> None:
    text = (raw / file).read_text()
    assert old in text
    (raw / file).write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        plan(raw)
    assert problem in str(caught.value)


def test_a_value_that_is_missing_is_an_error_that_names_sample_and_gene(
    raw: Path, tmp_path: Path, ray_cluster: None
) -> None:
    lines = (raw / "expression.tsv").read_text().splitlines()
    cells = lines[3].split("\t")  # gene g2
    sample = lines[0].split("\t")[4]
    cells[4] = "NA"
    lines[3] = "\t".join(cells)
    (raw / "expression.tsv").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=f"sample '{sample}', feature 'g2': the value is nan"):
        build(plan(raw), tmp_path / "x.zarr", command="test")
    assert not (tmp_path / "x.zarr").exists()


def test_dropped_samples_are_counted(raw: Path) -> None:
    text = (raw / "samples.tsv").read_text().splitlines()
    (raw / "samples.tsv").write_text("\n".join(text[:-3]) + "\n")
    with pytest.raises(InputError, match="3 samples of"):
        plan(raw)
    change(raw, 'id = "name"', 'id = "name"\nunmatched = "drop"')
    made = plan(raw)
    assert made.dropped == 3
    assert made.samples == SAMPLES - 3
