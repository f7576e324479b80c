"""What the scripts share: DanQ in plain PyTorch, the samples, and the times of the steps."""

from __future__ import annotations

import argparse
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.data import Dataset

WIDTHS = {"paper": (320, 320, 925), "small": (64, 32, 64)}
OPTIMIZER: dict[str, Any] = {"lr": 1e-3, "alpha": 0.9, "eps": 1e-7}  # of torch.optim.RMSprop


class Recurrent(nn.Module):
    """(B, C, L) -> (B, L, 2 hidden)."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the states of all positions."""
        states: Tensor = self.lstm(x.transpose(1, 2))[0]
        return states.contiguous()


def layers(size: str, length: int, tasks: int) -> list[nn.Module]:
    """DanQ: one-hot (B, 4, length) float32 -> logits (B, tasks)."""
    filters, hidden, dense = WIDTHS[size]
    steps = (length - 26 + 1) // 13
    return [
        nn.Conv1d(4, filters, 26),
        nn.ReLU(),
        nn.MaxPool1d(13),
        nn.Dropout(0.2),
        Recurrent(filters, hidden),
        nn.Dropout(0.5),
        nn.Flatten(),
        nn.Linear(steps * 2 * hidden, dense),
        nn.ReLU(),
        nn.Linear(dense, tasks),
    ]


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Codes (N, length) uint8 and labels (N, tasks) float32; each sample is made one-hot."""

    def __init__(self, folder: Path) -> None:
        self.codes = np.load(folder / "codes.npy")
        self.labels = np.load(folder / "labels.npy")
        self.table = np.eye(5, 4, dtype=np.float32)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        onehot = self.table[self.codes[index]].T
        return torch.from_numpy(np.ascontiguousarray(onehot)), torch.from_numpy(self.labels[index])


class Stopwatch:
    """Takes the time after each step of any PyTorch optimizer."""

    def __init__(self) -> None:
        self._times: list[float] = []
        register_optimizer_step_post_hook(lambda *_: self._times.append(time.time()))

    def write(self, path: Path, *packages: str) -> None:
        """Write times and versions."""
        versions = {name: version(name) for name in ("torch", *packages)}
        path.write_text(json.dumps({"times": self._times, "versions": versions}))


def arguments() -> Any:
    """Parse what the benchmark says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="folder of the samples")
    parser.add_argument("--size", choices=list(WIDTHS))
    parser.add_argument("--batch", type=int)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--stages", type=int, default=1)
    parser.add_argument("--result", type=Path, help="JSON file for the times")
    parser.add_argument("--work", type=Path, help="folder for what the library writes")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options
