"""From what a person types to a configuration, for beginnings, continuations and transfers."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from jobs.configure import configure, continued, init_settings, read_settings
from trainer.config import RunConfig


def test_settings_are_toml_values_under_dotted_keys_and_words_need_no_quotes() -> None:
    settings = ["schedule.name=cosine", "optimizer.ema=0.9", "grid.cut=[0, 3]", "grid.compile=true"]
    assert read_settings(settings) == {
        "schedule": {"name": "cosine"},
        "optimizer": {"ema": 0.9},
        "grid": {"cut": [0, 3], "compile": True},
    }


@pytest.mark.parametrize("setting", ["schedule.name", "=3", " =3"])
def test_a_setting_without_key_or_value_is_refused(setting: str) -> None:
    with pytest.raises(InputError, match="is not KEY=VALUE"):
        read_settings([setting])


def test_settings_win_over_the_recipe_and_an_unknown_one_names_the_nearest() -> None:
    config = configure("danq", None, read_settings(["optimizer.lr=0.5", "checkpoint.keep=7"]))
    assert (config.optimizer.lr, config.checkpoint.keep) == (0.5, 7)
    with pytest.raises(InputError, match=r"schedule\.nam") as caught:
        configure("danq", None, read_settings(["schedule.nam=cosine"]))
    assert "name" in str(caught.value)


def test_a_run_goes_on_elsewhere_but_not_with_other_numbers() -> None:
    saved = RunConfig.model_validate({"recipe": "danq", "grid": {"stages": 2, "cut": [0, 3]}})
    config = continued(saved, {"grid": {"stages": 3}, "failure": {"restarts": 0}})
    assert (config.grid.stages, config.grid.cut, config.failure.restarts) == (3, "measured", 0)
    assert continued(saved, {"grid": {"replicas": 2}}).grid.cut == (0, 3)
    for flags in ({"optimizer": {"lr": 0.1}}, {"batch_size": 7}, {"seed": 1}):
        with pytest.raises(InputError, match="can't change when a run goes on"):
            continued(saved, flags)


def test_layers_to_freeze_say_nothing_without_weights_to_start_from(tmp_path: Path) -> None:
    assert init_settings(None, [], [], tmp_path) == {}
    with pytest.raises(InputError, match="say nothing without --init-from"):
        init_settings(None, [], ["conv"], tmp_path)
    with pytest.raises(InputError, match="no run is called"):
        init_settings("nope", [], [], tmp_path)
