"""Renders the result of a run as Markdown.

    python -m benchmarks.reading.table RESULT.json

The cost of a unit is CPU seconds (or, where the group says so, seconds by the clock) over units.
In each round a contender's ratio is the limit's cost of a unit over its own; the table has the
median and the quartiles over rounds.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

FORMULA = (
    "Ratio = (limit's seconds a unit) / (contender's seconds a unit) of the same round; median "
    "[first to third quartile] over rounds. In a round every contender reads the same batches, one "
    "after the other, each in its own process that stays open; every other round runs backwards. "
    "Before that, one batch of each is compared with numpy's, value for value. Files are in the "
    "page cache."
)
CLOCKS = {
    "cpu": "Seconds are of CPU, user and system, of all threads (and child processes).",
    "wall": "Seconds are by the clock on the wall; nobody is pinned to a core.",
}


def rate(slices: list[dict[str, float]], clock: str) -> float:
    """Units a second, median over rounds."""
    return statistics.median(one["units"] / one[clock] for one in slices)


def ratios(
    slices: list[dict[str, float]], limit: list[dict[str, float]], clock: str
) -> list[float]:
    """The ratio to the limit in each round."""
    return [
        (one["units"] / one[clock]) / (best["units"] / best[clock])
        for one, best in zip(slices, limit, strict=True)
    ]


def spread(values: list[float]) -> str:
    """Write median and quartiles, to three digits."""
    middle = statistics.median(values)
    if len(values) < 2:
        return short(middle)
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{short(middle)} [{short(low)} to {short(high)}]"


def short(value: float) -> str:
    """Write a number to two digits after the point, or two digits that count."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.2g}"


def render(result: dict[str, Any]) -> str:
    """Write a result file: one table, fastest first, with all that is needed to read it.

    Who gave no numbers stands below with the reason.
    """
    group, machine = result["group"], result["machine"]
    clock = group["clock"]
    measured = [one for one in group["outcomes"] if one["excluded"] is None and one["slices"]]
    missing = [one for one in group["outcomes"] if one["excluded"] is not None]
    limit = next((one for one in measured if one["name"] == group["limit"]), None)
    lines = [
        f"# {group['title']}",
        "",
        f"`{result['command']}`",
        "",
        f"{result['date']}; {machine['processor']}, {machine['cores']} cores, "
        f"{machine['memory_gib']} GiB; {machine['system']}; Python {machine['python']}; "
        f"input: {result['input']}; {result['rounds']} rounds of {result['seconds']:g} s; "
        f"load average {result['load']:.1f} at the start.",
        "",
        FORMULA,
        "",
        f"{CLOCKS[clock]} A batch has {group['batch']:,} {group['unit']}.",
        "",
        f"| reader | versions | ratio | {group['unit']} a CPU-second | by the clock | how |",
        "|---|---|---:|---:|---:|---|",
    ]
    for one in sorted(measured, key=lambda one: -rate(one["slices"], clock)):
        name = f"**{one['name']}**" if one["ours"] else one["name"]
        if one is limit:
            name, ratio = f"{name} (limit)", "1"
        elif limit is None:
            ratio = "no limit"
        else:
            ratio = spread(ratios(one["slices"], limit["slices"], clock))
        versions = ", ".join(f"{package} {number}" for package, number in one["versions"].items())
        cpu, wall = (f"{rate(one['slices'], key):,.0f}" for key in ("cpu", "wall"))
        lines.append(f"| {name} | {versions} | {ratio} | {cpu} | {wall} | {one['how']} |")
    for one in missing:
        reason = one["excluded"].replace("|", "\\|").replace("\n", " ")
        lines.append(f"| {one['name']} | | no number | | | {reason} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    print(render(json.loads(Path(sys.argv[1]).read_text())), end="")


if __name__ == "__main__":
    main()
