"""DanQ with Selene's trainer, from an HDF5 file that it reads into memory."""

from __future__ import annotations

import h5py
import torch
from selene_sdk.samplers import MultiSampler
from selene_sdk.samplers.dataloader import H5DataLoader, _H5Dataset
from selene_sdk.train_model import TrainModel
from torch import nn

from benchmarks.training.scripts.danq import OPTIMIZER, Stopwatch, arguments, layers


def main() -> None:
    options = arguments()
    stopwatch = Stopwatch()
    path = options.data / "samples.h5"
    with h5py.File(path) as file:
        count, length, _ = file["sequences"].shape
        tasks = file["targets"].shape[1]

    def loader() -> H5DataLoader:
        return H5DataLoader(_H5Dataset(str(path), in_memory=True), batch_size=options.batch)

    steps = options.epochs * count // options.batch
    trainer = TrainModel(
        nn.Sequential(*layers(options.size, length, tasks)),
        MultiSampler(loader(), loader(), [f"task{number}" for number in range(tasks)]),
        nn.BCEWithLogitsLoss(),
        torch.optim.RMSprop,
        OPTIMIZER,
        options.batch,
        steps,
        steps,  # validates once at the end
        str(options.work),
        save_checkpoint_every_n_steps=steps,
        n_validation_samples=options.batch,
        cpu_n_threads=options.threads,
        use_scheduler=False,  # PyTorch 2.13 refuses the arguments that it gives its scheduler
    )
    trainer.train_and_validate()
    stopwatch.write(options.result, "selene-sdk")


if __name__ == "__main__":
    main()
