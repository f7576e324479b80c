"""No DeepSpeed setting that training passes through is left to its default."""

from __future__ import annotations

from trainer.engine import deepspeed_config
from trainer.grid import BatchLayout


def test_clipping_is_always_written_because_its_default_clips() -> None:
    from deepspeed.runtime import constants

    assert constants.GRADIENT_CLIPPING_DEFAULT == 1.0, "the trap is gone; this note can go too"
    config = deepspeed_config(BatchLayout(12, 2, 3), clip=0.0)
    assert config["gradient_clipping"] == 0.0
    assert deepspeed_config(BatchLayout(12, 2, 3), clip=0.5)["gradient_clipping"] == 0.5
    assert (
        config["train_batch_size"],
        config["train_micro_batch_size_per_gpu"],
        config["gradient_accumulation_steps"],
    ) == (12, 2, 3)
