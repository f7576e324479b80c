from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainer.clock import Clock

CLOCKS = st.builds(Clock, st.integers(1, 300), st.integers(1, 40), st.integers(1, 5))


@given(CLOCKS)
def test_every_epoch_is_ended_once_and_every_sample_seen(clock: Clock) -> None:
    ended = [clock.epoch(step) for step in range(clock.steps) if clock.ends_epoch(step)]
    assert clock.steps * clock.batch_size >= clock.epochs * clock.samples
    assert (clock.steps - 1) * clock.batch_size < clock.epochs * clock.samples
    assert ended == sorted(ended)
    if clock.batch_size <= clock.samples:
        ends = sum(clock.ends_epoch(step) for step in range(clock.steps))
        assert ends in (clock.epochs, clock.epochs + 1)
    assert clock.ends_epoch(clock.steps - 1)


@given(CLOCKS)
def test_the_end_of_an_epoch_is_always_logged(clock: Clock) -> None:
    for step in range(clock.steps):
        assert clock.logs(step) or not clock.ends_epoch(step)


def test_steps_are_capped() -> None:
    assert Clock(1000, 10, 5, max_steps=7).steps == 7
    assert Clock(1000, 10, 5).steps == 500
