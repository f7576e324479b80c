from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.distributed as dist
from deepspeed.runtime.pipe import schedule
from deepspeed.runtime.pipe.dualpipev import DualPipeVEngine
from deepspeed.runtime.pipe.engine import PipelineEngine
from hypothesis import given
from hypothesis import strategies as st

from tests.workers import on_workers
from trainer import timeline
from trainer.grid import Grid
from trainer.planning.pipeline import Span
from trainer.timeline import Tracer, bounds, fractions, pipeline_efficiency

CPU = torch.device("cpu")
PASSES = ("forward", "backward")


@pytest.fixture(scope="module")
def alone() -> Iterator[None]:
    """A process group of this process only."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def executing(name: str) -> Callable[..., None]:
    """A function that executes an instruction by noting it down."""

    def execute(pipeline: Pipeline, **operands: int) -> None:
        pipeline.ran.append((name, operands))

    return execute


class Pipeline:
    """Runs schedules by DeepSpeed's own loop, with instructions that do nothing."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, dict[str, Any]]] = []

    def _reserve_pipe_buffers(self, count: int) -> None:
        pass

    def run(self, instructions: schedule.PipeSchedule) -> None:
        PipelineEngine._exec_schedule(self, instructions)

    _INSTRUCTION_MAP: ClassVar = {
        instruction: executing(instruction.__name__)
        for instruction in DualPipeVEngine._INSTRUCTION_MAP
    }


def ticking() -> Callable[[], int]:
    """A clock that is a second later each time it is read."""
    ticks = itertools.count()
    return lambda: next(ticks) * 10**9


def one_f_one_b(micro_batches: int, stages: int, stage: int) -> list[tuple[str, int]]:
    """The passes of 1F1B as DeepSpeed's schedule numbers them."""
    plan = schedule.TrainSchedule(micro_batches, stages, stage)
    steps = [plan._step_to_micro_batch(i) for i in range(2 * (micro_batches + stages - 1))]
    return [(PASSES[not forward], n) for n, forward in steps if 0 <= n < micro_batches]


def test_every_instruction_of_both_engines_has_a_kind() -> None:
    maps = PipelineEngine._INSTRUCTION_MAP | DualPipeVEngine._INSTRUCTION_MAP
    assert {instruction.__name__ for instruction in maps} == timeline._KINDS.keys()


@given(stages=st.integers(1, 5), micro_batches=st.integers(1, 9), data=st.data())
def test_micro_batches_are_numbered_as_1f1b_takes_them(
    alone: None, stages: int, micro_batches: int, data: st.DataObject
) -> None:
    stage = data.draw(st.integers(0, stages - 1))
    pipeline, tracer = Pipeline(), Tracer(CPU)
    with tracer.tracing(pipeline):
        for _ in range(2):  # a step's numbers begin anew
            pipeline.run(schedule.TrainSchedule(micro_batches, stages, stage))
    passes = [(s.kind, s.micro_batch) for s in tracer.spans if s.kind in PASSES]
    assert passes == 2 * one_f_one_b(micro_batches, stages, stage)
    assert len(tracer.spans) == len(pipeline.ran)


@given(stages=st.integers(1, 4), data=st.data())
def test_micro_batches_of_dualpipev_are_numbered_in_each_of_a_workers_two_stages(
    alone: None, stages: int, data: st.DataObject
) -> None:
    count = data.draw(st.integers(2 * stages, 2 * stages + 4))
    stage = data.draw(st.integers(0, stages - 1))
    pipeline, tracer = Pipeline(), Tracer(CPU)
    with tracer.tracing(pipeline):
        pipeline.run(schedule.DualPipeVSchedule(count, stages, stage))
    # A buffer there is one of a phase and a micro-batch, see its num_pipe_buffers.
    numbers = [operands["buffer_id"] % count if operands else None for _, operands in pipeline.ran]
    assert [span.micro_batch for span in tracer.spans] == numbers


def test_spans_begin_and_end_with_their_instructions(alone: None) -> None:
    pipeline, tracer = Pipeline(), Tracer(CPU, ticking())
    with tracer.tracing(pipeline):
        pipeline.run(schedule.DataParallelSchedule(1, 1, 0))
    assert [astuple(span) for span in tracer.spans] == [
        (0, "load", 0, 1.0, 2.0),  # second 0 was when the clocks were compared
        (0, "forward", 0, 3.0, 4.0),
        (0, "backward", 0, 5.0, 6.0),
        (0, "reduce", None, 7.0, 8.0),
        (0, "step", None, 9.0, 10.0),
    ]


def test_on_a_gpu_spans_are_the_times_between_events(
    alone: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Event:
        """Happens three seconds after the one before, whatever the host does meanwhile."""

        times = itertools.count(100, 3)

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.time = next(self.times)

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, later: Event) -> float:
            assert synchronized
            return (later.time - self.time) * 1e3

    synchronized: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronized.append)
    monkeypatch.setattr(timeline, "compare_clocks", lambda device, clock: clock())
    pipeline, tracer = Pipeline(), Tracer(torch.device("cuda", 0), ticking())
    with tracer.tracing(pipeline):
        pipeline.run(schedule.InferenceSchedule(1, 1, 0))
    # The event that ties the GPU's time to the clock is 1 second after the clocks were compared.
    assert [(s.kind, s.start, s.end) for s in tracer.spans] == [
        ("load", 1.0 + 3, 1.0 + 6),
        ("forward", 1.0 + 9, 1.0 + 12),
    ]


def test_an_engine_that_is_not_traced_has_its_class_s_instructions(alone: None) -> None:
    pipeline, tracer = Pipeline(), Tracer(CPU)
    with tracer.tracing(pipeline):
        assert pipeline._INSTRUCTION_MAP is not Pipeline._INSTRUCTION_MAP
        with pytest.raises(RuntimeError, match="already"), tracer.tracing(pipeline):
            pass
    assert "_INSTRUCTION_MAP" not in vars(pipeline)
    assert pipeline._INSTRUCTION_MAP is Pipeline._INSTRUCTION_MAP
    with pytest.raises(ZeroDivisionError), tracer.tracing(pipeline):
        raise ZeroDivisionError
    assert pipeline._INSTRUCTION_MAP is Pipeline._INSTRUCTION_MAP


KINDS = ("forward", "backward", "send", "receive", "load", "reduce", "step", "other")
PARTS = {
    "forward": "compute",
    "backward": "compute",
    "send": "wait",
    "receive": "wait",
    "load": "load",
    "reduce": "reduce",
    "step": "optimizer",
    "other": "bubble",
    "gap": "bubble",
}


@given(
    pieces=st.lists(st.tuples(st.sampled_from((*KINDS, "gap")), st.integers(1, 5)), min_size=1),
    begin=st.integers(-3, 20),
    length=st.integers(1, 40),
)
def test_fractions_count_what_each_moment_was_spent_on(
    pieces: list[tuple[str, int]], begin: int, length: int
) -> None:
    spans, moments = [Span(1, "forward", 0, -5.0, 200.0)], dict[int, str]()
    now = 0
    for kind, ticks in pieces:
        if kind != "gap":
            spans.append(Span(0, kind, None, float(now), float(now + ticks)))
        moments |= dict.fromkeys(range(now, now + ticks), kind)
        now += ticks
    window = [PARTS[moments.get(moment, "gap")] for moment in range(begin, begin + length)]
    parts = asdict(fractions(spans, 0, float(begin), float(begin + length)))
    for name, value in parts.items():
        assert value == pytest.approx(window.count(name) / length, abs=1e-12)
    assert sum(parts.values()) == pytest.approx(1, abs=1e-9)


def lockstep(micro_batches: int, stages: int, replica: int, pause: float) -> list[Span]:
    """All forwards, then all backwards, of equal stages that never wait longer than they must."""
    forward, backward = 1.0, 2.0
    turn = (micro_batches + stages - 1) * forward + pause
    spans = []
    for stage, n in itertools.product(range(stages), range(micro_batches)):
        rank = replica * stages + stage
        start = (stage + n) * forward
        spans.append(Span(rank, "forward", n, start, start + forward))
        start = turn + (stages - 1 - stage + n) * backward
        spans.append(Span(rank, "backward", n, start, start + backward))
    return spans


@given(
    micro_batches=st.integers(1, 9),
    stages=st.integers(1, 5),
    pause=st.floats(0, 10),
    replicas=st.integers(1, 3),
)
def test_equal_stages_in_lockstep_are_ideal_up_to_a_pause(
    micro_batches: int, stages: int, pause: float, replicas: int
) -> None:
    spans = [
        span
        for replica in range(replicas)
        for span in lockstep(micro_batches, stages, replica, pause)
    ]
    compute = 3.0 * micro_batches
    ideal = (micro_batches + stages - 1) / micro_batches * compute
    expected = ideal / (ideal + pause)
    assert pipeline_efficiency(spans, stages) == pytest.approx(expected, rel=1e-12)


def test_efficiency_of_unequal_stages_counts_the_slowest_and_the_whole_step() -> None:
    spans = [
        Span(0, "load", 0, 0, 1),
        Span(0, "forward", 0, 1, 2),
        Span(0, "forward", 1, 2, 3),
        Span(1, "forward", 0, 2, 6),
        Span(1, "forward", 1, 6, 10),
        Span(1, "step", None, 10, 12),
    ]
    assert bounds(spans) == (0, 12)
    assert pipeline_efficiency(spans, 2) == (1 + 4 + 4) / 12


def trace_on_workers(folder: Path) -> dict[str, Any]:
    """Train small networks on two stages by both schedules, one step of three traced."""
    micro_batches, hour = 6, 3600 * 10**9

    def work() -> dict[str, Any]:
        import time

        import deepspeed
        from deepspeed.pipe import DualPipeVModule, LayerSpec, PipelineModule
        from torch import nn

        from trainer.engine import prepare
        from trainer.timeline import gather_spans

        device = prepare("cpu")
        rank = dist.get_rank()
        # As if the second worker were on a machine that has been up an hour longer.
        tracer = Tracer(device, lambda: time.perf_counter_ns() + rank * hour)
        generator = torch.Generator().manual_seed(1)
        batch = [
            (torch.randn(4, 16, generator=generator), torch.randn(4, 16, generator=generator))
            for _ in range(micro_batches)
        ]

        def train(module: Any, traced: int | None) -> dict[str, Any]:
            torch.manual_seed(0)
            network = module(
                layers=[LayerSpec(nn.Linear, 16, 16) for _ in range(4)],
                num_stages=2,
                loss_fn=nn.functional.mse_loss,
                partition_method="uniform",
            )
            pipeline, *_ = deepspeed.initialize(
                model=network,
                optimizer=torch.optim.SGD(network.parameters(), lr=0.1),
                config={
                    "train_micro_batch_size_per_gpu": 4,
                    "gradient_accumulation_steps": micro_batches,
                    "gradient_clipping": 0.0,
                    "steps_per_print": None,
                },
            )
            losses = []
            for step in range(3):
                if step == traced:
                    with tracer.tracing(pipeline):
                        loss = pipeline.train_batch(data_iter=iter(batch))
                else:
                    loss = pipeline.train_batch(data_iter=iter(batch))
                losses.append(float(loss))
                assert pipeline._INSTRUCTION_MAP is type(pipeline)._INSTRUCTION_MAP
            spans = gather_spans(tracer.spans, reporter=0)
            assert (spans is None) == (rank != 0)
            pipeline.destroy()
            return {"losses": losses, "spans": [astuple(span) for span in spans or ()]}

        return {
            "plain": train(PipelineModule, None),
            "1f1b": train(PipelineModule, 1),
            "dualpipev": train(DualPipeVModule, 1),
        }

    results: dict[str, Any] = on_workers(Grid(2, 1), work, folder)
    return results


@pytest.fixture(scope="module")
def traced(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trace_on_workers(tmp_path_factory.mktemp("traced"))


def by_rank(result: dict[str, Any]) -> list[list[Span]]:
    spans = [Span(*values) for values in result["spans"]]
    return [[span for span in spans if span.rank == rank] for rank in (0, 1)]


@pytest.mark.slow
def test_losses_are_the_same_traced_or_not(traced: dict[str, Any]) -> None:
    assert traced["plain"]["losses"] == traced["1f1b"]["losses"]
    assert len(set(traced["plain"]["losses"])) == 3
    assert traced["plain"]["spans"] == []


@pytest.mark.slow
def test_real_stages_take_micro_batches_in_1f1b_order(traced: dict[str, Any]) -> None:
    for stage, spans in enumerate(by_rank(traced["1f1b"])):
        passes = [(span.kind, span.micro_batch) for span in spans if span.kind in PASSES]
        assert passes == one_f_one_b(6, 2, stage)
        assert [span.micro_batch for span in spans if span.kind == "load"] == list(range(6))
        assert [span.kind for span in spans][-3:] == ["reduce", "reduce", "step"]


@pytest.mark.slow
def test_a_dualpipev_worker_passes_each_micro_batch_through_its_two_stages(
    traced: dict[str, Any],
) -> None:
    for spans in by_rank(traced["dualpipev"]):
        for kind in PASSES:
            numbers = [span.micro_batch for span in spans if span.kind == kind]
            assert sorted(numbers) == sorted([*range(6), *range(6)])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["1f1b", "dualpipev"])
def test_a_rank_s_spans_don_t_overlap_and_fill_the_step_with_the_bubble(
    traced: dict[str, Any], name: str
) -> None:
    ranks = by_rank(traced[name])
    begin, end = bounds([span for spans in ranks for span in spans])
    for rank, spans in enumerate(ranks):
        edges = [begin, *(edge for span in spans for edge in (span.start, span.end)), end]
        assert edges == sorted(edges)
        gaps = sum(later - earlier for earlier, later in zip(edges[::2], edges[1::2], strict=True))
        parts = fractions(spans, rank, begin, end)
        assert parts.bubble == pytest.approx(gaps / (end - begin), abs=1e-9)
        assert sum(asdict(parts).values()) == pytest.approx(1, abs=1e-9)
        assert parts.compute > 0
        assert parts.wait > 0


@pytest.mark.slow
def test_ranks_share_a_clock_though_theirs_are_an_hour_apart(traced: dict[str, Any]) -> None:
    first, second = by_rank(traced["1f1b"])
    sent = [span for span in first if span.kind == "send"]
    received = [span for span in second if span.kind == "receive"]
    assert len(sent) == 6
    for there, here in zip(sent, received, strict=True):
        assert abs(here.end - there.end) < 60
