"""Memory of each stage, against one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.training.contenders import (
    BareLoop,
    bare_step,
    build_engine,
    config_of,
    engine_step,
    micro_batches,
)
from benchmarks.training.effort import Effort
from benchmarks.training.networks import Batch, Workload, workload
from benchmarks.training.ranks import on_ranks
from benchmarks.training.report import Report, Table
from trainer.engine import prepare
from trainer.grid import BatchLayout, Grid
from trainer.planning.plan import plan_network

NETWORKS = ("danq", "dgex")
_STEPS = 4


def resident(entry: str) -> int:
    """Return an entry of /proc/self/status in bytes: VmRSS, or VmHWM, its most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {entry}")


def watch(build: Callable[[], Callable[[], object]]) -> dict[str, int]:
    """Build something and let it take steps; return bytes above what was there before.

    Returns:
        ``base`` before; ``peak`` above it at most; ``after`` above it at the end.
    """
    Path("/proc/self/clear_refs").write_text("5")  # the most starts again from now
    base = resident("VmRSS")
    step = build()
    for _ in range(_STEPS):
        step()
    return {
        "base": base,
        "peak": resident("VmHWM") - base,
        "after": resident("VmRSS") - base,
    }


def bare(network: str, quick: bool) -> dict[str, int]:
    """One process with nothing but PyTorch."""
    work = workload(network, quick=quick)
    batches = _batches(work)

    def build() -> Callable[[], object]:
        return bare_step(
            BareLoop(work, work.piped[0] // work.piped[1], torch.device("cpu")), batches
        )

    return watch(build)


def piped(network: str, quick: bool, cut: list[int]) -> dict[str, int]:
    """One stage of the engine; as many as there are workers."""
    prepare("cpu")
    work = workload(network, quick=quick)
    batches = _batches(work)

    def build() -> Callable[[], object]:
        engine = build_engine(work, work.piped[0], work.piped[1], tuple(cut))
        return engine_step(engine, work, batches)

    return watch(build)


def measured_cut(network: str, quick: bool, stages: int) -> tuple[int, ...]:
    """Cut by measured time; in a process of its own, as measuring takes memory."""
    work = workload(network, quick=quick)
    return plan_network(
        work.layers,
        lambda: _batches(work)[0][0][0],
        config=config_of(work, work.piped[0], stages=stages),
        grid=Grid(stages, 1),
        layout=BatchLayout(work.piped[0], 1, work.piped[1]),
        method="measured",
        cache=None,
    ).cut


def _batches(work: Workload) -> list[list[Batch]]:
    return micro_batches(work.batches(1, work.piped[0]), work.piped[1])


def report(effort: Effort) -> Report:
    """Measure and write up."""
    rows = []
    for network in effort.chosen(NETWORKS):
        work = workload(network, quick=effort.quick)
        arguments = {"network": network, "quick": effort.quick}
        single = on_ranks(1, bare, arguments, threads=1)[0]
        rows.append(_row(work, "bare PyTorch, one process", [single], single["peak"]))
        for stages in (1, 2, 4):
            cut = on_ranks(1, measured_cut, arguments | {"stages": stages}, threads=1)[0]
            staged = arguments | {"cut": cut}
            found = on_ranks(stages, piped, staged, threads=1)
            name = f"{stages} stage{'s' if stages > 1 else ''}"
            rows.append(_row(work, name, found, single["peak"]))
    return Report(
        "Memory of a stage, against one process",
        [
            "Peak = (most resident memory of the process while the network is built and takes "
            f"{_STEPS} steps, VmHWM) - (resident memory after the imports and the start of the "
            "process group). Largest stage = (its peak) / (peak of one process with nothing but "
            "PyTorch, in the same micro-batches). Stages are cut by measured time, not to balance "
            "memory. Base is what each process has before: PyTorch and DeepSpeed, shared in part.",
        ],
        [
            Table(
                (
                    "network",
                    "processes",
                    "samples in micro-batches",
                    "peak of each, MB",
                    "largest stage",
                    "base, MB",
                ),
                rows,
            )
        ],
    )


def _row(work: Workload, name: str, found: list[dict[str, int]], single: int) -> tuple[str, ...]:
    peaks = [one["peak"] for one in found]
    return (
        f"{work.name} ({work.about})",
        name,
        f"{work.piped[0]} in {work.piped[1]}",
        " / ".join(f"{peak / 1e6:,.0f}" for peak in peaks),
        f"{max(peaks) / single:.2f}",
        f"{max(one['base'] for one in found) / 1e6:,.0f}",
    )
