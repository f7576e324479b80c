"""The run's event log: ``metrics.jsonl``, one JSON object a line, appended by one worker.

It is the truth of a run: the tracker and the progress bars are fed from it, so neither can slow or
stop training, and what they show can be rebuilt from it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.metrics import Scores

FILE_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class Event:
    """One entry.

    Attributes:
        kind: "metrics" (numbers at a step), "progress" (how far) or "note" (a line of text).
        time: seconds since the epoch.
        network: which network it is about; empty for the run itself.
        step: optimizer steps taken.
        values: the numbers, by name; NaN and infinity are written as such.
        text: for notes and progress, what to show.
    """

    kind: str
    time: float
    network: str = ""
    step: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    text: str = ""


class EventWriter:
    """Appends events to a file; a None path swallows them, for workers that do not report."""

    def __init__(self, path: Path | None) -> None:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("a", encoding="utf-8") if path is not None else None
        if path is not None and _ends_within_a_line(path):
            self._write_text("\n")  # a writer was killed; readers pass over its last line
        self._last_progress = 0.0

    def metrics(self, network: str, step: int, values: Mapping[str, float]) -> None:
        """Log numbers at a step."""
        self._write(Event("metrics", time.time(), network, step, dict(values)))

    def note(self, network: str, text: str) -> None:
        """Log a line for people."""
        self._write(Event("note", time.time(), network, text=text))

    def progress(self, network: str, what: str, done: int, total: int) -> None:
        """Log how far something is; at most a few a second, but always the last."""
        now = time.monotonic()
        if done < total and now - self._last_progress < 0.2:
            return
        self._last_progress = now
        values = {"done": float(done), "total": float(total)}
        self._write(Event("progress", time.time(), network, values=values, text=what))

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _write(self, event: Event) -> None:
        self._write_text(json.dumps(event.__dict__) + "\n")

    def _write_text(self, text: str) -> None:
        if self._stream is not None:
            self._stream.write(text)
            self._stream.flush()


class EventReader:
    """Reads what was appended to an event log since the last look; the file may not exist yet.

    Attributes:
        offset: bytes read so far; an event log only grows.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self._path = path
        self.offset = offset

    def new(self) -> Iterator[Event]:
        """Yield the complete lines not seen before."""
        if not self._path.exists():
            return
        with self._path.open("rb") as stream:
            stream.seek(self.offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # being written
                self.offset += len(line)
                event = _parsed(line)
                if event is not None:
                    yield event


def _parsed(line: bytes) -> Event | None:
    """Return the event of a line; None for one that a killed writer left unfinished."""
    try:
        values: dict[str, Any] = json.loads(line)
    except ValueError:
        return None
    return Event(**values)


def _ends_within_a_line(path: Path) -> bool:
    with path.open("rb") as stream:
        if stream.seek(0, 2) == 0:
            return False
        stream.seek(-1, 2)
        return stream.read(1) != b"\n"


def log_scores(events: EventWriter, name: str, step: int, split: str, scores: Scores) -> None:
    """Log a split's loss and mean scores, and each task's; an undefined score is not logged."""
    values = {f"{split}/auroc": scores.auroc, f"{split}/aupr": scores.aupr}
    if scores.loss is not None:
        values[f"{split}/loss"] = scores.loss
    for task in scores.tasks:
        values[f"{split}/auroc/{task.task}"] = task.auroc
        values[f"{split}/aupr/{task.task}"] = task.aupr
    events.metrics(name, step, {key: v for key, v in values.items() if not math.isnan(v)})
