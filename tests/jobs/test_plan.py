"""``replisome plan``: what it says, what it writes, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from jobs.plan import measured_sizes
from jobs.ranking import explain, ranking_table, refusals
from tests.trainer.planning.examples import layer
from trainer.config import RunConfig
from trainer.planning.hardware import Hardware, Link
from trainer.planning.ranking import Candidate, rank

BATCH = ("--size", "small", "--batch-size", "16", "--gpus", "2", "--device", "cpu")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    return " ".join((result.stderr + result.stdout).split())


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLISOME_CACHE", str(tmp_path / "cache"))


def test_a_plan_is_told_drawn_and_given_to_programs(danq_data: Path, tmp_path: Path) -> None:
    picture = tmp_path / "plan.png"
    result = call("plan", "danq", "--data", danq_data, *BATCH, "--picture", picture, "--json")
    assert result.exit_code == 0, said(result)
    for words in (
        "layers measured here, on a CPU",
        "fastest first",
        "best: ",
        "The next best grid",
    ):
        assert words in said(result)
    answer = json.loads(result.stdout.splitlines()[-1])
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (answer["nodes"], answer["workers_per_node"]) == (1, 2)
    assert {(c["stages"], c["replicas"]) for c in answer["candidates"]} == {(1, 1), (1, 2), (2, 1)}
    for candidate in answer["candidates"]:
        parts = candidate["micro_batches"] * candidate["micro_batch"] * candidate["replicas"]
        assert parts == 16
        assert candidate["step_seconds"] > 0
        assert len(candidate["bytes"]) == len(candidate["cut"]) == candidate["stages"]
    speeds = [candidate["samples_per_second"] for candidate in answer["candidates"]]
    assert speeds == sorted(speeds, reverse=True)
    assert len(answer["measured"]) == 4
    [kept] = (tmp_path / "cache").iterdir()
    assert len(list(kept.iterdir())) == 4, "measured once"


BAD = {
    "memory": (("--memory", "0.0001"), "none of the grids of up to 2 workers can train this"),
    "gpu": (("--device", "gpu"), "this machine has no GPU to measure on"),
    "size": (("--size", "tiny"), "recipe 'danq' has no size 'tiny'"),
    "batch": (("--batch-size", "6401"), "fewer than one batch of 6,401"),
    "picture": (("--picture", "no/such/plan.png"), "the picture can't be written"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_can_not_be_planned_is_refused(
    case: str, danq_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case == "gpu":
        monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    flags, problem = BAD[case]
    result = call("plan", "danq", "--data", danq_data, *BATCH, *flags)
    assert result.exit_code == 2, said(result)
    assert problem in said(result)


def test_a_cut_by_hand_can_not_be_planned(danq_data: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[grid]\ncut = [0, 3]\n")
    result = call("plan", "danq", "--data", danq_data, *BATCH, "--config", config)
    assert result.exit_code == 2
    assert "is for one number of stages" in said(result)


def test_help_teaches_by_example() -> None:
    text = call("plan", "--help").stdout
    assert "replisome plan danq --data x.zarr --gpus 2" in text
    assert "--json" in text


def test_sizes_to_measure_are_the_ends_and_some_between() -> None:
    assert measured_sizes([4, 2, 4, 1]) == [1, 2, 4]
    assert measured_sizes([1, 2, 4, 5, 10, 20, 25, 50, 100]) == [1, 5, 20, 100]
    assert measured_sizes([100]) == [100]


def candidates(**grid: object) -> list[Candidate]:
    costs = [layer(1.0, parameters=250, activations=2000) for _ in range(4)]
    config = RunConfig.model_validate({"recipe": "x", "batch_size": 32, "grid": grid})
    link = Link(1e-3, 1e9)
    return rank({1: costs, 32: costs}, config, Hardware(1, 4, link, link))


def test_the_choice_is_explained() -> None:
    first, second = explain(candidates(micro_batches=8))
    assert first.startswith("best: 4 stage(s) x 1 replica(s), 8 micro-batch(es) of 4")
    assert "times one worker alone" in first
    assert second.startswith("The next best grid, 3 x 1, is ")
    tight = candidates(micro_batches=8, memory_gb=9e-6)
    text = " ".join(explain(tight))
    assert "one worker alone has not the memory" in text
    assert "Parts with an r compute activations again" in text
    assert any("refused 1 x 1: no cut fits" in line for line in refusals(tight))


def test_the_table_has_the_rows_asked_for() -> None:
    table = ranking_table(candidates(micro_batches=8), top=3)
    assert table.row_count == 3
    assert next(iter(table.columns[0].cells)) == "4 x 1"
    assert next(iter(table.columns[-1].cells)) == "0,1,2,3"
