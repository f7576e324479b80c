"""Talking to a person on stderr, and to a program in one JSON line at the end of stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console as Terminal
from rich.console import RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_LINE_EVERY = 10.0  # seconds between lines of progress where there is no terminal to draw bars on


@dataclass
class Console:
    """Where the output of a command goes.

    Attributes:
        json: whether stdout is for a program: then people's text goes to stderr.
        seconds: wall time of each step of the command, filled by :meth:`step`.
    """

    json: bool
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.log = Terminal(stderr=True, highlight=False)
        self.page = self.log if self.json else Terminal(highlight=False)

    def say(self, text: str) -> None:
        """Write a line of progress to stderr."""
        self.log.print(text, markup=False, soft_wrap=True)

    def show(self, what: RenderableType) -> None:
        """Write a result for people: stdout, or stderr when stdout is for a program."""
        self.page.print(what, markup=False, soft_wrap=isinstance(what, str))

    def result(self, values: Mapping[str, Any]) -> None:
        """End a command: with ``--json``, write the result as stdout's last line."""
        if self.json:
            sys.stdout.write(json.dumps({"ok": True, **values}) + "\n")
            sys.stdout.flush()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step of the command."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begin

    @contextmanager
    def bars(self) -> Iterator[Bars]:
        """Open a place for progress bars."""
        bars = Bars(self.log)
        try:
            yield bars
        finally:
            bars.close()


class Bars:
    """Progress of named things: bars on a terminal, now and then a line where there is none."""

    def __init__(self, log: Terminal) -> None:
        self._log = log
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, tuple[float, int]] = {}
        self._progress: Progress | None = None
        if log.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description:32}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=log,
            )
            self._progress.start()

    def update(self, name: str, done: int, total: int) -> None:
        """Show how far a thing is."""
        if self._progress is not None:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=total)
            self._progress.update(self._tasks[name], completed=done, total=total)
            return
        now = time.monotonic()
        last, last_done = self._said.get(name, (0.0, -1))
        if 0 < done != last_done and (done == total or now - last >= _LINE_EVERY):
            self._said[name] = (now, done)
            self._log.print(f"{name}: {done} of {total}", markup=False)

    def say(self, text: str) -> None:
        """Write a line above the bars."""
        self._log.print(text, markup=False)

    def close(self) -> None:
        """Leave the bars as they are."""
        if self._progress is not None:
            self._progress.stop()
