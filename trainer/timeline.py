"""The measured timeline of a step: what each stage did when, as the pipeline engine ran it.

DeepSpeed's pipeline engine looks each instruction of its schedule up in ``_INSTRUCTION_MAP``, an
attribute of its class. While a :class:`Tracer` traces, the engine has an attribute of that name of
its own, with the same functions between two looks at the clock; afterwards it has none. So an
engine that is not traced runs DeepSpeed's code and nothing else.
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from trainer.planning.pipeline import Span

# By the name of DeepSpeed's instruction. DualPipeV's sends and receives only queue; CommitP2P runs
# them and waits, which is mostly for what is to be received.
_KINDS = {
    "LoadMicroBatch": "load",
    "ForwardPass": "forward",
    "BackwardPass": "backward",
    "SendActivation": "send",
    "SendGrad": "send",
    "RecvActivation": "receive",
    "RecvGrad": "receive",
    "CommitP2P": "receive",
    "ReduceGrads": "reduce",
    "ReduceTiedGrads": "reduce",
    "OptimizerStep": "step",
}
_ROUND_TRIPS = 8

Mark = Any  # a reading of the clock: int nanoseconds, or a torch.cuda.Event
Clock = tuple[Callable[[], Mark], Callable[[Mark], float]]  # take a mark; turn one into seconds


class Tracer:
    """Records what one worker's pipeline engine does, on a clock that all workers share.

    The clock has its zero when rank 0 begins the trace. On a CPU a span is the time its instruction
    took. On a GPU, where instructions return before they are done, it is the time between two
    events on the current stream: a ``load`` is then what the GPU waited for the batch, not what the
    host spent on it while the GPU was still busy.

    Args:
        device: that the engine computes on.
        clock: of this process, in nanoseconds; it must not jump.
    """

    def __init__(
        self, device: torch.device, clock: Callable[[], int] = time.perf_counter_ns
    ) -> None:
        self._device = device
        self._clock = clock
        self._spans: tuple[Span, ...] = ()

    @property
    def spans(self) -> tuple[Span, ...]:
        """This worker's spans of the last trace, in the order they ran; they don't overlap.

        ``micro_batch`` counts from 0 within a step (where no step is taken, in evaluation, within
        the trace) and within the instruction: "send 3" may be the activations of micro-batch 3 or
        its gradients. Under DualPipeV, where a worker has two
        stages, each has its own "forward 3". None where the instruction is about no micro-batch.
        """
        return self._spans

    @contextmanager
    def tracing(self, pipeline: Any) -> Iterator[None]:
        """Trace the train or eval batches that ``pipeline`` runs in this context.

        All workers must enter together: they compare their clocks first.

        Args:
            pipeline: DeepSpeed's ``PipelineEngine`` or ``DualPipeVEngine``.

        Raises:
            RuntimeError: the engine is being traced already.
        """
        if "_INSTRUCTION_MAP" in vars(pipeline):
            raise RuntimeError("this engine is being traced already")
        shift = compare_clocks(self._device, self._clock)
        mark, seconds = self._marks(shift)
        recording = _Recording(mark)
        pipeline._INSTRUCTION_MAP = {
            instruction: recording.record(instruction.__name__, function)
            for instruction, function in pipeline._INSTRUCTION_MAP.items()
        }
        try:
            yield
        finally:
            del pipeline._INSTRUCTION_MAP
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        rank = dist.get_rank()
        self._spans = tuple(
            Span(rank, kind, micro_batch, seconds(start), seconds(end))
            for kind, micro_batch, start, end in recording.entries
        )

    def _marks(self, shift: int) -> Clock:
        """Make the clock of a trace; ``shift`` is what this process's clock is ahead, in ns."""
        if self._device.type != "cuda":
            return self._clock, lambda reading: (reading - shift) * 1e-9
        # Events tell only the time between two of them. One is tied to the clock: it has just
        # happened when the host, waiting for it, goes on (about 10 us late).
        first = _event()
        first.synchronize()
        zero = (self._clock() - shift) * 1e-9
        return _event, lambda event: zero + first.elapsed_time(event) * 1e-3


class _Recording:
    """Instructions of a trace, with the marks before and after each."""

    def __init__(self, mark: Callable[[], Mark]) -> None:
        self._mark = mark
        self._counts: Counter[tuple[str, int]] = Counter()
        self.entries: list[tuple[str, int | None, Mark, Mark]] = []

    def record(self, name: str, function: Callable[..., None]) -> Callable[..., None]:
        """Wrap the function that executes an instruction; DeepSpeed binds it to the engine."""
        kind = _KINDS.get(name, "other")

        def recorded(pipeline: Any, **operands: Any) -> None:
            start = self._mark()
            function(pipeline, **operands)
            end = self._mark()
            number = None
            if "buffer_id" in operands:  # buffers are used again; each stage takes them in order
                key = name, operands.get("phase", 0)
                number = self._counts[key]
                self._counts[key] += 1
            self.entries.append((kind, number, start, end))
            if kind == "step":
                self._counts.clear()

        return recorded


def compare_clocks(device: torch.device, clock: Callable[[], int]) -> int:
    """Find out how far this process's clock is ahead of rank 0's; all ranks call together.

    Rank 0 exchanges a few messages with each other rank in turn. A rank that answers at its time b
    a message that rank 0 sent at a and had back at c is ahead by b - (a + c) / 2, if both ways took
    equally long (NTP, RFC 5905, section 8). The median over the round trips counts. It is wrong by
    half a round trip at most: 0.1 ms over loopback, where 10 us are usual.

    Args:
        device: that the process group's messages lie on.
        clock: of this process, ns.

    Returns:
        What to take from this process's clock, ns, to have the time since rank 0 called.
    """
    message = torch.zeros(1, dtype=torch.int64, device=device)
    if dist.get_rank() != 0:
        for _ in range(1 + _ROUND_TRIPS):
            dist.recv(message, 0)
            message.fill_(clock())
            dist.send(message, 0)
        dist.recv(message, 0)
        return int(message.item())
    zero = clock()
    for rank in range(1, dist.get_world_size()):
        ahead = []
        for _ in range(1 + _ROUND_TRIPS):
            sent = clock()
            dist.send(message, rank)
            dist.recv(message, rank)
            theirs = int(message.item())  # on a GPU, this is what waits for the answer
            ahead.append(theirs - (sent + clock()) // 2)
        # The first round trip is left out: the other rank may have come late, or had to connect.
        message.fill_(zero + int(statistics.median(ahead[1:])))
        dist.send(message, rank)
    return zero


def gather_spans(
    spans: Sequence[Span], reporter: int, group: dist.ProcessGroup | None = None
) -> tuple[Span, ...] | None:
    """Bring all workers' spans together on one; all ranks of the group call.

    Args:
        spans: this worker's.
        reporter: rank that gets them.
        group: the workers; None for all.

    Returns:
        All spans by rank on the reporter, None elsewhere.
    """
    mine = [asdict(span) for span in spans]
    if dist.get_rank() != reporter:
        dist.gather_object(mine, None, dst=reporter, group=group)
        return None
    parts: list[Any] = [None] * dist.get_world_size(group)
    dist.gather_object(mine, parts, dst=reporter, group=group)
    return tuple(Span(**values) for part in parts for values in part)


@dataclass(frozen=True)
class Fractions:
    """How one worker spent a step, as parts of the step's wall time; they sum to 1.

    Attributes:
        compute: forward and backward passes.
        wait: sending and receiving; transfers block, so nearly all of it is waiting.
        load: waiting for the next micro-batch of the data.
        reduce: averaging gradients over replicas, tied weights included.
        optimizer: the optimizer's update.
        bubble: the rest, when the worker had no instruction, or one of kind "other". As transfers
            block, what the schedule itself makes a worker idle is mostly in ``wait``; here is what
            is left before its first instruction and after its last.
    """

    compute: float
    wait: float
    load: float
    reduce: float
    optimizer: float
    bubble: float


def bounds(spans: Sequence[Span]) -> tuple[float, float]:
    """Return the first start and the last end on any rank, in seconds."""
    return min(span.start for span in spans), max(span.end for span in spans)


def fractions(spans: Sequence[Span], rank: int, begin: float, end: float) -> Fractions:
    """Say how one worker spent the time between two moments.

    Args:
        spans: of any ranks; those of one rank don't overlap. What lies outside does not count.
        rank: the worker.
        begin: seconds; of a whole step, see :func:`bounds`.
        end: seconds, after ``begin``.
    """
    seconds: dict[str, float] = defaultdict(float)
    for span in spans:
        if span.rank == rank:
            seconds[span.kind] += max(0.0, min(span.end, end) - max(span.start, begin))
    wall = end - begin
    compute = (seconds["forward"] + seconds["backward"]) / wall
    wait = (seconds["send"] + seconds["receive"]) / wall
    load, reduce, step = (seconds[kind] / wall for kind in ("load", "reduce", "step"))
    return Fractions(
        compute, wait, load, reduce, step, bubble=1 - compute - wait - load - reduce - step
    )


def pipeline_efficiency(spans: Sequence[Span], stages: int) -> float:
    """Compare one step with an ideal pipeline of stages that compute as fast as these did.

    With t_s the mean time that stage s computed for a micro-batch (forward plus backward; nothing
    else counts), m micro-batches and p stages, the ideal step takes

        t_1 + ... + t_p  +  (m - 1) max t_s

    that is, one micro-batch passes through all stages, there and back, and the slowest stage takes
    the others without a pause. With equal stages it is (m + p - 1) / m times a stage's compute
    time: the bubble of 1F1B and GPipe (Narayanan et al. 2021, section 2.2). DualPipeV has a smaller
    bubble and may exceed 1.

    Stages that share a core or a GPU lengthen each other's passes; this does not show here, since
    the ideal is made of the passes as measured.

    Args:
        spans: of one training step, all ranks; the stages of a replica have neighbouring ranks.
        stages: workers a replica.

    Returns:
        The ideal step's time, of the slowest replica, over the time from first start to last end.
    """
    compute: dict[int, float] = defaultdict(float)
    micro_batches: dict[int, int] = {}
    for span in spans:
        if span.kind in ("forward", "backward"):
            compute[span.rank] += span.end - span.start
            micro_batches[span.rank] = max(
                micro_batches.get(span.rank, 0), (span.micro_batch or 0) + 1
            )
    replicas: dict[int, list[float]] = defaultdict(list)
    for rank, seconds in compute.items():
        replicas[rank // stages].append(seconds / micro_batches[rank])
    count = max(micro_batches.values())
    ideal = max(sum(times) + (count - 1) * max(times) for times in replicas.values())
    begin, end = bounds(spans)
    return ideal / (end - begin)


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def write_spans(spans: Sequence[Span], path: Path) -> None:
    """Write the spans of a trace as JSON, into a folder that is made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([asdict(span) for span in spans]))


def read_spans(path: Path) -> tuple[Span, ...]:
    """Read the spans of a trace; none if there is no such file."""
    if not path.is_file():
        return ()
    return tuple(Span(**values) for values in json.loads(path.read_text()))
