"""What may be searched: read from TOML, drawn by Optuna, and checked before anything starts."""

from __future__ import annotations

import tomllib
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.errors import InputError
from jobs.sweep.space import Space, default_space, differences, nested
from trainer.config import GridConfig, RunConfig, flatten

CONFIG = RunConfig(recipe="danq", batch_size=64)
SPACE = """
["optimizer.name"]
choices = ["sgd", "adamw"]

[optimizer.lr]
low = 1e-4
high = 1e-1
log = true

["optimizer.nesterov"]
choices = [true, false]
when = { "optimizer.name" = "sgd" }

[batch_size]
low = 32
high = 128
step = 32
"""


def read(text: str) -> Space:
    return Space.read(tomllib.loads(text), "space.toml")


def drawn(space: Space, count: int) -> list[dict[str, Any]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    return [space.suggest(study.ask()) for _ in range(count)]


def test_tables_may_be_nested_or_dotted_and_are_drawn_within_their_ranges() -> None:
    values = drawn(read(SPACE), 50)
    assert {value["batch_size"] for value in values} == {32, 64, 96, 128}
    assert all(1e-4 <= value["optimizer.lr"] <= 1e-1 for value in values)
    assert {value["optimizer.name"] for value in values} == {"sgd", "adamw"}


def test_a_condition_leaves_a_setting_out_where_it_does_not_hold() -> None:
    for value in drawn(read(SPACE), 50):
        assert ("optimizer.nesterov" in value) == (value["optimizer.name"] == "sgd")


def test_a_space_comes_back_from_its_plain_form() -> None:
    space = read(SPACE)
    assert Space.read(space.plain(), "the study") == space


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the search space is empty"),
        ("lr = 1", "lr is no table of a setting"),
        ("[lr]\nlow = 1", "a range needs low and, not below it, high"),
        ("[lr]\nlow = 2\nhigh = 1", "a range needs low"),
        ("[lr]\nlow = 0\nhigh = 1\nlog = true", "log needs a low above 0"),
        ("[lr]\nlow = 1\nhigh = 2\nchoices = [1]", "choices take no low, high"),
        ("[lr]\nlow = 1\nhigh = 2\nhihg = 3", "did you mean 'high'"),
        ('[a]\nchoices = [1]\nwhen = { "b" = 1 }\n[b]\nchoices = [1]', "is not searched above it"),
    ],
)
def test_a_faulty_space_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(InputError, match=r"space\.toml") as caught:
        read(text)
    assert message in str(caught.value)


def test_unknown_settings_and_impossible_values_are_refused_before_any_trial() -> None:
    with pytest.raises(InputError, match=r"unknown key 'optimizer.lrr'") as caught:
        read('["optimizer.lrr"]\nlow = 0.1\nhigh = 0.2').fitted(CONFIG, 1000)
    assert "did you mean 'lr'" in str(caught.value)
    with pytest.raises(InputError, match="less than 1"):
        read('["optimizer.momentum"]\nlow = 0.0\nhigh = 1.0').fitted(CONFIG, 1000)


def test_batch_sizes_that_the_grid_cannot_share_out_are_refused_or_left_out() -> None:
    config = CONFIG.model_copy(update={"grid": GridConfig(replicas=3, micro_batches=2)})
    with pytest.raises(InputError, match="batch_size 64 can't be shared out") as caught:
        read("[batch_size]\nchoices = [60, 64]").fitted(config, 1000)
    assert "the nearest that can: 66" in str(caught.value)
    fitted = read("[batch_size]\nlow = 10\nhigh = 40").fitted(config, 1000)
    assert {value["batch_size"] for value in drawn(fitted, 200)} == {12, 18, 24, 30, 36}
    with pytest.raises(InputError, match="no batch_size from 13 to 17"):
        read("[batch_size]\nlow = 13\nhigh = 17").fitted(config, 1000)


def test_no_batch_is_larger_than_the_training_split() -> None:
    with pytest.raises(InputError, match="batch_size 128"):
        read("[batch_size]\nchoices = [64, 128]").fitted(CONFIG, 100)


def test_by_default_rate_batch_size_momentum_and_decay_are_searched() -> None:
    space = default_space(CONFIG, {"optimizer.clip": {"low": 0.0, "high": 5.0}}, 100)
    assert list(space.parameters) == [
        "optimizer.lr",
        "batch_size",
        "optimizer.momentum",
        "optimizer.weight_decay",
        "optimizer.clip",
    ]
    assert space.parameters["batch_size"].choices == (16, 32, 64)
    space.fitted(CONFIG, 100)


def test_a_grid_needs_values_that_can_be_counted() -> None:
    with pytest.raises(InputError, match="a grid search needs choices"):
        read("[optimizer.lr]\nlow = 0.1\nhigh = 0.2").grid()
    with pytest.raises(InputError, match="takes no conditions"):
        read(SPACE.replace("low = 1e-4\nhigh = 1e-1\nlog = true", "choices = [0.1]")).grid()
    grid = read("[a]\nlow = 0.1\nhigh = 0.5\nstep = 0.2\n[b]\nlow = 1\nhigh = 3").grid()
    assert grid == {"a": [0.1, pytest.approx(0.3), 0.5], "b": [1, 2, 3]}


@given(st.dictionaries(st.sampled_from(["a.x", "a.y", "b", "c.d.e"]), st.integers(), min_size=1))
def test_nesting_and_flattening_are_inverse(values: dict[str, int]) -> None:
    assert flatten(nested(values)) == values


def test_differences_name_each_setting_with_both_values() -> None:
    old = {"a": {"low": 1}, "b": 2}
    assert differences(old, {"a": {"low": 3}, "b": 2, "c": 4}) == [
        "a.low: 1 then, 3 now",
        "c: absent then, 4 now",
    ]
    assert differences(old, old) == []
