"""A sweep on the terminal: a live table, or a line a trial where there is no terminal."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from rich.console import Console as Terminal
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.sweep.messages import Budget, News, Running, Snapshot
from jobs.sweep.study import ObjectiveName

_LAST = 8  # ended trials that the table shows
_ENDED = {"complete": "done", "pruned": "pruned", "failed": "failed", "returned": "waits"}


class SweepTable:
    """Shows how a sweep is doing.

    Args:
        log: the terminal, or a file.
        objectives: what trials are judged by.
        budget: when it ends, to tell the time left.
        slots: how many trials run at once.
    """

    def __init__(
        self, log: Terminal, objectives: tuple[ObjectiveName, ...], budget: Budget, slots: int
    ) -> None:
        self._log, self._objectives, self._budget, self._slots = log, objectives, budget, slots
        self._ended: list[News] = []
        self._seconds: list[float] = []
        self._live = Live(console=log, auto_refresh=False) if log.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Write a line above the table."""
        self._log.print(text, markup=False)

    def take(self, news: News) -> None:
        """Take note of something that happened."""
        if news.kind == "began":
            return
        assert news.told is not None
        self._ended.append(news)
        if news.told.ending in ("complete", "pruned"):
            self._seconds.append(news.told.seconds)
        if self._live is None:
            self.say(f"trial {news.number} {self._outcome(news)}: {settings(news.values)}")

    def show(self, snapshot: Snapshot) -> None:
        """Draw it anew."""
        if self._live is not None:
            self._live.update(self._table(snapshot), refresh=True)

    def progress(self, what: str, done: int, total: int) -> None:
        """Show how far something is that comes after the trials."""
        if self._live is not None:
            self._live.update(Text(f"{what}: {done:,} of {total:,}"), refresh=True)

    def summary(self, snapshot: Snapshot) -> str:
        """Say in a line how it stands."""
        counts = snapshot.counts
        parts = [
            f"{counts['running']} running",
            f"{counts['complete']} done",
            f"{counts['pruned']} pruned",
            f"{counts['failed']} failed",
        ]
        if snapshot.best is not None:
            number, values = snapshot.best
            parts.append(f"best {shown(values[0])} (trial {number})")
        if (left := self.time_left(snapshot)) is not None:
            parts.append(f"about {minutes(left)} left")
        if snapshot.away is not None:
            parts.append(f"the storage is away since {minutes(time.time() - snapshot.away)}")
        if snapshot.closing is not None:
            parts.append(f"no new trials: {snapshot.closing}")
        return ", ".join(parts)

    def time_left(self, snapshot: Snapshot) -> float | None:
        """Estimate the seconds that are left; None where nothing says."""
        left = []
        if self._budget.seconds is not None:
            left.append(self._budget.seconds - snapshot.wall_seconds)
        if self._budget.trials is not None and self._seconds:
            counts = snapshot.counts
            done = counts["complete"] + counts["pruned"] + counts["failed"]
            mean = sum(self._seconds) / len(self._seconds)
            left.append((self._budget.trials - done) * mean / self._slots)
        return max(0.0, min(left)) if left else None

    def _table(self, snapshot: Snapshot) -> RenderableType:
        table = Table(box=None, pad_edge=False)
        for name in ("trial", "state", "epoch", self._objectives[0], "seconds"):
            table.add_column(name, justify="left" if name == "state" else "right")
        table.add_column("settings")
        for news in self._ended[-_LAST:]:
            assert news.told is not None
            values = news.told.values
            table.add_row(
                str(news.number),
                _ENDED[news.told.ending],
                "",
                shown(values[0]) if values else "",
                f"{news.told.seconds:.1f}",
                settings(news.values),
            )
        for running in sorted(snapshot.running, key=lambda trial: trial.number):
            table.add_row(*_cells(running))
        return Group(table, Text(self.summary(snapshot)))

    def _outcome(self, news: News) -> str:
        assert news.told is not None
        if news.told.ending == "complete":
            values = zip(self._objectives, news.told.values, strict=True)
            return "done, " + ", ".join(f"{name} {shown(value)}" for name, value in values)
        reason = f" ({news.told.reason})" if news.told.reason else ""
        return _ENDED[news.told.ending] + reason


def _cells(running: Running) -> tuple[str, ...]:
    again = f" (attempt {running.attempt + 1})" if running.attempt else ""
    return (
        str(running.number),
        f"running{again}",
        str(running.epoch or ""),
        shown(running.value),
        f"{time.time() - running.began:.0f}",
        settings(running.values),
    )


def settings(values: Mapping[str, Any]) -> str:
    """Write settings in one line, each by the last part of its name."""
    return ", ".join(f"{name.rpartition('.')[2]}={shown(value)}" for name, value in values.items())


def shown(value: Any) -> str:
    """Write a value in few digits."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    return str(value)


def minutes(seconds: float) -> str:
    """Write a duration."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
