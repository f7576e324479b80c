"""What the training loop does when something goes wrong, on real workers and without Ray."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.jobs.groups import Harm, flip, job_of, notes_of, run_group, trace_of, until_done

pytestmark = pytest.mark.slow

STEPS = 24  # saved after 5, 10, 15, 20 and the last
GRID = (2, 1)


@pytest.fixture(scope="module")
def whole(danq_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that nothing befell."""
    job = job_of(danq_data, tmp_path_factory.mktemp("whole"), GRID, STEPS)
    [end, *_] = run_group(job)
    assert end.value is not None, end.text
    return job


@pytest.mark.parametrize("rank", [0, 1])
def test_kill_9_at_any_step_changes_no_bit_of_losses_and_weights(
    rank: int, whole: Any, danq_data: Path, tmp_path: Path
) -> None:
    step = random.Random(rank).randrange(1, STEPS)
    job = job_of(danq_data, tmp_path, GRID, STEPS)
    first = run_group(job, Harm("kill", rank, step))
    assert first[rank].code == -9
    assert first[1 - rank].value is None
    assert "onnection" in first[1 - rank].text, "the other one notices, and does not wait"
    [end, *_] = run_group(replace(job, attempt=1))
    assert end.value is not None, end.text
    assert trace_of(job) == trace_of(whole), f"killed at step {step}"


@pytest.mark.parametrize("how", ["cut short", "bit flipped"])
def test_a_damaged_checkpoint_is_passed_over_loudly_and_changes_nothing(
    how: str, whole: Any, danq_data: Path, tmp_path: Path
) -> None:
    job = job_of(danq_data, tmp_path, GRID, STEPS)
    run_group(job, Harm("kill", 0, 13))
    newest = max((job.checkpoints / "danq" / "state").glob("step-*"))
    victim = sorted(newest.glob("layer-*lstm*.safetensors"))[0]
    if how == "cut short":
        victim.write_bytes(victim.read_bytes()[:1000])
    else:
        flip(victim)
    [end, *_] = run_group(replace(job, attempt=1))
    assert end.value is not None, end.text
    [warning] = [note for note in notes_of(job) if "damaged" in note]
    assert "the checkpoint of step 10 is damaged and not used" in warning
    assert victim.name in warning
    assert "goes on at step 5, on 2 x 1" in notes_of(job)
    assert trace_of(job) == trace_of(whole)


def test_a_loss_that_is_nan_stops_the_run_with_its_step_and_samples_and_keeps_checkpoints(
    danq_data: Path, tmp_path: Path
) -> None:
    job = job_of(danq_data, tmp_path, GRID, STEPS)
    ends = run_group(job, Harm("nan", 1, 12))
    assert [end.error for end in ends] == ["TrainingDivergedError"] * 2
    assert "danq: the loss of step 12 is nan" in ends[0].text
    [note] = [note for note in notes_of(job) if "samples" in note]
    assert sorted(json.loads(note.partition("samples: ")[2])) == sorted(_samples(job, 12))
    saved = sorted(path.name for path in (job.checkpoints / "danq" / "state").glob("step-*"))
    assert saved == ["step-00000005", "step-00000010"]


def _samples(job: Any, step: int) -> list[int]:
    from data_shards.dataset import ShardedDataset

    split = ShardedDataset(job.data).schema.split("train")
    size = job.config.batch_size
    return [split.start + int(i) for i in job.order(split.samples).ids(step * size, size)]


@pytest.mark.parametrize("kind", ["nan", "spike"])
def test_a_bad_step_that_is_skipped_leaves_all_weights_as_if_it_had_not_been(
    kind: Any, danq_data: Path, tmp_path: Path
) -> None:
    failure = {"bad_loss": "skip", "spike": 20.0}
    grid, bad = (2, 2), 18
    run = {"failure": failure, "optimizer": {"name": "sgd", "lr": 0.05}}
    job = job_of(danq_data, tmp_path / "skips", grid, STEPS, run)
    ends = run_group(job, Harm(kind, 3, bad), Harm("kill", 0, bad + 5))
    assert ends[0].code == -9
    [end, *_] = run_group(replace(job, attempt=1), Harm(kind, 3, bad))
    assert end.value is not None, end.text
    assert end.value.results[0].fit.skipped == (bad,)
    [note] = [note for note in notes_of(job) if "skipped" in note]
    assert note.startswith(f"skipped the update of step {bad}: its loss is")
    assert sorted(json.loads(note.partition("samples: ")[2])) == sorted(_samples(job, bad))
    losses = np.array(trace_of(job).losses)
    plain = _plain_losses(job, skip=bad)
    good = np.arange(STEPS) != bad
    assert np.abs(losses - plain)[good].max() < 1e-6
    assert np.isnan(losses[bad]) if kind == "nan" else losses[bad] > 100


def _plain_losses(job: Any, skip: int) -> np.ndarray[Any, Any]:
    """Train in one process with plain PyTorch, leaving the update of one step out."""
    import torch

    from data_shards.dataset import ShardedDataset
    from trainer.layers import KeyedDropout
    from trainer.objective import unpack_bits
    from trainer.recipe import build_layer, shape_of
    from trainer.recipes import get_recipe

    data, recipe, config = ShardedDataset(job.data), get_recipe("danq"), job.config
    layers = recipe.network.layers("small", shape_of(data.schema))
    net = torch.nn.Sequential(*(build_layer(x, config.seed, i) for i, x in enumerate(layers)))
    assert config.optimizer.name == "sgd"
    optimizer = torch.optim.SGD(net.parameters(), lr=config.optimizer.lr, momentum=0.9)
    dropouts = [module for module in net.modules() if isinstance(module, KeyedDropout)]
    losses = []
    for step in range(STEPS):
        rows = np.array(_samples(job, step))
        inputs = torch.from_numpy(data.gather("sequence", rows))
        packed = torch.from_numpy(data.gather("labels", rows))
        for dropout in dropouts:
            dropout.position = step * config.batch_size
        loss = recipe.loss(net(inputs).float(), unpack_bits(packed, len(data.schema.tasks)))
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        if step != skip:
            optimizer.step()
    return np.array(losses)


def test_a_run_that_skips_step_after_step_stops(danq_data: Path, tmp_path: Path) -> None:
    job = job_of(danq_data, tmp_path, GRID, 40, {"failure": {"bad_loss": "skip"}})
    ends = run_group(job, *(Harm("nan", 1, step) for step in range(3, 40)))
    assert {end.error for end in ends} == {"TrainingDivergedError"}
    assert "were all left out" in ends[0].text


def test_a_worker_that_hangs_is_noticed_by_the_others_in_the_time_that_is_set(
    whole: Any, danq_data: Path, tmp_path: Path
) -> None:
    job = job_of(danq_data, tmp_path, GRID, STEPS, {"failure": {"hang_seconds": 3.0}})
    ends = run_group(job, Harm("stop", 1, 8))
    assert ends[0].error == "RuntimeError"
    assert "imed out" in ends[0].text
    assert ends[1].code == -9, "it did not end by itself"
    job = replace(job, attempt=1)
    [end, *_] = run_group(job)
    assert end.value is not None, end.text
    assert trace_of(job) == trace_of(whole)


@pytest.fixture
def little_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 40 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(mount)]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"no file system can be mounted here: {made.stderr.strip()}")
    try:
        yield mount
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_does_not_stop_the_run_which_saves_again_once_there_is_room(
    whole: Any, danq_data: Path, little_disk: Path, tmp_path: Path
) -> None:
    job = job_of(danq_data, tmp_path / "run", GRID, STEPS)
    shutil.rmtree(job.checkpoints)
    job.checkpoints.symlink_to(little_disk)
    ballast = little_disk / "ballast"
    free = shutil.disk_usage(little_disk).free
    ballast.write_bytes(bytes(free - 100_000))
    [end, *_] = run_group(job, Harm("slow", 0, 14), Harm("delete", 0, 14, str(ballast)))
    assert end.value is not None, end.text
    faults = [note for note in notes_of(job) if "was not saved" in note]
    assert any("the checkpoint of step 5 was not saved" in fault for fault in faults)
    assert any("No space left on device" in fault for fault in faults)
    assert trace_of(job) == trace_of(whole)


@pytest.fixture
def own_data(danq_data: Path, tmp_path: Path) -> Path:
    """A copy of the data set that a test may harm."""
    return Path(shutil.copytree(danq_data, tmp_path / "data.zarr"))


@pytest.mark.parametrize("how", ["delete", "damage", "shorten"])
def test_a_shard_that_changes_under_a_run_is_named_and_the_run_goes_on_after_repair(
    how: Any, whole: Any, own_data: Path, danq_data: Path, tmp_path: Path
) -> None:
    shard = own_data / "reference" / "c" / "0"
    job = job_of(own_data, tmp_path / "run", GRID, STEPS)
    pauses = [Harm("slow", 0, step) for step in (9, 13)]
    ends = run_group(job, Harm(how, 0, 8, str(shard)), *pauses)
    assert all(end.value is None for end in ends)
    if how == "shorten" and ends[0].code:
        assert ends[0].code == -7, "reading what is no longer there is a bus error"
        ends = run_group(replace(job, attempt=1))
    # Whoever reads it first says so; the other may only say that another worker failed.
    [cause, *_] = [end for end in ends if end.error not in ("", "OtherWorkerError")]
    assert cause.error == "CorruptDataError"
    assert str(shard.relative_to(own_data)) in cause.text
    shutil.copyfile(danq_data / shard.relative_to(own_data), shard)
    [end, *_] = until_done(replace(job, attempt=2))
    assert end.value is not None, end.text
    assert trace_of(job) == trace_of(whole)
