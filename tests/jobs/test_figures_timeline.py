from __future__ import annotations

from jobs.figures_timeline import draw_timeline
from trainer.planning.pipeline import Span
from trainer.timeline import Fractions

SPANS = [
    Span(0, "forward", 0, 10.0, 10.25),
    Span(0, "backward", 0, 10.5, 11.0),
    Span(1, "receive", 0, 10.0, 10.25),
    Span(1, "forward", 0, 10.25, 10.5),
]


def test_a_row_a_worker_from_the_first_start_to_the_last_end_in_milliseconds() -> None:
    [axes] = draw_timeline(SPANS).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["stage 0", "stage 1"]
    assert axes.get_xlim() == (0, 1000)
    assert axes.get_xlabel() == "ms"
    bars = {
        (round(box.x0), round(box.x1), round((box.y0 + box.y1) / 2))
        for collection in axes.collections
        for box in (path.get_extents() for path in collection.get_paths())
    }
    assert bars == {(0, 250, 0), (500, 1000, 0), (0, 250, 1), (250, 500, 1)}
    assert [text.get_text() for text in axes.texts] == ["0", "0", "0"]  # not on what waits


def test_rows_of_several_replicas_name_them() -> None:
    [axes] = draw_timeline(SPANS, stages=1).axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["replica 0, stage 0", "replica 1, stage 0"]


def test_fractions_stand_beside_the_rows_in_percent() -> None:
    fractions = {
        0: Fractions(0.75, 0, 0, 0, 0, bubble=0.25),
        1: Fractions(0.25, 0.25, 0, 0, 0, bubble=0.5),
    }
    _, table = draw_timeline(SPANS, fractions).axes
    rows: dict[float, list[str]] = {}
    for text in table.texts:
        rows.setdefault(text.get_position()[1], []).append(text.get_text())
    assert rows[0] == ["75.0", "0.0", "0.0", "0.0", "0.0", "25.0"]
    assert rows[1] == ["25.0", "25.0", "0.0", "0.0", "0.0", "50.0"]


def test_a_bar_too_narrow_for_its_number_has_none() -> None:
    spans = [Span(0, "forward", 0, 0.0, 1.0), Span(0, "forward", 1, 1.0, 1.001)]
    [axes] = draw_timeline(spans).axes
    assert [text.get_text() for text in axes.texts] == ["0"]
