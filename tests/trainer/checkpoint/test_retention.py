"""What stays of a run's checkpoints."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.checkpoint.retention import removable

STEPS = st.integers(0, 30)


def test_the_newest_and_the_best_stay() -> None:
    assert removable([10, 20, 30, 40, 50], 50, keep=2, best={20}) == [10, 30]


def test_what_lies_beyond_the_one_just_committed_goes() -> None:
    assert removable([10, 20, 90], 20, keep=2, best=()) == [90]
    assert removable([10, 20, 90], 20, keep=1, best={90}) == [10]


@given(st.sets(STEPS), STEPS, st.integers(1, 5), st.sets(STEPS))
def test_the_committed_one_always_stays_and_so_do_as_many_as_asked_for(
    others: set[int], committed: int, keep: int, best: set[int]
) -> None:
    steps = others | {committed}
    gone = removable(steps, committed, keep, best)
    stay = steps - set(gone)
    assert gone == sorted(set(gone))
    assert set(gone) <= steps
    assert committed in stay
    assert best & steps <= stay
    up_to = sorted(step for step in steps if step <= committed)
    assert set(up_to[-keep:]) <= stay
    assert len(stay - best) <= keep


def test_keeping_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        removable([1], 1, keep=0, best=())
