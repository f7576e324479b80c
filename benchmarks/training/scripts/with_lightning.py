"""DanQ with PyTorch Lightning, as gReLU trains: LightningModule, DataLoader with one worker."""

from __future__ import annotations

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from benchmarks.training.scripts.danq import OPTIMIZER, Samples, Stopwatch, arguments, layers


class LightningDanQ(pl.LightningModule):
    """DanQ and how it is trained."""

    def __init__(self, size: str, length: int, tasks: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*layers(size, length, tasks))
        self.loss = nn.BCEWithLogitsLoss()

    def training_step(self, batch: tuple[Tensor, Tensor], number: int) -> Tensor:
        """Return the loss of a batch, and log it."""
        x, y = batch
        loss: Tensor = self.loss(self.model(x), y)
        self.log("train_loss", loss, on_step=True, on_epoch=True, prog_bar=True, logger=False)
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return RMSprop."""
        return torch.optim.RMSprop(self.parameters(), **OPTIMIZER)


def main() -> None:
    options = arguments()
    stopwatch = Stopwatch()
    samples = Samples(options.data)
    loader = DataLoader(samples, options.batch, shuffle=True, num_workers=1)
    model = LightningDanQ(options.size, samples.codes.shape[1], samples.labels.shape[1])
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        default_root_dir=options.work,
    )
    trainer.fit(model, loader)
    stopwatch.write(options.result, "pytorch-lightning")


if __name__ == "__main__":
    main()
