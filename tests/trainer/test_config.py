from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import InputError
from trainer.config import OptimizerConfig, RunConfig, flatten, merge, resolve

DEFAULTS = {"batch_size": 100, "optimizer": {"name": "rmsprop", "lr": 1e-3}}


def test_later_layers_win_key_by_key() -> None:
    config = resolve(
        "danq",
        DEFAULTS,
        {"batch_size": 64, "optimizer": {"lr": 0.1}},
        {"optimizer": {"lr": 0.2}},
        "run.toml",
    )
    assert config.batch_size == 64
    assert (config.optimizer.name, config.optimizer.lr) == ("rmsprop", 0.2)
    assert merge({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize(
    ("file", "problem", "remedy"),
    [
        ({"batchsize": 3}, "unknown key 'batchsize'", "'batch_size'"),
        ({"optimizer": {"momentom": 0.9}}, "unknown key 'optimizer.momentom'", "'momentum'"),
        ({"grid": {"stages": 0}}, "grid.stages = 0", "correct the value"),
        ({"optimizer": {"name": "adam"}}, "optimizer.name = 'adam'", "correct the value"),
        ({"optimizer": {"lr": -1}}, "optimizer.lr = -1", "correct the value"),
        ({"epochs": "many"}, "epochs = 'many'", "correct the value"),
    ],
)
def test_a_wrong_key_or_value_of_the_file_names_the_file(
    file: dict[str, Any], problem: str, remedy: str
) -> None:
    with pytest.raises(InputError) as caught:
        resolve("danq", DEFAULTS, file, {}, Path("run.toml"))
    assert problem in str(caught.value)
    assert str(caught.value).startswith("run.toml")
    assert remedy in (caught.value.remedy or "")


def test_momentum_and_eps_default_by_optimizer() -> None:
    effective = {
        name: (c.effective_momentum, c.effective_eps)
        for name in ("sgd", "adamw", "rmsprop")
        if (c := OptimizerConfig.model_validate({"name": name}))
    }
    assert effective == {"sgd": (0.9, 1e-8), "adamw": (0.9, 1e-8), "rmsprop": (0.0, 1e-7)}
    assert OptimizerConfig(name="rmsprop", momentum=0.5).effective_momentum == 0.5


def test_flattening_gives_dotted_names() -> None:
    flat = flatten(RunConfig(recipe="danq").model_dump())
    assert flat["optimizer.lr"] == 1e-3
    assert flat["grid.stages"] == 1
