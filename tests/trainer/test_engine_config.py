"""No DeepSpeed setting that training passes through is left to its default."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from trainer.config import OptimizerConfig
from trainer.engine import build_optimizer, deepspeed_config
from trainer.grid import BatchLayout


def test_clipping_is_always_written_because_its_default_clips() -> None:
    from deepspeed.runtime import constants

    assert constants.GRADIENT_CLIPPING_DEFAULT == 1.0, "the trap is gone; this note can go too"
    config = deepspeed_config(BatchLayout(12, 2, 3), OptimizerConfig())
    assert config["gradient_clipping"] == 0.0
    assert deepspeed_config(BatchLayout(12, 2, 3), OptimizerConfig(clip=0.5))[
        "gradient_clipping"
    ] == 0.5  # fmt: skip
    assert (
        config["train_batch_size"],
        config["train_micro_batch_size_per_gpu"],
        config["gradient_accumulation_steps"],
    ) == (12, 2, 3)


@pytest.mark.parametrize("name", ["sgd", "adamw", "rmsprop"])
def test_optimizers_get_every_argument_and_only_trainable_weights(name: str) -> None:
    frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
    config = OptimizerConfig.model_validate(
        {"name": name, "lr": 0.5, "momentum": 0.7, "weight_decay": 0.1, "eps": 1e-5}
    )
    optimizer = build_optimizer(config, [nn.Parameter(torch.zeros(3)), frozen])
    [group] = optimizer.param_groups
    assert len(group["params"]) == 1
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.1)
    if name == "adamw":
        assert group["betas"] == (0.7, 0.999)
    else:
        assert group["momentum"] == 0.7
    if name != "sgd":
        assert group["eps"] == 1e-5


def test_a_stage_without_weights_is_not_asked_for_an_optimizer() -> None:
    frozen = nn.Parameter(torch.zeros(2), requires_grad=False)
    with pytest.raises(ValueError, match="empty parameter list"):
        build_optimizer(OptimizerConfig(), [frozen])
