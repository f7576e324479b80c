"""Pictures and tables of a run, also where a score is undefined or tasks are many."""

from __future__ import annotations

import math
from pathlib import Path

from jobs.figures import draw_comparison, draw_stages, draw_training, save
from jobs.record import results_table
from trainer.events import EventWriter
from trainer.metrics import Curves, Scores, TaskScore
from trainer.planning.costs import LayerCost
from trainer.results import StagePlan


def scores(tasks: int) -> Scores:
    one = [TaskScore(f"t{i}", 10, 5, 0.5 + i / 100, 0.25) for i in range(tasks)]
    undefined = TaskScore("none", 10, 0, math.nan, math.nan)
    curves = [Curves(task.task, [0, 1], [0, 1], [1, 0], [0.5, 1]) for task in one]
    return Scores(10, 0.3, (*one, undefined), tuple(curves))


def test_the_table_has_a_row_a_task_and_a_column_a_model() -> None:
    table = results_table({"danq": scores(2), "6-mer-lr": scores(2)}).splitlines()
    assert table[2] == "| task | danq | 6-mer-lr |"
    assert table[4] == "| mean | **0.505 / 0.250** | **0.505 / 0.250** |"
    assert table[6] == "| t1 | 0.510 / 0.250 | 0.510 / 0.250 |"
    assert table[7] == "| none | undefined | undefined |"


def test_training_is_drawn_from_the_event_log(tmp_path: Path) -> None:
    writer = EventWriter(tmp_path / "metrics.jsonl")
    for step in (10, 20):
        writer.metrics("danq", step, {"train/loss": 1.0 / step})
    writer.metrics("danq", 20, {"valid/loss": 0.5, "valid/auroc": 0.9, "valid/aupr": 0.8})
    left, right = draw_training(tmp_path / "metrics.jsonl").axes
    assert [list(line.get_xdata()) for line in left.get_lines()] == [[10, 20], [20]]
    assert len(right.get_lines()) == 2


def test_stages_and_comparison_are_drawn_to_files(tmp_path: Path) -> None:
    costs = tuple(LayerCost(name, 1e-3, 2e-3, 5, 20, 8, 8) for name in "abc")
    plans = {
        "danq": StagePlan(("a", "b", "c"), (5, 5, 5), (0, 2), costs, (False, True), "measured"),
        "other": StagePlan(("a", "b"), (5, 5), (0,), (), (False,), "given"),
    }
    figures = (draw_stages(plans), draw_comparison({"danq": scores(3), "other": scores(3)}))
    for number, figure in enumerate(figures):
        path = save(figure, tmp_path / f"{number}.png")
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 5000
    first = figures[0].axes[0]
    colours = [patch.get_facecolor() for patch in first.patches]
    assert colours[0] == colours[1] != colours[2], "a colour a stage"
