from __future__ import annotations

import math
from pathlib import Path

from trainer.events import EventReader, EventWriter


def test_events_are_read_as_they_were_written_each_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    reader = EventReader(path)
    assert list(reader.new()) == []
    writer = EventWriter(path)
    writer.metrics("danq", 7, {"train/loss": 0.5, "valid/auroc": math.nan})
    writer.note("danq", "a note")
    first, second = reader.new()
    assert (first.kind, first.network, first.step) == ("metrics", "danq", 7)
    assert first.values["train/loss"] == 0.5
    assert math.isnan(first.values["valid/auroc"])
    assert (second.kind, second.text) == ("note", "a note")
    assert list(reader.new()) == []
    writer.progress("danq", "training", 3, 3)
    [third] = reader.new()
    assert (third.text, third.values) == ("training", {"done": 3.0, "total": 3.0})
    writer.close()


def test_a_line_that_is_being_written_waits(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    EventWriter(path).note("", "whole")
    with path.open("a") as stream:
        stream.write('{"kind": "note", "ti')
    reader = EventReader(path)
    assert [event.text for event in reader.new()] == ["whole"]
    with path.open("a") as stream:
        stream.write('me": 1.0, "text": "now"}\n')
    assert [event.text for event in reader.new()] == ["now"]


def test_progress_is_thinned_but_its_end_never_is(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    writer = EventWriter(path)
    for done in range(1, 1001):
        writer.progress("", "x", done, 1000)
    events = list(EventReader(path).new())
    assert len(events) < 100
    assert events[-1].values["done"] == 1000


def test_a_worker_that_does_not_report_writes_nothing(tmp_path: Path) -> None:
    writer = EventWriter(None)
    writer.metrics("", 0, {"x": 1.0})
    writer.close()
    assert list(tmp_path.iterdir()) == []
