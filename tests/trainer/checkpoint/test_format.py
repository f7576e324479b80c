"""Names, the index, and what makes a whole checkpoint."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from data_shards.errors import CorruptDataError, InputError
from tests.trainer.checkpoint.networks import NAMES, saved
from trainer.checkpoint.format import (
    INDEX,
    INDEX_SUM,
    FileRecord,
    Index,
    check_layer_name,
    merge_parts,
    plain_progress,
    read_index,
    saved_steps,
    step_folder,
    step_of,
    write_index,
)


@given(st.integers(0, 10**12))
def test_a_step_can_be_read_from_its_folders_name(step: int) -> None:
    assert step_of(step_folder(step)) == step


def test_only_complete_checkpoints_count_as_saved(tmp_path: Path) -> None:
    for name in ("step-00000100", "step-00000020", ".step-00000300.a.1.tmp", "step-7", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000400").touch()
    assert saved_steps(tmp_path) == [20, 100]
    assert saved_steps(tmp_path / "missing") == []


@pytest.mark.parametrize("name", ["", "a/b", "..", "a..b", ".a", "a b", "naïve"])
def test_a_layer_whose_name_is_no_file_name_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="file name"):
        check_layer_name(name)


def test_names_of_usual_layers_pass() -> None:
    for name in ("conv", "lstm-1", "block.3", "fc_2"):
        check_layer_name(name)


def test_another_program_can_read_a_checkpoint_by_the_description(tmp_path: Path) -> None:
    folder = saved(tmp_path, step=3).folder
    assert folder.name == "step-00000003"
    check = subprocess.run(["sha256sum", "-c", INDEX_SUM], cwd=folder, check=False)
    assert check.returncode == 0
    index = json.loads((folder / INDEX).read_bytes())
    assert index["format"] == "replisome-checkpoint"
    assert (index["version"], index["step"], index["layers"]) == (1, 3, list(NAMES))
    assert index["progress"] == {"epoch": 1}
    for file in index["files"]:
        content = (folder / file["name"]).read_bytes()
        assert len(content) == file["bytes"]
        assert google_crc32c.value(content) == file["crc32c"]
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
    listed = {file["name"] for file in index["files"]}
    assert {path.name for path in folder.iterdir()} == listed | {INDEX, INDEX_SUM}
    assert {name for name in listed if "04-pool" in name} == {"layer-04-pool.safetensors"}
    norm = load_file(folder / "layer-01-norm.safetensors")
    assert norm["buffer/num_batches_tracked"].dtype == "int64"
    assert norm["buffer/num_batches_tracked"] == 3
    assert norm.keys() == {"param/weight", "param/bias", "buffer/running_mean",
                           "buffer/running_var", "buffer/num_batches_tracked"}  # fmt: skip
    states = load_file(folder / "layer-05-head.optimizer.safetensors")
    assert states.keys() == {
        f"{state}/{name}"
        for state in ("step", "exp_avg", "exp_avg_sq")
        for name in ("weight", "bias")
    }
    assert (states["step/weight"].shape, states["step/weight"].dtype) == ((), "float32")
    assert states["step/weight"] == 3


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), plain, max_size=4))
def test_progress_comes_back_as_it_was(progress: dict[str, object]) -> None:
    assert plain_progress(progress) == progress


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, (1, 2), {1: 2}, {1.5}, b"x", Path("x")], ids=repr
)
def test_progress_that_would_not_come_back_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="progress"):
        plain_progress({"key": [value]})


def record(layer: int, name: str) -> FileRecord:
    return FileRecord(name=name, layer=layer, kind="weights", bytes=1, crc32c=2, sha256="0")


def test_parts_of_all_workers_make_one_index() -> None:
    parts = [[record(1, "layer-01-b.safetensors")], [record(0, "layer-00-a.safetensors")]]
    index = merge_parts(5, ["a", "b"], parts, {"x": 1})
    assert [file.layer for file in index.files] == [0, 1]
    assert (index.step, index.layers, index.progress) == (5, ("a", "b"), {"x": 1})


def test_a_layer_that_nobody_wrote_is_no_checkpoint() -> None:
    with pytest.raises(ValueError, match=r"layer 1 \(b\)"):
        merge_parts(5, ["a", "b"], [[record(0, "layer-00-a.safetensors")]], {})


def test_two_workers_that_wrote_one_file_make_no_checkpoint() -> None:
    part = [record(0, "layer-00-a.safetensors")]
    with pytest.raises(ValueError, match=r"layer-00-a.*workers 0 and 1"):
        merge_parts(5, ["a"], [part, part], {})


def test_an_index_of_a_later_version_is_refused_as_such(tmp_path: Path) -> None:
    write_index(tmp_path, Index(step=1, layers=(), files=(), progress={}))
    content = (tmp_path / INDEX).read_bytes().replace(b'"version": 1', b'"version": 2')
    (tmp_path / INDEX).write_bytes(content)
    with pytest.raises(CorruptDataError, match=INDEX):
        read_index(tmp_path)
    (tmp_path / INDEX_SUM).write_text(f"{hashlib.sha256(content).hexdigest()}  {INDEX}\n")
    with pytest.raises(InputError, match="version 2"):
        read_index(tmp_path)
