"""Workers wait for each other, and learn of each other's failure."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.ranks import on_ranks

pytestmark = pytest.mark.slow


def outcomes() -> dict[str, Any]:
    """Meet several times; one rank is late, fails, or has something to tell."""
    import torch
    import torch.distributed as dist

    from trainer.together import OtherWorkerError, together, told

    rank, cpu = dist.get_rank(), torch.device("cpu")
    found: dict[str, Any] = {}

    begin = time.perf_counter()
    found["late"] = together(lambda: time.sleep(0.4 * rank) or rank, cpu)
    found["waited"] = time.perf_counter() - begin

    def fail() -> int:
        if rank == 1:
            raise ArithmeticError("made up")
        return 5

    try:
        together(fail, cpu)
    except (ArithmeticError, OtherWorkerError) as error:
        found["failure"] = type(error).__name__, str(error)
    found["told"] = told({"from": rank}, source=2)
    return found


def test_all_go_on_when_the_last_is_done_and_all_learn_of_a_failure() -> None:
    first, second, third = on_ranks(3, outcomes)
    assert [each["late"] for each in (first, second, third)] == [0, 1, 2]
    assert first["waited"] > 0.7, "it waited for the slowest"
    assert second["failure"] == ("ArithmeticError", "made up")
    assert first["failure"] == third["failure"] == ("OtherWorkerError", "another worker failed")
    assert first["told"] == second["told"] == third["told"] == {"from": 2}
