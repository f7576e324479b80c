"""What a slot makes of an assignment, before it trains."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from data_shards.labels import label_statistics
from data_shards.store.location import Location
from jobs.sweep.messages import Assignment
from jobs.sweep.slot import SlotJob, _job, configure_trial, objective_value, resources
from trainer.config import RunConfig
from trainer.metrics import Scores, TaskScore


def slot(folder: Path, halved: dict[int, int]) -> SlotJob:
    config = RunConfig(recipe="danq", size="small", batch_size=20)
    return SlotJob(0, None, config, Location.parse("/x"), folder, ("loss",), "cpu", halved)


def test_a_trial_has_its_own_settings_over_the_common_ones(tmp_path: Path) -> None:
    config = configure_trial(slot(tmp_path, {}), Assignment(3, {"optimizer.lr": 0.5}, 0))
    assert (config.optimizer.lr, config.batch_size) == (0.5, 20)


def test_halving_keeps_the_batch_and_ends_where_a_micro_batch_has_one_sample(
    tmp_path: Path,
) -> None:
    trial = Assignment(3, {"batch_size": 4}, 1)
    config = configure_trial(slot(tmp_path, {3: 2}), trial)
    assert (config.batch_size, config.grid.micro_batches) == (4, 4)
    with pytest.raises(InputError, match="does not divide"):
        configure_trial(slot(tmp_path, {3: 3}), trial)


def test_settings_that_do_not_go_together_name_the_trial(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"trial 7: optimizer\.lr = -1"):
        configure_trial(slot(tmp_path, {}), Assignment(7, {"optimizer.lr": -1}, 0))


def test_a_wish_to_leave_that_a_dead_driver_left_behind_is_not_obeyed(
    tiny_data: Path, tmp_path: Path
) -> None:
    data = ShardedDataset(str(tiny_data))
    labels = label_statistics(data, "labels", "train")
    (tmp_path / "called-away").write_text("pause")
    one = slot(tmp_path, {})
    job = _job(one, one.config, tmp_path, data, labels)
    assert not job.called_away()


def test_objectives_are_taken_from_the_validation() -> None:
    scores = Scores(10, 0.3, (TaskScore("t", 10, 5, 0.9, 0.8),))
    names = ("loss", "auroc", "aupr", "seconds", "parameters")
    values = [objective_value(name, scores, 4.0, 7) for name in names]  # type: ignore[arg-type]
    assert values == [0.3, 0.9, 0.8, 4.0, 7.0]
    assert math.isnan(objective_value("loss", Scores(10, None, ()), 1.0, 1))


def test_what_a_process_holds_is_counted() -> None:
    before = resources()
    with Path("/dev/null").open():
        assert resources()["descriptors"] == before["descriptors"] + 1
    assert before["memory_mb"] > 1
