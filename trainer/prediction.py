"""Predicting a split of a data set with trained weights, on any grid and with any batch size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.distributed as dist

from data_shards.dataset import ShardedDataset
from data_shards.order import sample_order
from trainer.checkpoint.reader import Checkpoint
from trainer.checkpoint.restore import restore_layer
from trainer.engine import Engine, prepare
from trainer.evaluation import predict_split
from trainer.feed import Feed
from trainer.grid import BatchLayout
from trainer.objective import unpack_bits
from trainer.planning.plan import plan_network
from trainer.recipe import shape_of
from trainer.recipes import get_recipe
from trainer.results import PredictJob
from trainer.stage import Cut
from trainer.together import together, told


def predict_worker(job: PredictJob) -> int:
    """Predict on each worker of a grid; return the number of samples.

    Every sample of the split goes through the stages once, whatever the sizes.

    Raises:
        InputError: the data set has another shape than the network was trained on.
        CorruptDataError: the weights or a shard are damaged.
    """
    device = prepare(job.device)
    data = together(lambda: ShardedDataset(job.data), device)
    recipe = get_recipe(job.config.recipe)
    network = next(n for n in recipe.networks(baselines=True) if n.name == job.network)
    layers = network.layers(job.config.size, shape_of(data.schema))
    layout = BatchLayout(job.micro_batch * job.grid.replicas, job.grid.replicas, 1)

    def inputs() -> torch.Tensor:
        rows = data.split_rows(job.split)[: job.micro_batch]
        return torch.from_numpy(data.gather("sequence", rows)).to(device)

    plan = partial(
        plan_network, layers, inputs, config=job.config, grid=job.grid, layout=layout,
        method="measured", cache=None,
    )  # fmt: skip
    decided = told(together(lambda: plan() if dist.get_rank() == 0 else None, device), source=0)
    if decided is None:
        raise RuntimeError("rank 0 has no plan")
    engine = Engine(
        layers,
        Cut(decided.cut),
        job.grid,
        layout,
        recipe.loss,
        partial(unpack_bits, tasks=len(data.schema.tasks)),
        job.config,
    )
    checkpoint = Checkpoint.open(job.weights)
    checkpoint.check_layers([layer.name for layer in layers])
    for index, module in engine.stage.local_layers():
        restore_layer(checkpoint, index, module, None, None)
    entry = data.schema.split(job.split)
    order = sample_order(entry.samples, 0, "none")
    feed = Feed(data, job.split, order, inputs=engine.is_first, targets=False)
    together(feed.warm, device)
    logits = predict_split(engine, feed, data, job.split, _telling(job, engine.is_reporter))
    if logits is not None and engine.is_reporter:
        np.save(job.out, logits.numpy())
    engine.close()
    return entry.samples


def _telling(job: PredictJob, reporter: bool) -> Callable[[int, int], None]:
    def tell(done: int, total: int) -> None:
        if reporter:
            job.progress.write_text(f"{done} {total}")

    return tell
