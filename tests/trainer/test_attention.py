"""When to save and when to leave: one decides, and all know at the same step."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.ranks import on_ranks
from trainer.config import CheckpointConfig

pytestmark = pytest.mark.slow

STEP = 0.02  # seconds of the made-up clock


def decisions(
    steps: int, seconds: float, every: int | None, call: int | None
) -> list[tuple[bool, bool]]:
    """Take steps of a made-up clock; the reporter is called away before the step ``call``."""
    import torch
    import torch.distributed as dist

    from trainer.attention import Attention

    rank, now, at = dist.get_rank(), [0.0], [0]

    def clock() -> float:
        return now[0] if rank == 1 else 1e9 - 7 * now[0]  # only the reporter's may matter

    attention = Attention(
        CheckpointConfig(seconds=seconds, steps=every),
        1,
        torch.device("cpu"),
        lambda: rank == 1 and call is not None and at[0] >= call,
        clock,
    )
    found = []
    for step in range(steps):
        at[0] = step
        now[0] += STEP
        decision = attention.after(step)
        if decision.save:
            attention.saved()
        found.append((decision.save, decision.leave))
    return found


def saves(found: list[tuple[bool, bool]]) -> list[int]:
    return [step for step, (save, _) in enumerate(found) if save]


def test_all_decide_alike_by_one_clock_and_by_steps() -> None:
    each = on_ranks(2, decisions, 200, 1.0, 35, None)
    assert each[0] == each[1]
    found = saves(each[0])
    assert {34, 69, 104, 139, 174} <= set(found)
    gaps = [later - sooner for sooner, later in pairwise(found)]
    assert max(gaps) <= 1.0 / STEP + 0.25 / STEP + 1, "no longer than the interval and a look"


def test_without_steps_it_saves_by_the_clock_alone() -> None:
    [found, other] = on_ranks(2, decisions, 300, 2.0, None, None)
    assert found == other
    gaps = [later - sooner for sooner, later in pairwise(saves(found))]
    assert gaps
    assert all(2.0 / STEP - 1 <= gap <= 2.25 / STEP + 1 for gap in gaps)


def test_called_away_all_save_and_leave_at_the_same_step_soon() -> None:
    [found, other] = on_ranks(2, decisions, 120, 1000.0, None, 50)
    assert found == other
    leaves = [step for step, (_, leave) in enumerate(found) if leave]
    assert 50 <= leaves[0] <= 50 + 0.25 / STEP + 1
    assert found[leaves[0]] == (True, True), "nothing is left behind"
