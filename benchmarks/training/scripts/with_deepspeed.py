"""DanQ with DeepSpeed's pipeline engine, under torchrun."""

from __future__ import annotations

import deepspeed
import torch
from deepspeed.pipe import PipelineModule
from deepspeed.utils import RepeatingLoader
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.training.scripts.danq import OPTIMIZER, Samples, Stopwatch, arguments, layers

MICRO_BATCHES = 5  # a stage of a pipeline; one stage takes the batch whole


def main() -> None:
    options = arguments()
    stopwatch = Stopwatch()
    deepspeed.init_distributed(dist_backend="gloo")
    samples = Samples(options.data)
    model = PipelineModule(
        layers=layers(options.size, samples.codes.shape[1], samples.labels.shape[1]),
        num_stages=options.stages,
        loss_fn=nn.BCEWithLogitsLoss(),
        partition_method="parameters",
    )
    parts = MICRO_BATCHES if options.stages > 1 else 1
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=torch.optim.RMSprop(model.parameters(), **OPTIMIZER),
        config={
            "train_batch_size": options.batch,
            "train_micro_batch_size_per_gpu": options.batch // parts,
            "gradient_accumulation_steps": parts,
            "gradient_clipping": 0.0,
            "steps_per_print": 100,
        },
    )
    generator = torch.Generator().manual_seed(0)  # both ends must read the same
    loader = DataLoader(
        samples, options.batch // parts, shuffle=True, generator=generator, num_workers=1
    )
    batches = iter(RepeatingLoader(loader))
    for _ in range(options.epochs * len(samples) // options.batch):
        engine.train_batch(data_iter=batches)
    if torch.distributed.get_rank() == 0:
        stopwatch.write(options.result, "deepspeed")


if __name__ == "__main__":
    main()
