"""Reading ahead: order, budget, errors, and an end without leftovers at any time."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.prefetch import Prefetch, item_bytes

Array = npt.NDArray[np.uint8]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    gc.collect()
    until(lambda: threading.active_count() <= before)


def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it never came about"
        time.sleep(0.002)


def settled(batches: Prefetch[Any]) -> int:
    """Wait until the thread has nothing to do, and say how many items it has made."""
    seen = -1
    while seen != batches.produced:
        seen = batches.produced
        time.sleep(0.05)
    return seen


def test_items_come_in_order_and_the_wait_is_counted() -> None:
    with Prefetch(lambda n: n * n, 3, 9) as batches:
        assert list(batches) == [9, 16, 25, 36, 49, 64]
        assert batches.produced == 6
        assert list(batches) == [], "there is nothing left, and no hang"
        assert batches.waited >= 0

    def slow(number: int) -> int:
        time.sleep(0.02)
        return number

    with Prefetch(slow, 0, 3) as batches:
        assert list(batches) == [0, 1, 2]
        assert batches.waited > 0.02


@pytest.mark.parametrize(("start", "stop"), [(4, 4), (4, 2)])
def test_an_empty_sequence_has_no_items(start: int, stop: int) -> None:
    with Prefetch(lambda n: n, start, stop) as batches:
        assert list(batches) == []


def test_a_second_loop_goes_on_where_the_first_stopped() -> None:
    with Prefetch(lambda n: n, 0, 6) as batches:
        for number in batches:
            if number == 2:
                break
        assert list(batches) == [3, 4, 5]


def test_the_thread_works_ahead_up_to_the_depth_and_one_in_hand() -> None:
    with Prefetch(lambda n: np.zeros(10, dtype=np.uint8), 0, 100, depth=3) as batches:
        until(lambda: batches.produced == 4)
        assert settled(batches) == 4
        next(iter(batches))
        until(lambda: batches.produced == 5)
        assert settled(batches) == 5
        assert batches.peak_bytes == 40


@pytest.mark.parametrize(
    ("budget", "made"), [(35, 4), (30, 4), (29, 3), (10, 2), (9, 2), (1, 2), (10_000, 11)]
)
def test_ready_items_stay_within_the_byte_budget_but_for_one(budget: int, made: int) -> None:
    make: Callable[[int], Array] = lambda n: np.zeros(10, dtype=np.uint8)  # noqa: E731
    with Prefetch(make, 0, 100, depth=10, budget_bytes=budget) as batches:
        until(lambda: batches.produced >= made)
        assert settled(batches) == made
        assert batches.peak_bytes == 10 * made
        assert len(list(batches)) == 100
        assert batches.produced == 100
        assert batches.peak_bytes == 10 * made


pauses = st.sampled_from([0.0, 0.0002, 0.0015])
depths = st.one_of(st.none(), st.integers(1, 20))


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 80), depths, pauses, pauses)
@settings(max_examples=40, deadline=None)
def test_items_of_any_sizes_all_arrive_and_never_exceed_budget_and_one(
    sizes: list[int], budget: int, depth: int | None, making: float, using: float
) -> None:
    def make(number: int) -> tuple[int, int]:
        if making:
            time.sleep(making)
        return number, sizes[number]

    with Prefetch(make, 0, len(sizes), depth, budget, size=lambda item: item[1]) as batches:
        seen = []
        for item in batches:
            seen.append(item)
            if using:
                time.sleep(using)
        assert seen == list(enumerate(sizes))
        assert batches.peak_bytes is not None
        assert batches.peak_bytes <= max([budget, *sizes]) + max([0, *sizes])


@pytest.mark.parametrize(
    ("size", "made"), [(1 << 19, 17), (1 << 20, 9), (3 << 20, 3), (5 << 20, 3), (None, 3)]
)
def test_without_a_depth_small_items_are_made_further_ahead(size: int | None, made: int) -> None:
    with Prefetch(lambda n: n, 0, 100, size=lambda item: size) as batches:
        until(lambda: batches.produced >= made)
        assert settled(batches) == made


def test_one_ready_item_is_given_though_the_next_never_comes() -> None:
    go_on = threading.Event()

    def item(number: int) -> int:
        if number == 1:
            assert go_on.wait(10)
        return number

    with Prefetch(item, 0, 100, depth=20) as batches:
        assert next(iter(batches)) == 0
        go_on.set()


def test_a_consumer_that_waits_is_woken_once_for_several_items(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("data_shards.prefetch._PATIENCE", 10.0)
    start, made = threading.Event(), []

    def item(number: int) -> int:
        assert start.wait(10)
        made.append(number)
        return number

    with Prefetch(item, 0, 4, depth=8) as batches:
        threading.Timer(0.05, start.set).start()
        assert next(iter(batches)) == 0
        assert made == [0, 1, 2, 3], "half of the depth, and here the end"
        assert batches.waited < 5, "and no longer"


def test_a_consumer_is_woken_when_the_budget_allows_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("data_shards.prefetch._PATIENCE", 10.0)

    def item(number: int) -> int:
        time.sleep(0.002)
        return number

    with Prefetch(item, 0, 6, depth=8, budget_bytes=25, size=lambda item: 10) as batches:
        assert list(batches) == list(range(6))
        assert batches.waited < 5


def test_bytes_of_an_item_are_those_of_its_arrays() -> None:
    array = np.zeros((3, 4), dtype=np.float32)
    tensor = torch.zeros(5, dtype=torch.int64)
    assert item_bytes(array) == 48
    assert item_bytes([(tensor, array), (tensor[:2], array)]) == 40 + 48 + 16 + 48
    assert item_bytes({"a": array, "b": [tensor]}) == 88
    assert item_bytes([]) == 0
    assert item_bytes(3) is None
    assert item_bytes([array, 3]) is None


def test_without_known_sizes_there_is_no_peak_and_a_budget_is_an_error() -> None:
    with Prefetch(lambda n: n, 0, 3) as batches:
        assert list(batches) == [0, 1, 2]
        assert batches.peak_bytes is None
    with (
        Prefetch(lambda n: n, 0, 3, budget_bytes=10) as batches,
        pytest.raises(TypeError, match="bytes of a int are not known"),
    ):
        list(batches)


def test_nonsense_is_refused_before_a_thread_starts() -> None:
    for depth, budget in ((0, None), (-1, None), (2, 0), (2, -5)):
        with pytest.raises(ValueError, match="must be positive"):
            Prefetch(lambda n: n, 0, 3, depth, budget)


def read_from_disk(number: int) -> int:
    if number == 2:
        raise OSError("the disk is gone")
    return number


def test_an_error_in_the_thread_is_raised_after_the_items_before_it_with_its_traceback() -> None:
    with Prefetch(read_from_disk, 0, 5, depth=5) as batches:
        until(lambda: batches.produced == 2)
        seen = []
        with pytest.raises(OSError, match="the disk is gone") as caught:
            for number in batches:
                seen.append(number)
        assert seen == [0, 1]
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert "read_from_disk" in names
        with pytest.raises(OSError, match="the disk is gone"):
            next(iter(batches))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_no_kind_of_error_is_lost(error: type[BaseException]) -> None:
    def item(number: int) -> int:
        raise error("here")

    with Prefetch(item, 0, 5) as batches, pytest.raises(error, match="here"):
        next(iter(batches))


def test_an_iterator_that_ends_early_in_the_thread_is_no_end_of_the_items() -> None:
    empty: Iterator[int] = iter(())
    with (
        Prefetch(lambda n: next(empty), 0, 5) as batches,
        pytest.raises(RuntimeError, match="StopIteration"),
    ):
        list(batches)


def test_closing_early_leaves_no_thread_and_no_item() -> None:
    before = threading.active_count()
    made: list[weakref.ref[Array]] = []

    def item(number: int) -> Array:
        array = np.zeros(10, dtype=np.uint8)
        made.append(weakref.ref(array))
        return array

    batches = Prefetch(item, 0, 10**9)
    assert next(iter(batches)).shape == (10,)
    batches.close()
    assert threading.active_count() == before
    assert not [ref for ref in made if ref() is not None]
    batches.close()


def test_an_item_lives_no_longer_than_its_consumer_wants_it() -> None:
    gate = threading.Semaphore(0)
    made: list[weakref.ref[Array]] = []

    def item(number: int) -> Array:
        gate.acquire()
        array = np.zeros(10, dtype=np.uint8)
        made.append(weakref.ref(array))
        return array

    batches = Prefetch(item, 0, 2)
    gate.release()
    iterator = iter(batches)
    array = next(iterator)
    del array
    until(lambda: made[0]() is None)
    gate.release()
    batches.close()


def test_closing_while_an_item_is_computed_waits_for_it_and_drops_it() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def item(number: int) -> int:
        inside.set()
        assert go_on.wait(10)
        return number

    batches = Prefetch(item, 0, 10)
    assert inside.wait(10)
    closer = threading.Thread(target=batches.close)
    closer.start()
    time.sleep(0.02)
    assert closer.is_alive(), "the item can't be interrupted"
    go_on.set()
    closer.join(10)
    assert not closer.is_alive()
    with pytest.raises(RuntimeError, match="closed before its last item"):
        next(iter(batches))


def test_closing_wakes_a_consumer_that_waits() -> None:
    go_on = threading.Event()
    raised: list[BaseException] = []
    batches = Prefetch(lambda n: go_on.wait(10), 0, 10)

    def consume() -> None:
        try:
            next(iter(batches))
        except RuntimeError as error:
            raised.append(error)

    consumer = threading.Thread(target=consume)
    consumer.start()
    time.sleep(0.02)
    closer = threading.Thread(target=batches.close)
    closer.start()
    consumer.join(10)
    assert not consumer.is_alive(), "it is woken before the item is done"
    assert "closed before its last item" in str(raised[0])
    go_on.set()
    closer.join(10)


def test_an_item_may_close_its_own_sequence() -> None:
    box: list[Prefetch[int]] = []
    ready = threading.Event()

    def item(number: int) -> int:
        assert ready.wait(10)
        box[0].close()
        return number

    box.append(Prefetch(item, 0, 10))
    ready.set()
    with pytest.raises(RuntimeError, match="closed before its last item"):
        list(box[0])


@pytest.mark.parametrize("pause", [0.0, 0.0003, 0.002])
def test_closing_at_any_moment_ends(pause: float) -> None:
    for _ in range(30):
        batches = Prefetch(lambda n: np.zeros(100, dtype=np.uint8), 0, 10**6, 3, 1000)
        time.sleep(pause)
        batches.close()


def test_one_that_is_dropped_unclosed_stops_by_itself() -> None:
    before = threading.active_count()
    batches = Prefetch(lambda n: n, 0, 10**9)
    assert next(iter(batches)) == 0
    del batches
    gc.collect()
    until(lambda: threading.active_count() == before)


def in_fork(work: Callable[[], str]) -> str:
    """Run something in a forked child that is killed after ten seconds; return what it says."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(10)
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        said = stream.read()
    _, status = os.waitpid(child, 0)
    assert status == 0, f"the child hung or died: {status}"
    return said


@pytest.mark.parametrize("locked", [False, True])
def test_a_forked_child_gets_an_error_and_no_hang(locked: bool) -> None:
    with Prefetch(lambda n: n, 0, 10) as batches:
        iterator = iter(batches)
        assert next(iterator) == 0
        if locked:  # as when the fork falls on a moment in which the thread holds it
            with batches._shelf._lock:
                said = in_fork(lambda: str(next(iterator)))
        else:
            said = in_fork(lambda: str(next(iter(batches))))
        assert said.startswith(f"RuntimeError: this Prefetch belongs to process {os.getpid()}")
        assert "make one in each process" in said
        assert list(iterator) == list(range(1, 10)), "the parent goes on"


def test_closing_in_a_forked_child_does_nothing() -> None:
    with Prefetch(lambda n: n, 0, 10) as batches:

        def close() -> str:
            batches.close()
            return "closed"

        assert in_fork(close) == "closed"
        assert list(batches) == list(range(10))
