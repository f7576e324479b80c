"""A ranking of grids, for people: table, explanation, picture; and for programs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.table import Table

from data_shards.errors import InputError

if TYPE_CHECKING:
    from trainer.planning.ranking import Candidate


def ranking_table(candidates: Sequence[Candidate], top: int) -> Table:
    """Make the table of the best candidates."""
    table = Table(
        title="predicted, fastest first; grid: stages x replicas", title_justify="left", box=SIMPLE
    )
    for name in ("grid", "micro-batches", "step ms", "samples/s", "bubble %"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("memory a stage", "cut"):
        table.add_column(name, overflow="fold")
    for candidate in candidates[:top]:
        found, layout = candidate.prediction, candidate.layout
        if found is None or layout is None:
            break
        table.add_row(
            _grid(candidate),
            f"{layout.micro_batches} of {layout.micro_batch}",
            _short(found.seconds * 1e3),
            _short(found.samples_per_second),
            f"{100 * found.bubble:.0f}",
            _memory(found.bytes),
            _cut(found.cut, found.recompute) + (" zero 1" if candidate.zero else ""),
        )
    return table


def _short(number: float) -> str:
    """Write three digits, or all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _memory(sizes: Sequence[int]) -> str:
    unit, name = (1e9, "GB") if max(sizes) >= 1e9 else (1e6, "MB")
    return "/".join(f"{size / unit:.3g}" for size in sizes) + f" {name}"


def _grid(candidate: Candidate) -> str:
    return f"{candidate.grid.stages} x {candidate.grid.replicas}"


def _cut(cut: Sequence[int], recompute: Sequence[bool]) -> str:
    """Write a cut, an r behind the parts that compute their activations again."""
    return ",".join(f"{first}{'r' * again}" for first, again in zip(cut, recompute, strict=True))


def explain(candidates: Sequence[Candidate]) -> list[str]:
    """Say in a few sentences why the first candidate is the first."""
    best = candidates[0]
    if best.prediction is None or best.layout is None:
        return [f"nothing can be trained: {best.refused}"]
    found = best.prediction
    text = (
        f"best: {best.grid.stages} stage(s) x {best.grid.replicas} replica(s), "
        f"{best.layout.micro_batches} micro-batch(es) of {best.layout.micro_batch}, "
        f"{_short(found.samples_per_second)} samples/s"
    )
    alone = _first(candidates, lambda other: other.grid.workers == 1)
    if alone is None:
        text += "; one worker alone has not the memory"
    elif best.grid.workers > 1 and alone.prediction is not None:
        gain = found.samples_per_second / alone.prediction.samples_per_second
        text += f", {gain:.2f} times one worker alone"
    lines = [text + "."]
    if found.sharing > 1.01:
        lines.append(f"Workers share cores, which makes the step {found.sharing:.2f} times longer.")
    if any(found.recompute):
        lines.append("Parts with an r compute activations again: they would not fit else.")
    if best.zero:
        lines.append("Replicas share out the optimizer's state (grid.zero = 1).")
    other = _first(candidates, lambda other: other.grid != best.grid)
    if other is not None and other.prediction is not None:
        slower = found.samples_per_second / other.prediction.samples_per_second - 1
        lines.append(
            f"The next best grid, {_grid(other)}, is {100 * slower:.1f} % slower"
            f"{_reason(best, other)}."
        )
    return lines


def _reason(best: Candidate, other: Candidate) -> str:
    """Name what costs the other more than the best, the greatest first."""
    if best.prediction is None or other.prediction is None:
        return ""
    mine, theirs = best.prediction, other.prediction
    more = {
        "stages wait for each other": theirs.bubble * theirs.timeline.seconds
        - mine.bubble * mine.timeline.seconds,
        "transfers between stages take": theirs.transfer * theirs.timeline.seconds
        - mine.transfer * mine.timeline.seconds,
        "averaging gradients takes": theirs.reduce - mine.reduce,
        "the optimizer's step takes": theirs.update - mine.update,
    }
    name, seconds = max(more.items(), key=lambda item: item[1])
    if seconds < 0.3 * abs(theirs.seconds - mine.seconds):
        fewer = other.grid.workers < best.grid.workers
        return ": it has fewer workers" if fewer else ""
    return f": {name} {_short(1e3 * seconds)} ms longer a step"


def _first(candidates: Sequence[Candidate], which: Callable[[Candidate], bool]) -> Candidate | None:
    return next((c for c in candidates if c.prediction is not None and which(c)), None)


def refusals(candidates: Sequence[Candidate]) -> list[str]:
    """Say which grids are refused, and why; and how many variants of the others are."""
    possible = {candidate.grid for candidate in candidates if not candidate.refused}
    reasons: dict[str, str] = {}
    variants = 0
    for candidate in candidates:
        if candidate.refused and candidate.grid in possible:
            variants += 1
        elif candidate.refused:
            reasons[_grid(candidate)] = candidate.refused
    lines = [f"refused {grid}: {reason}" for grid, reason in reasons.items()]
    if len(lines) > 8:
        lines = [*lines[:7], f"and {len(lines) - 7} more grids (--json says why)"]
    if variants:
        lines.append(f"refused of these grids: {variants} number(s) of micro-batches (--json)")
    return lines


def plain(candidate: Candidate) -> dict[str, Any]:
    """Return a candidate as plain values."""
    found, layout = candidate.prediction, candidate.layout
    values: dict[str, Any] = {
        "stages": candidate.grid.stages,
        "replicas": candidate.grid.replicas,
        "micro_batches": None if layout is None else layout.micro_batches,
        "micro_batch": None if layout is None else layout.micro_batch,
        "zero": candidate.zero,
        "refused": candidate.refused or None,
    }
    if found is not None:
        values |= {
            "step_seconds": found.seconds,
            "samples_per_second": found.samples_per_second,
            "bubble": found.bubble,
            "transfer": found.transfer,
            "reduce_seconds": found.reduce,
            "update_seconds": found.update,
            "sharing": found.sharing,
            "bytes": list(found.bytes),
            "cut": list(found.cut),
            "recompute": list(found.recompute),
        }
    return values


def draw_best(best: Candidate, path: Path) -> None:
    """Draw the timeline of a step of the best candidate.

    Raises:
        InputError: the file can't be written.
    """
    from jobs.figures import save
    from jobs.figures_timeline import draw_timeline
    from trainer.timeline import bounds, fractions

    if best.prediction is None or best.layout is None:
        raise ValueError("there is nothing to draw")
    spans = best.prediction.timeline.spans
    begin, end = bounds(spans)
    title = (
        f"predicted step, {_grid(best)}, {best.layout.micro_batches} micro-batches of "
        f"{best.layout.micro_batch}: {best.prediction.seconds * 1e3:.3g} ms"
    )
    if best.prediction.sharing > 1.01:
        title += f" ({best.prediction.sharing:.2f} times what is drawn: workers share cores)"
    shares = {rank: fractions(spans, rank, begin, end) for rank in range(best.grid.stages)}
    try:
        save(draw_timeline(spans, shares, title=title), path)
    except OSError as error:
        raise InputError(
            f"the picture can't be written: {error.strerror}",
            path=path,
            remedy="give a file in a folder that is there and may be written",
        ) from None
