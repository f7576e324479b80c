"""What is made of a study: the best configuration, a table, pictures, a description, a status."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from rich.console import Console as Terminal

from data_shards.errors import InputError
from jobs.configure import configure
from jobs.runfolder import RunFolder
from jobs.sweep.drawing import PAGE, draw
from jobs.sweep.folder import SweepIdentity, SweepStatus, command, find_sweep
from jobs.sweep.messages import Budget, Told
from jobs.sweep.results import (
    best_trials,
    config_of_trial,
    description,
    load_study,
    trial_table,
    write_best,
)
from jobs.sweep.study import stored_plan
from jobs.sweep.table import SweepTable, minutes, shown
from tests.jobs.sweep.test_board import Desk, given, plan

SPACE = {
    "optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True},
    "batch_size": {"choices": [32, 64]},
    "optimizer.name": {"choices": ["sgd", "adamw"]},
}


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """A study of five complete trials, one pruned, one failed, one at work."""
    desk = Desk(tmp_path)
    board = desk.board(plan(space=SPACE))
    for value in (0.5, 0.4, 0.9, 0.3, 0.6):
        trial = given(board)
        board.report(trial.number, 1, (value + 0.1,))
        board.report(trial.number, 2, (value,))
        board.tell(trial.number, Told("complete", (value,), seconds=2.0))
    board.tell(given(board).number, Told("pruned", seconds=1.0))
    board.tell(given(board).number, Told("failed", reason="the loss of step 3 is nan"))
    given(board)
    return desk


def test_the_best_configuration_is_one_that_train_takes(desk: Desk, tmp_path: Path) -> None:
    study = load_study(desk.url, "s")
    out = tmp_path / "best.toml"
    told = write_best(study, out)
    assert told["trial"] == 3
    assert out.read_text().startswith("# trial 3 of s: loss 0.3\n")
    config = configure("danq", out, {})
    values = study.trials[3].user_attrs["replisome.values"]
    assert config.optimizer.lr == values["optimizer.lr"]
    assert config.batch_size == values["batch_size"]
    assert write_best(study, out, trial=0)["trial"] == 0
    with pytest.raises(InputError, match="there is no trial 99"):
        write_best(study, out, trial=99)
    assert config_of_trial(stored_plan(study), study.trials[3])["epochs"] == 9


def test_the_table_has_a_row_a_trial_with_settings_curves_and_reasons(
    desk: Desk, tmp_path: Path
) -> None:
    table = trial_table(load_study(desk.url, "s"))
    pq.write_table(table, tmp_path / "t.parquet")
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    assert [row["state"] for row in rows] == ["complete"] * 5 + ["pruned", "fail", "running"]
    assert rows[3]["objective.loss"] == 0.3
    assert rows[3]["optimizer.name"] in ("sgd", "adamw")
    assert json.loads(rows[3]["epochs"]) == {"1": 0.4, "2": 0.3}
    assert rows[6]["reason"] == "the loss of step 3 is nan"
    assert rows[0]["seconds"] == 2.0


def test_pictures_are_drawn_of_any_study(desk: Desk, tmp_path: Path) -> None:
    files = draw(load_study(desk.url, "s"), ("loss",), tmp_path / "figures")
    page = (tmp_path / "figures" / PAGE).read_text()
    assert "Parallel coordinates" in page
    assert page.count("plotly.js v") == 1, "the library is in the page once"
    names = {path.name for path in files[1:]}
    assert {"history.png", "importance.png", "slice.png", "contour.png"} <= names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files[1:])


def test_a_front_is_drawn_of_several_objectives(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    board = desk.board(plan(objectives=("auroc", "seconds")))
    for values in ((0.9, 3.0), (0.8, 1.0), (0.7, 2.0)):
        board.tell(given(board).number, Told("complete", values))
    study = load_study(desk.url, "s")
    assert [trial.number for trial in best_trials(study)] == [0, 1]
    names = [path.name for path in draw(study, ("auroc", "seconds"), tmp_path / "figures")]
    assert names[:2] == [PAGE, "pareto.png"]


def test_a_study_without_a_complete_trial_says_so(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.board()
    study = load_study(desk.url, "s")
    with pytest.raises(InputError, match="no trial of s is complete yet"):
        best_trials(study)
    assert "0 trials" in description(study, stored_plan(study))
    assert draw(study, ("loss",), tmp_path / "figures")[0].name == PAGE
    with pytest.raises(InputError, match="there is no study 'other'"):
        load_study(desk.url, "other")


def test_the_description_ranks_the_best_first(desk: Desk) -> None:
    study = load_study(desk.url, "s")
    lines = description(study, stored_plan(study)).splitlines()
    assert lines[0].startswith("**8 trials**")
    assert lines[4].startswith("| 3 | 0.3 |")


def test_the_table_on_a_terminal_tells_trials_counts_and_the_time_left(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    board = desk.board(budget=Budget(trials=4))
    stream = io.StringIO()
    with SweepTable(Terminal(file=stream, width=200), ("loss",), Budget(trials=4), 1) as table:
        board.tell(given(board).number, Told("complete", (0.25,), seconds=30.0))
        given(board)
        news, snapshot = board.watch(0)
        for item in news:
            table.take(item)
        table.show(snapshot)
        summary = table.summary(snapshot)
    assert "trial 0 done, loss 0.25: lr=" in stream.getvalue()
    assert summary == "1 running, 1 done, 0 pruned, 0 failed, best 0.25 (trial 0), about 90 s left"
    drawn = io.StringIO()
    Terminal(file=drawn, width=120).print(table._table(snapshot))
    assert "running" in drawn.getvalue()


def test_status_and_orders_pass_through_the_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs", "danq", "s")
    folder.path.mkdir(parents=True)
    SweepIdentity.new("study", "postgresql://ann:secret@db/x").write(folder)
    assert "secret" not in (folder.path / "sweep.json").read_text()
    assert find_sweep(tmp_path / "runs", "s").path == folder.path
    assert find_sweep(tmp_path / "runs", "danq/s").path == folder.path
    with pytest.raises(InputError, match="no sweep is called 'x'"):
        find_sweep(tmp_path / "runs", "x")
    assert SweepStatus.read(folder) is None
    (tmp_path / "desk").mkdir()
    board = Desk(tmp_path / "desk").board()
    given(board)
    SweepStatus.of(board.watch(0)[1], "1 running").write(folder)
    found = SweepStatus.read(folder)
    assert found is not None
    assert found.running[0]["value"] is None, "nothing is known of it yet"
    command(folder, "drain")
    assert (folder.path / "command").read_text() == "drain"


def test_durations_and_numbers_are_short() -> None:
    assert [minutes(s) for s in (5, 119, 600, 90_000)] == ["5 s", "119 s", "10 min", "25.0 h"]
    assert [shown(v) for v in (0.123456, float("nan"), 3, "x")] == ["0.1235", "", "3", "x"]
