"""A result: what was asked, on what, and tables; written as Markdown."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("replisome", "torch", "deepspeed", "ray", "numpy")


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        header: names of the columns; the first is text, the others are set to the right.
        rows: cells, as written.
        title: a heading above it.
        notes: paragraphs below it.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    notes: Sequence[str] = ()


@dataclass
class Report:
    """What a benchmark has to say.

    Attributes:
        title: of the page.
        paragraphs: what was measured, and with which formulas.
        tables: the numbers.
    """

    title: str
    paragraphs: list[str]
    tables: list[Table] = field(default_factory=list)


def render(report: Report, command: str, load: float) -> str:
    """Write a report as Markdown, with all that is needed to read it."""
    lines = [f"# {report.title}", "", f"`{command}`", "", conditions(load), ""]
    for paragraph in report.paragraphs:
        lines += [paragraph, ""]
    for table in report.tables:
        if table.title:
            lines += [f"## {table.title}", ""]
        lines.append(_row(table.header))
        lines.append("|---|" + "---:|" * (len(table.header) - 1))
        lines += [_row(cells) for cells in table.rows]
        lines.append("")
        for note in table.notes:
            lines += [note, ""]
    return "\n".join(lines).rstrip() + "\n"


def conditions(load: float) -> str:
    """Say when, on what machine and with which versions."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    versions = []
    for name in LIBRARIES:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} not installed")
    return (
        f"{datetime.now(UTC):%Y-%m-%d}; {processor()}, {os.cpu_count()} cores, "
        f"{memory / 2**30:.0f} GiB; {platform.system()} {platform.release()}; "
        f"Python {platform.python_version()}, {', '.join(versions)}; "
        f"load average {load:.1f} at the start."
    )


def processor() -> str:
    """Return the model of the processor."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def ratios(best: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return, for each round, how fast ``other`` is beside ``best``; both are seconds a step."""
    return [a / b for a, b in zip(best, other, strict=True)]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Write the median and, of several values, the quartiles."""
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) < 3:
        return middle
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle} [{low:.{digits}f} to {high:.{digits}f}]"


def milliseconds(seconds: float) -> str:
    """Write a time with three digits that count."""
    value = seconds * 1e3
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 10 else f"{value:,.0f}"
