"""Several trained networks as one: the mean of their probabilities, beside each of them."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from data_shards.dataset import ShardedDataset
from trainer.metrics import Scores, mask_targets, score
from trainer.recipe import Advance, Member
from trainer.trained import assemble

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_BATCH = 512  # samples at a time; changes memory and speed only
_SPLIT = "test"
TABLE = "members.csv"


def average_members(
    data: ShardedDataset, members: Sequence[Member], folder: Path, advance: Advance
) -> dict[str, float]:
    """Score each member and their mean on the test split, in this process.

    The mean of probabilities is the usual ensemble of networks that differ in their seeds
    (Lakshminarayanan et al. 2017, NeurIPS, section 2.4).

    Args:
        data: that all were trained on.
        members: at least one.
        folder: gets ``members.csv``: a row a member, and one for all together.
        advance: told how many batches are done.

    Returns:
        ``ensemble/auroc`` and ``ensemble/aupr``, and of single members mean and standard deviation
        (``members/auroc_mean``, ``members/auroc_sd``; 0 for one member).
    """
    rows = data.split_rows(_SPLIT)
    targets = torch.from_numpy(mask_targets(data.labels(rows), data.schema.tasks))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batches = len(range(0, len(rows), _BATCH))
    total: Tensor = torch.zeros(targets.shape, dtype=torch.float64)
    scored: list[tuple[str, Scores]] = []
    for place, member in enumerate(members):
        network = assemble(member.config, data.schema, member.weights).to(device)
        parts = []
        for batch in range(batches):
            parts.append(_predict(network, data, rows[batch * _BATCH :][:_BATCH], device))
            advance(place * batches + batch + 1, len(members) * batches)
        found = torch.cat(parts)
        total += found
        scored.append((str(member.number), score(found, targets, data.schema.tasks)))
    together = score((total / len(members)).float(), targets, data.schema.tasks)
    _write(folder / TABLE, members, [*scored, ("all together", together)])
    figures = {"ensemble/auroc": together.auroc, "ensemble/aupr": together.aupr}
    for name in ("auroc", "aupr"):
        values = [getattr(scores, name) for _, scores in scored]
        figures[f"members/{name}_mean"] = statistics.fmean(values)
        figures[f"members/{name}_sd"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return figures


@torch.no_grad()
def _predict(
    network: nn.Module, data: ShardedDataset, rows: npt.NDArray[np.int64], device: torch.device
) -> Tensor:
    codes = torch.from_numpy(data.gather("sequence", rows)).to(device)
    predicted: Tensor = network(codes).cpu()
    return predicted


def _write(path: Path, members: Sequence[Member], scored: Sequence[tuple[str, Scores]]) -> None:
    names = sorted({name for member in members for name in member.settings})
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["member", *names, "auroc", "aupr"])
        settings = [*(member.settings for member in members), {}]
        for (name, scores), given in zip(scored, settings, strict=True):
            values = [given.get(setting, "") for setting in names]
            writer.writerow([name, *values, scores.auroc, scores.aupr])
