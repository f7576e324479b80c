"""The training benchmarks run, and reckon as they say."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.training.contenders import BareLoop, alternate, micro_batches
from benchmarks.training.footprint import CommandError, watch
from benchmarks.training.networks import WORKLOADS, workload
from benchmarks.training.peers import PEERS, first_step, logged_moments, rate
from benchmarks.training.ranks import ROOT, RankError, on_ranks
from benchmarks.training.report import Report, Table, ratios, render, spread
from benchmarks.training.run import BENCHMARKS
from benchmarks.training.two_stages import passes
from trainer.planning.measuring import threads
from trainer.planning.pipeline import Span
from trainer.timeline import pipeline_efficiency

# Each takes most of a minute, so those are run here that the others share the most with.
QUICK = {
    "one_stage": ["--networks", "tiny"],
    "checkpoint": [],
    "gpu": ["--device", "cpu"],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_a_quick_run_writes_a_table_without_gaps(name: str, tmp_path: Path) -> None:
    flags = ["--quick", "--threads", "1", *QUICK[name]]
    places = ["--cache", str(tmp_path / "cache"), "--out", str(tmp_path)]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.training.run", name, *flags, *places],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    text = (tmp_path / f"training-{name}.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) >= 2
    assert "nan" not in text
    assert "no number" not in text
    assert f"benchmarks.training.run {name}" in text
    assert "torch 2.13" in text


def test_every_benchmark_has_a_report() -> None:
    for name in BENCHMARKS:
        assert callable(importlib.import_module(f"benchmarks.training.{name}").report)


@pytest.fixture
def one_thread() -> Iterator[None]:
    with threads(1):
        yield


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", WORKLOADS)
def test_a_network_learns_its_samples(name: str) -> None:
    work = workload(name, quick=True)
    loop = BareLoop(work, 2, torch.device("cpu"))
    batches = micro_batches(work.batches(1, 4), 2)
    losses = [float(loop.step(batches[0])) for _ in range(2)]
    assert all(np.isfinite(losses))
    assert losses[1] != losses[0]
    assert work.piped[0] % work.piped[1] == 0


def test_batches_are_the_same_on_every_worker() -> None:
    first, second = (workload("basenji", quick=True).batches(2, 3) for _ in range(2))
    for (x, y), (other_x, other_y) in zip(first, second, strict=True):
        assert isinstance(x, torch.Tensor)
        assert isinstance(other_x, torch.Tensor)
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_contenders_take_the_same_steps_in_turns() -> None:
    taken: list[str] = []
    contenders = {name: lambda name=name: taken.append(name) for name in ("a", "b")}
    times = alternate(contenders, rounds=4, seconds=0.0)
    assert {name: len(values) for name, values in times.items()} == {"a": 4, "b": 4}
    assert taken.count("a") == taken.count("b")
    assert "".join(taken[-8:]) == "abbaabba"


def add(left: int, right: int) -> dict[str, int]:
    return {"sum": left + right, "threads": torch.get_num_threads()}


def fail() -> None:
    raise ValueError("this is why")


@pytest.mark.slow
def test_ranks_give_back_values_or_the_reason_for_none() -> None:
    arguments = {"left": 1, "right": 2}
    assert on_ranks(2, add, arguments, threads=1) == [{"sum": 3, "threads": 1}] * 2
    with pytest.raises(RankError, match="this is why"):
        on_ranks(1, fail, {}, threads=1)


def test_a_ratio_is_taken_within_its_round_and_its_spread_is_shown() -> None:
    assert ratios([1.0, 3.0], [2.0, 4.0]) == pytest.approx([0.5, 0.75])
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0], 1) == "3.0 [2.0 to 4.0]"
    assert spread([1.0, 2.0], 1) == "1.5"


def test_a_report_has_its_command_and_its_cells() -> None:
    table = Table(("a", "b"), [("x|y", "1")], "Numbers", ["And so on."])
    text = render(Report("Title", ["How."], [table]), "python -m this", 0.25)
    assert text.startswith("# Title\n\n`python -m this`\n")
    assert "| a | b |\n|---|---:|\n| x\\|y | 1 |\n" in text
    assert "load average 0.2 at the start" in text
    assert text.endswith("And so on.\n")


def test_speed_leaves_out_first_steps_and_ends_of_epochs() -> None:
    # 10 steps an epoch, a second each; the first step takes 100, and validation 50.
    moments = [(step, 100.0 + step + (50 if step > 10 else 0)) for step in range(1, 21)]
    assert rate(moments, per_epoch=10, batch=7) == pytest.approx(7.0)
    sparse = [moment for moment in moments if moment[0] % 5 == 0]
    assert rate(sparse, per_epoch=10, batch=7) == pytest.approx(7.0)
    across = [moment for moment in moments if moment[0] in (4, 9, 12, 19)]  # one over the end
    assert rate(across, per_epoch=10, batch=7) == pytest.approx(7.0)


def test_the_first_step_is_reckoned_back_from_the_first_that_was_logged() -> None:
    assert first_step([(1, 50.0), (2, 51.0)], 1.0) == 50.0
    assert first_step([(4, 53.0), (8, 57.0)], 1.0) == 50.0


def test_moments_come_from_the_log_of_a_run(tmp_path: Path) -> None:
    events = [
        {"kind": "note", "time": 1.0, "step": 0, "values": {}},
        {"kind": "metrics", "time": 2.0, "step": 3, "values": {"train/loss": 1.0}},
        {"kind": "metrics", "time": 3.0, "step": 3, "values": {"valid/loss": 1.0}},
        {"kind": "metrics", "time": 4.0, "step": 6, "values": {"train/loss": 1.0}},
    ]
    log = tmp_path / "metrics.jsonl"
    log.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert logged_moments(log) == [(3, 2.0), (6, 4.0)]


def test_a_command_is_watched_with_its_children_or_says_why_it_failed(tmp_path: Path) -> None:
    held = "import time; x = bytearray(50_000_000); time.sleep(1.5)"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {held!r}])"
    found = watch([sys.executable, "-c", nested], tmp_path, {}, 30)
    assert found.processes == 2
    assert found.resident > 50_000_000
    with pytest.raises(CommandError, match="ValueError: this is why"):
        watch([sys.executable, "-c", "raise ValueError('this is why')"], tmp_path, {}, 30)
    with pytest.raises(CommandError, match="exit status None"):
        watch([sys.executable, "-c", "import time; time.sleep(60)"], tmp_path, {}, 0.5)


def test_every_peer_has_its_script() -> None:
    for peer in PEERS:
        script = ROOT / "benchmarks" / "training" / "scripts" / f"{peer.module}.py"
        assert not peer.module or script.is_file()


def test_the_time_of_the_passes_ends_with_the_last_backward_pass() -> None:
    def span(rank: int, kind: str, start: float, end: float) -> Span:
        number = 0 if kind in ("forward", "backward") else None
        return Span(rank, kind, number, start, end)

    spans = [
        span(0, "forward", 0, 1),
        span(1, "forward", 1, 2),
        span(1, "backward", 2, 4),
        span(1, "step", 4, 6),
        span(0, "backward", 4, 6),
        span(0, "step", 6, 8),
        span(0, "send", 8, 9),
    ]
    assert pipeline_efficiency(spans, 2) == pytest.approx(6 / 9)
    assert pipeline_efficiency(passes(spans), 2) == pytest.approx(1.0)
