"""Two stages on two cores: how near to an ideal pipeline, and which cut is the fastest."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, get_args

import torch
import torch.distributed as dist

from benchmarks.training.contenders import (
    alternate,
    build_engine,
    config_of,
    engine_step,
    median,
    micro_batches,
)
from benchmarks.training.effort import Effort
from benchmarks.training.networks import Workload, workload
from benchmarks.training.ranks import on_ranks
from benchmarks.training.report import Report, Table, milliseconds, ratios, spread
from trainer.config import CutMethod
from trainer.engine import Engine, prepare
from trainer.grid import BatchLayout, Grid
from trainer.planning.pipeline import Span
from trainer.planning.plan import plan_network
from trainer.recipe import Activations
from trainer.timeline import Tracer, bounds, fractions, gather_spans, pipeline_efficiency
from trainer.together import told

NETWORKS = ("danq", "dgex", "pileup", "basenji")
METHODS: tuple[CutMethod, ...] = get_args(CutMethod)
STAGES = 2
_POOL = 2  # batches in memory, read in turn
_TRACED = 5  # steps


def cuts_of(work: Workload) -> dict[CutMethod, tuple[int, ...]]:
    """Cut a network by each method; rank 0 does, while the other waits, and tells it."""
    batch, parts = work.piped
    config, grid = config_of(work, batch, stages=STAGES), Grid(STAGES, 1)
    layout = BatchLayout(batch, 1, parts)

    def inputs() -> Activations:
        return work.batches(1, layout.micro_batch)[0][0]

    cuts: dict[CutMethod, tuple[int, ...]] = {}
    if dist.get_rank() == 0:
        for method in METHODS:
            plan = plan_network(
                work.layers,
                inputs,
                config=config,
                grid=grid,
                layout=layout,
                method=method,
                cache=None,
            )
            cuts[method] = plan.cut
    return told(cuts, source=0)


def compare(network: str, quick: bool, rounds: int, seconds: float) -> dict[str, Any]:
    """Time the cuts in turns, then trace some steps of each; every worker runs this."""
    prepare("cpu")
    work = workload(network, quick=quick)
    batch, parts = work.piped
    cuts = cuts_of(work)
    batches = micro_batches(work.batches(_POOL, batch), parts)
    engines = {cut: build_engine(work, batch, parts, cut) for cut in set(cuts.values())}
    steps = {str(cut): engine_step(engine, work, batches) for cut, engine in engines.items()}
    # Sets have an order of their own in each process.
    times = alternate(dict(sorted(steps.items())), rounds, seconds)
    traces = {
        str(cut): [_trace(engine, batches[0], work) for _ in range(_TRACED)]
        for cut, engine in sorted(engines.items())
    }
    return {
        "name": work.name,
        "about": work.about,
        "batch": batch,
        "parts": parts,
        "layers": [layer.name for layer in work.layers],
        "cuts": {method: list(cut) for method, cut in cuts.items()},
        "times": {str(cuts[method]): times[str(cuts[method])] for method in cuts},
        "traces": traces,
    }


def _trace(engine: Engine, batch: Sequence[Any], work: Workload) -> dict[str, Any] | None:
    """Trace one step; the reporter returns what it comes to."""
    tracer = Tracer(torch.device("cpu"))
    with tracer.tracing(engine.pipeline):
        engine.train_step(0, batch, work.optimizer.lr)
    spans = gather_spans(tracer.spans, engine.grid.reporter)
    if spans is None:
        return None
    begin, end = bounds(spans)
    parts = [fractions(spans, rank, begin, end) for rank in range(STAGES)]
    return {
        "efficiency": pipeline_efficiency(spans, STAGES),
        "passes": pipeline_efficiency(passes(spans), STAGES),
        "compute": [part.compute for part in parts],
        "wait": [part.wait + part.load for part in parts],
        "optimizer": [part.optimizer for part in parts],
        "bubble": [part.bubble + part.reduce for part in parts],
    }


def passes(spans: Sequence[Span]) -> list[Span]:
    """Return the spans without the update, and all that follows the last pass."""
    last = max(span.end for span in spans if span.kind in ("forward", "backward"))
    return [span for span in spans if span.kind != "step" and span.end <= last]


def alone(network: str, quick: bool, rounds: int, seconds: float) -> dict[str, Any]:
    """Time the same micro-batches in one stage; in a process of its own."""
    prepare("cpu")
    work = workload(network, quick=quick)
    batch, parts = work.piped
    engine = build_engine(work, batch, parts)
    step = engine_step(engine, work, micro_batches(work.batches(_POOL, batch), parts))
    return alternate({"one": step}, rounds, seconds)


FORMULA = (
    "Ideal step = t1 + t2 + (m - 1) max(t1, t2), with ts the mean time that stage s computed for "
    "one of the m micro-batches (forward plus backward), measured in the same step: with equal "
    "stages (m + p - 1) / m of a stage's compute time, for p stages. Efficiency = ideal step / "
    "measured step, from the first start of an instruction to the end of the last, optimizer "
    "included; of the passes alone: up to the end of the last backward pass. Median over traced "
    "steps. `trainer.timeline` measures both. Compute, wait (for the other stage and for data), "
    "optimizer and the rest are parts of the measured step, stage 0 / stage 1."
)


def report(effort: Effort) -> Report:
    """Measure and write up."""
    found, singles = [], {}
    for network in effort.chosen(NETWORKS):
        arguments = {
            "network": network,
            "quick": effort.quick,
            "rounds": effort.rounds,
            "seconds": effort.seconds,
        }
        # The last stage has the traces.
        found.append(on_ranks(STAGES, compare, arguments, threads=1)[-1])
        few = arguments | {"rounds": min(effort.rounds, 3)}
        singles[found[-1]["name"]] = on_ranks(1, alone, few, threads=STAGES)[0]["one"]
    return Report(
        "Two stages on two cores",
        [FORMULA, f"{effort.describe()}, one thread a stage; {_TRACED} steps of each cut traced."],
        [_efficiency(found, singles), _methods(found)],
    )


def _efficiency(found: Sequence[dict[str, Any]], singles: dict[str, list[float]]) -> Table:
    rows = []
    for one in found:
        cut = str(tuple(one["cuts"]["measured"]))
        traces, step = one["traces"][cut], median(one["times"][cut])

        def middle(key: str, traces: Any = traces) -> str:
            return " / ".join(
                f"{median([trace[key][stage] for trace in traces]):.0%}" for stage in range(STAGES)
            )

        rows.append(
            (
                f"{one['name']} ({one['about']})",
                f"{one['batch']} in {one['parts']}",
                spread([trace["efficiency"] for trace in traces], 2),
                spread([trace["passes"] for trace in traces], 2),
                *(middle(key) for key in ("compute", "wait", "optimizer", "bubble")),
                milliseconds(step),
                milliseconds(median(singles[one["name"]])),
            )
        )
    return Table(
        (
            "network",
            "samples in micro-batches",
            "efficiency",
            "of the passes",
            "compute",
            "wait",
            "optimizer",
            "rest",
            "ms a step",
            "one stage with two threads, ms",
        ),
        rows,
        "Against an ideal pipeline, with the measured cut",
    )


def _methods(found: Sequence[dict[str, Any]]) -> Table:
    rows = []
    for one in found:
        measured = one["times"][str(tuple(one["cuts"]["measured"]))]
        for method in METHODS:
            cut = one["cuts"][method]
            times = one["times"][str(tuple(cut))]
            same = [other for other in METHODS if one["cuts"][other] == cut and other != method]
            rows.append(
                (
                    one["name"],
                    method,
                    _stages(one["layers"], cut),
                    milliseconds(median(times)),
                    "1" if method == "measured" else spread(ratios(measured, times)),
                    f"as {same[0]}" if same else "",
                )
            )
    return Table(
        ("network", "cut by", "stages", "ms a step", "speed beside the measured cut", "same cut"),
        rows,
        "The measured cut against DeepSpeed's methods",
        [
            "Speed = (seconds a step with the measured cut) / (seconds with this one) of the same "
            "round; below 1, the measured cut is faster. All cuts of a network are in the same two "
            "processes and take steps in turn. `parameters` and `uniform` are DeepSpeed's methods "
            "(its `profile` is not implemented)."
        ],
    )


def _stages(layers: Sequence[str], cut: Sequence[int]) -> str:
    """Write which layers each stage has."""
    pieces = [layers[start:stop] for start, stop in pairwise([*cut, len(layers)])]
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else part[0] for part in pieces)
