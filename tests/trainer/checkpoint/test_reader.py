"""Checkpoints are read only as they were written; the newest good one is found."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import CorruptDataError, InputError
from tests.trainer.checkpoint.networks import (
    NAMES,
    network,
    optimizer_of,
    saved,
    states_of,
    writer_of,
)
from trainer.checkpoint.format import step_folder
from trainer.checkpoint.reader import Checkpoint, find_latest
from trainer.checkpoint.restore import restore_layer


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a checkpoint; tests put back what they change."""
    folder = tmp_path_factory.mktemp("good")
    saved(folder)
    yield folder
    notes: list[str] = []
    assert find_latest(folder, notes.append) is not None
    assert notes == []


FILES = sorted(
    [f"layer-{n:02d}-{name}.safetensors" for n, name in enumerate(NAMES)]
    + [f"layer-{n:02d}-{name}.optimizer.safetensors" for n, name in enumerate(NAMES) if n != 4]
    + ["index.json", "index.json.sha256"]
)


def damaged(folder: Path) -> str:
    """Return what is said when the only checkpoint is damaged."""
    notes: list[str] = []
    with pytest.raises(CorruptDataError, match="none of its 1 checkpoints is good"):
        find_latest(folder, notes.append)
    [note] = notes
    return note


def test_all_files_are_known(good: Path) -> None:
    assert sorted(path.name for path in (good / step_folder(3)).iterdir()) == FILES


@settings(deadline=None, max_examples=80)
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True), st.integers(0, 7))
def test_one_flipped_bit_anywhere_is_found_and_its_file_named(
    good: Path, name: str, place: float, bit: int
) -> None:
    path = good / step_folder(3) / name
    content = path.read_bytes()
    changed = bytearray(content)
    changed[int(place * len(content))] ^= 1 << bit
    path.write_bytes(changed)
    try:
        assert str(path).removesuffix(".sha256") in damaged(good)
    finally:
        path.write_bytes(content)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(FILES), st.floats(0, 1, exclude_max=True))
def test_a_file_cut_short_anywhere_is_found_and_named(good: Path, name: str, part: float) -> None:
    path = good / step_folder(3) / name
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    try:
        assert str(path).removesuffix(".sha256") in damaged(good)
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_found_and_named(good: Path, name: str) -> None:
    path = good / step_folder(3) / name
    content = path.read_bytes()
    path.unlink()
    try:
        assert str(path) in damaged(good)
    finally:
        path.write_bytes(content)


def test_what_a_worker_reads_is_verified_and_the_rest_left_alone(good: Path) -> None:
    path = good / step_folder(3) / "layer-05-head.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    try:
        checkpoint = Checkpoint.open(good / step_folder(3))
        checkpoint.verify([0, 1])
        net = network(1)
        restore_layer(checkpoint, 1, net[1], None, None)
        with pytest.raises(CorruptDataError, match=r"layer-05-head\.safetensors"):
            checkpoint.verify()
        with pytest.raises(CorruptDataError, match=r"layer-05-head\.safetensors"):
            restore_layer(checkpoint, 5, net[5], None, None)
    finally:
        path.write_bytes(content)


def test_a_damaged_newest_checkpoint_is_passed_over_loudly(tmp_path: Path) -> None:
    saved(tmp_path, step=3)
    newest = saved(tmp_path, step=5).folder
    notes: list[str] = []
    found = find_latest(tmp_path, notes.append)
    assert found is not None
    assert (found.step, notes) == (5, [])
    with (newest / "layer-00-scale.safetensors").open("r+b") as stream:
        stream.truncate(10)
    found = find_latest(tmp_path, notes.append)
    assert found is not None
    assert found.step == 3
    [note] = notes
    assert "step 5" in note
    assert "layer-00-scale.safetensors: 10 bytes where the index has" in note


def test_no_checkpoint_is_none_and_no_complaint(tmp_path: Path) -> None:
    notes: list[str] = []
    assert find_latest(tmp_path, notes.append) is None
    assert find_latest(tmp_path / "missing", notes.append) is None
    assert notes == []


def test_a_checkpoint_under_another_steps_name_is_not_believed(tmp_path: Path) -> None:
    folder = saved(tmp_path, step=3).folder
    shutil.copytree(folder, tmp_path / step_folder(9))
    notes: list[str] = []
    found = find_latest(tmp_path, notes.append)
    assert found is not None
    assert found.step == 3
    assert "is the one of step 3" in notes[0]


def test_the_run_goes_on_from_the_one_before_and_the_damaged_one_goes(tmp_path: Path) -> None:
    saved(tmp_path, step=3)
    newest = saved(tmp_path, step=9).folder
    (newest / "index.json").write_text("{")
    net = network(0)
    writer = writer_of(tmp_path, attempt="b", keep=1)
    writer.save(4, states_of(net, optimizer_of("sgd", list(net.parameters()))))
    assert writer.close(60)
    notes: list[str] = []
    found = find_latest(tmp_path, notes.append)
    assert found is not None
    assert (found.step, notes) == (4, [])


def test_other_layers_are_refused_with_both_names(good: Path) -> None:
    checkpoint = Checkpoint.open(good / step_folder(3))
    checkpoint.check_layers(NAMES)
    with pytest.raises(InputError, match=r"layer 1 is 'norm', the network's is 'conv'"):
        checkpoint.check_layers(["scale", "conv", *NAMES[2:]])
    with pytest.raises(InputError, match="holds 6 layers, the network has 5"):
        checkpoint.check_layers(NAMES[:-1])
