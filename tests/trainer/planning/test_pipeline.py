"""The event simulator against closed formulas and against what must hold for any times."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.planning.pipeline import Durations, simulate
from trainer.planning.streams import Exchange, Message, streams


def equal(stages: int, forward: float, backward: float, message: float = 0.0) -> Durations:
    return Durations(
        [forward] * stages,
        [backward] * stages,
        [message] * (stages - 1),
        [0.0] * stages,
        [0.0] * stages,
    )


@pytest.mark.parametrize(("stages", "micro_batches"), [(1, 3), (2, 1), (2, 5), (4, 4), (4, 16)])
def test_equal_stages_take_the_textbook_time(stages: int, micro_batches: int) -> None:
    found = simulate(streams("1f1b", stages, micro_batches), equal(stages, 1.0, 2.0))
    assert found.seconds == 3 * (micro_batches + stages - 1)
    share = (stages - 1) / (micro_batches + stages - 1)
    assert found.bubble == pytest.approx([share] * stages)


def test_one_micro_batch_walks_there_and_back() -> None:
    durations = Durations([1, 2, 4], [8, 16, 32], [0.5, 0.25], [0, 0, 0], [3, 0, 0])
    found = simulate(streams("1f1b", 3, 1), durations)
    assert found.seconds == 63 + 2 * 0.75 + 3
    last = [span for span in found.spans if span.rank == 2]
    assert [(span.kind, span.start, span.end) for span in last] == [
        ("receive", 0, 3.75),
        ("forward", 3.75, 7.75),
        ("backward", 7.75, 39.75),
        ("send", 39.75, 40.0),
    ]
    assert found.transfer == pytest.approx([1.0, 1.5, 0.5])


def test_two_stages_wait_for_each_others_messages() -> None:
    # Forward 1, backward 1, message 1. Stage 0: F0 0-1, send 1-2, F1 2-3, and so on by hand:
    # stage 1 F0 2-3, B0 3-4; it sends the gradient 4-5, which stage 0 awaits since 3.
    found = simulate(streams("1f1b", 2, 2), equal(2, 1.0, 1.0, 1.0))
    first = [(s.kind, s.micro_batch, s.start, s.end) for s in found.spans if s.rank == 0]
    assert first == [
        ("forward", 0, 0, 1),
        ("send", 0, 1, 2),
        ("forward", 1, 2, 3),
        ("receive", 0, 3, 5),
        ("send", 1, 5, 6),
        ("backward", 0, 6, 7),
        ("receive", 1, 7, 9),
        ("backward", 1, 9, 10),
    ]
    assert found.seconds == 10


def test_dualpipev_has_a_smaller_bubble_than_1f1b() -> None:
    plain = simulate(streams("1f1b", 4, 8), equal(4, 2.0, 4.0))
    half = Durations([1.0] * 8, [2.0] * 8, [0.0] * 7, [0.0] * 4, [0.0] * 4)
    folded = simulate(streams("dualpipev", 4, 8), half)
    assert folded.seconds < plain.seconds
    assert folded.seconds >= 8 * 6


TIMES = st.integers(0, 8).map(float)


@given(st.data(), st.integers(1, 4), st.integers(1, 6), st.booleans())
@settings(max_examples=60, deadline=None)
def test_spans_do_not_overlap_and_data_arrive_before_they_are_used(
    data: st.DataObject, stages: int, extra: int, folded: bool
) -> None:
    parts = stages * 2 if folded else stages
    micro_batches = extra + (2 * stages if folded else 0)

    def draw(count: int) -> list[float]:
        return data.draw(st.lists(TIMES, min_size=count, max_size=count))

    durations = Durations(draw(parts), draw(parts), draw(parts - 1), draw(stages), draw(stages))
    orders = streams("dualpipev" if folded else "1f1b", stages, micro_batches)
    found = simulate(orders, durations)
    for rank in range(stages):
        spans = [span for span in found.spans if span.rank == rank]
        assert all(a.end <= b.start for a, b in pairwise(spans))
        work = sum(s.end - s.start for s in spans if s.kind not in ("send", "receive"))
        own = [rank, 2 * stages - 1 - rank] if folded else [rank]
        expected = sum(durations.forward[p] + durations.backward[p] for p in own) * micro_batches
        assert work == expected + durations.reduce[rank] + durations.update[rank]
        assert spans == [] or max(span.end for span in spans) <= found.seconds
    longer = Durations(
        [t + 1 for t in durations.forward], durations.backward, durations.message,
        durations.reduce, durations.update,
    )  # fmt: skip
    assert simulate(orders, longer).seconds >= found.seconds + 1


def test_streams_that_wait_for_each_other_are_an_error() -> None:
    def exchange(direction: str) -> Exchange:
        return Exchange((Message(direction, 0, 0, 0, 1),))  # type: ignore[arg-type]

    crossed = (
        (exchange("activation"), exchange("gradient")),
        (exchange("gradient"), exchange("activation")),
    )
    with pytest.raises(RuntimeError, match="wait for each other"):
        simulate(crossed, equal(2, 1.0, 1.0))
