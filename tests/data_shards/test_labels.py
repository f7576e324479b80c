"""Label statistics equal a count of the labels, and read no more of them than they need."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_shards import labels as labels_module
from data_shards.dataset import ShardedDataset
from data_shards.errors import CorruptDataError, InputError
from data_shards.labels import label_blocks, label_statistics
from data_shards.store.location import Location
from data_shards.store.schema import Compression
from tests.data_shards.labelled import SHARD, write_labels

TASKS = tuple(f"task{i}" for i in range(11))
# train ends inside shard 1, valid inside shard 3, test with the array.
SPLITS = {
    "train": (0, SHARD + 100),
    "valid": (SHARD + 100, 3 * SHARD + 7),
    "test": (3 * SHARD + 7, 3 * SHARD + 900),
}
ROWS = 3 * SHARD + 900


def bits(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((ROWS, len(TASKS))) < np.linspace(0, 0.9, len(TASKS))


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_bits_are_counted_from_the_manifest_and_the_shards_that_straddle_splits(
    compression: Compression, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = bits()
    write_labels(
        tmp_path / "x.zarr", labels, SPLITS, kind="bits", names=TASKS, compression=compression
    )
    read: list[str] = []
    original = Location.read_into

    def counted(self: Location, relative: str, buffer: np.ndarray) -> None:
        read.append(relative)
        original(self, relative, buffer)

    monkeypatch.setattr(Location, "read_into", counted)
    data = ShardedDataset(tmp_path / "x.zarr")
    expected = {"train": [1], "valid": [1, 3], "test": [3]}
    for split, (start, stop) in SPLITS.items():
        read.clear()
        found = label_statistics(data, "labels", split)
        assert found.positives.tolist() == labels[start:stop].sum(axis=0).tolist()
        assert found.present.tolist() == [stop - start] * len(TASKS)
        assert found.negatives.tolist() == (~labels[start:stop]).sum(axis=0).tolist()
        assert (found.names, found.samples, found.share) == (TASKS, stop - start, 1.0)
        assert found.binary
        assert found.complete
        assert [int(Path(path).parts[2]) for path in read] == expected[split]
    assert not data.opened, "opening the array would read all of it"


@pytest.mark.parametrize("block", [1, 1000, 1 << 24])
def test_numbers_with_nan_are_counted(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labels_module, "_BLOCK_LABELS", block * 20)
    labels = bits(1)[:, :5].astype(np.float32)
    labels[np.random.default_rng(2).random(labels.shape) < [0, 0.1, 0.5, 0.9, 1]] = np.nan
    data = write_labels(tmp_path / "x.zarr", labels, {"train": (5, 900), "test": (900, ROWS)})
    found = label_statistics(data, "labels", "train")
    part = labels[5:900]
    assert found.present.tolist() == (~np.isnan(part)).sum(axis=0).tolist()
    assert found.positives.tolist() == (part == 1).sum(axis=0).tolist()
    assert found.negatives.tolist() == (part == 0).sum(axis=0).tolist()
    assert found.share == pytest.approx(np.mean(~np.isnan(part)))
    assert found.names == ("0", "1", "2", "3", "4")
    assert found.binary
    assert not found.complete


def test_a_label_that_is_missing_in_another_split_is_known(tmp_path: Path) -> None:
    labels = np.zeros((50, 2), dtype=np.float32)
    labels[49, 0] = np.nan
    data = write_labels(tmp_path / "x.zarr", labels, {"train": (0, 40), "test": (40, 50)})
    found = label_statistics(data, "labels", "train")
    assert found.share == 1
    assert not found.complete


def test_integers_have_a_missing_code(tmp_path: Path) -> None:
    labels = np.array([[0, 1], [1, -1], [-1, -1], [1, 1]], dtype=np.int8)
    data = write_labels(
        tmp_path / "x.zarr", labels, {"train": (0, 4)}, names=("a", "b"), missing=-1
    )
    found = label_statistics(data, "labels", "train")
    assert found.present.tolist() == [3, 2]
    assert found.positives.tolist() == [2, 2]
    assert found.binary
    assert not found.complete


def test_numbers_other_than_0_and_1_are_no_classes(tmp_path: Path) -> None:
    labels = np.array([[0.5, 1], [1, np.nan]], dtype=np.float32)
    data = write_labels(tmp_path / "x.zarr", labels, {"train": (0, 2), "none": (2, 2)})
    assert not label_statistics(data, "labels", "train").binary
    assert label_statistics(data, "labels", "none").share == 0


def test_each_class_counts_as_a_task(tmp_path: Path) -> None:
    classes = np.array([2, 0, 2, 2, 1], dtype=np.int64)
    data = write_labels(tmp_path / "x.zarr", classes, {"train": (0, 5)}, names=("a", "b", "c"))
    found = label_statistics(data, "labels", "train")
    assert found.positives.tolist() == [1, 1, 3]
    assert found.present.tolist() == [5, 5, 5]
    assert found.task("c") == 2


def test_blocks_hold_the_labels_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "_BLOCK_LABELS", 11 * 70)
    labels = bits(3)
    data = write_labels(tmp_path / "x.zarr", labels, SPLITS, kind="bits", names=TASKS)
    blocks = list(label_blocks(data, "labels", "test"))
    assert [block.start for block in blocks] == list(range(*SPLITS["test"], 70))
    assert np.array_equal(
        np.concatenate([block.positive for block in blocks]), labels[slice(*SPLITS["test"])]
    )


def test_what_holds_no_labels_and_names_that_are_none_are_refused(tmp_path: Path) -> None:
    tracks = np.zeros((10, 4, 2), dtype=np.float32)
    data = write_labels(tmp_path / "x.zarr", tracks, {"train": (0, 10)})
    with pytest.raises(InputError, match=r"holds no labels: a sample of it is dense, shape \(4, 2"):
        label_statistics(data, "labels", "train")
    data = write_labels(tmp_path / "y.zarr", bits(), SPLITS, kind="bits", names=TASKS)
    with pytest.raises(InputError, match="no field 'targets'"):
        label_statistics(data, "targets", "train")
    with pytest.raises(InputError, match="no split 'training'"):
        label_statistics(data, "labels", "training")
    with pytest.raises(InputError, match="no task 'task11'") as caught:
        label_statistics(data, "labels", "train").task("task11")
    assert caught.value.remedy == f"there are: {', '.join(TASKS)}"


def test_a_straddling_shard_that_changed_is_an_error(tmp_path: Path) -> None:
    data = write_labels(tmp_path / "x.zarr", bits(), SPLITS, kind="bits", names=TASKS)
    path = tmp_path / "x.zarr" / "labels" / "c" / "1" / "0"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(CorruptDataError, match="the content changed"):
        label_statistics(data, "labels", "train")
