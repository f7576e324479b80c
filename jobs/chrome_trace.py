"""A step's timeline in the Trace Event Format, which chrome://tracing and ui.perfetto.dev open.

The format: "Trace Event Format", https://github.com/catapult-project/catapult, JSON object form.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.planning.pipeline import Span

# Names that chrome://tracing reserves for colours; Perfetto chooses its own by the event's name.
_COLOURS = {
    "forward": "rail_response",
    "backward": "rail_load",
    "send": "bad",
    "receive": "thread_state_iowait",
    "load": "yellow",
    "reduce": "terrible",
    "step": "detailed_memory_dump",
    "other": "generic_work",
}


def chrome_trace(spans: Sequence[Span], stages: int) -> dict[str, Any]:
    """Describe spans as trace events: a process a replica, a thread a stage.

    Args:
        spans: of all ranks; the stages of a replica have neighbouring ranks.
        stages: workers a replica.

    Returns:
        The trace, as JSON has it. Times are in microseconds from the first start; ``args`` of an
        event hold its rank and micro-batch.
    """
    begin = min((span.start for span in spans), default=0.0)
    ranks = sorted({span.rank for span in spans})
    names = [
        event
        for replica in sorted({rank // stages for rank in ranks})
        for event in (
            _metadata("process_name", replica, name=f"replica {replica}"),
            _metadata("process_sort_index", replica, sort_index=replica),
        )
    ] + [
        event
        for rank in ranks
        for event in (
            _metadata("thread_name", rank // stages, rank % stages, name=f"stage {rank % stages}"),
            _metadata("thread_sort_index", rank // stages, rank % stages, sort_index=rank % stages),
        )
    ]
    complete = [
        {
            "ph": "X",
            "name": span.kind if span.micro_batch is None else f"{span.kind} {span.micro_batch}",
            "cat": span.kind,
            "cname": _COLOURS[span.kind],
            "pid": span.rank // stages,
            "tid": span.rank % stages,
            "ts": (span.start - begin) * 1e6,
            "dur": (span.end - span.start) * 1e6,
            "args": {"rank": span.rank, "micro_batch": span.micro_batch},
        }
        for span in sorted(spans, key=lambda span: (span.start, span.rank))
    ]
    return {"traceEvents": names + complete, "displayTimeUnit": "ms"}


def write_chrome_trace(spans: Sequence[Span], stages: int, path: Path) -> Path:
    """Write :func:`chrome_trace` to a file, best named ``*.json``; return the path."""
    path.write_text(json.dumps(chrome_trace(spans, stages), allow_nan=False), encoding="utf-8")
    return path


def _metadata(event: str, process: int, thread: int = 0, **args: str | int) -> dict[str, Any]:
    return {"ph": "M", "name": event, "pid": process, "tid": thread, "args": args}
