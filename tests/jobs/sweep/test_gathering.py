"""A list of members, trained as a sweep and gathered by the recipe."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from data_shards.dataset import ShardedDataset
from jobs.sweep.gathering import members_of
from jobs.tracking import open_store
from tests.jobs.sweep.conftest import SMALL, Sweeps, finish
from trainer.trained import assemble

pytestmark = pytest.mark.slow


def test_members_differ_in_their_seeds_and_are_averaged_on_the_test_split(
    tiny_data: Path, tmp_path: Path
) -> None:
    sweeps = Sweeps(tiny_data, tmp_path)
    answer = finish(sweeps.begin("m", *SMALL, "--set", "batch_size=20", "--members", "seeds=3"))
    assert answer["counts"]["complete"] == 3, sweeps.said()
    data, folder = ShardedDataset(tiny_data), sweeps.folder_of("m")
    members = members_of(sweeps.study("m"), folder)
    assert [member.settings for member in members] == [{"seed": 0}, {"seed": 1}, {"seed": 2}]

    rows = data.split_rows("test")
    labels = data.labels(rows)[:, 0]
    codes = torch.from_numpy(data.gather("sequence", rows))
    with torch.no_grad():
        each = np.stack(
            [assemble(one.config, data.schema, one.weights)(codes)[:, 0] for one in members]
        )
    assert len({tuple(one) for one in each}) == 3
    alone = [roc_auc_score(labels, one) for one in each]
    expected = {
        "ensemble/auroc": roc_auc_score(labels, each.mean(0)),
        "ensemble/aupr": average_precision_score(labels, each.mean(0)),
        "members/auroc_mean": np.mean(alone),
        "members/auroc_sd": np.std(alone, ddof=1),
    }
    gathered = answer["gathered"]
    assert {name: gathered[name] for name in expected} == pytest.approx(expected, abs=1e-5)

    client = open_store(sweeps.runs)
    metrics = client.get_run(answer["run_id"]).data.metrics
    assert {name: metrics[name] for name in gathered} == gathered
    paths = [file.path for file in client.list_artifacts(answer["run_id"], "members")]
    assert paths == ["members/members.csv"]
    with (folder.path / "members" / "members.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["member"] for row in table] == ["0", "1", "2", "all together"]
    assert [row["seed"] for row in table] == ["0", "1", "2", ""]
    assert float(table[-1]["auroc"]) == gathered["ensemble/auroc"]
