"""Reading ahead: items of a sequence, computed in one thread, in order, within a byte budget."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")

_DEPTH, _SMALL_DEPTH, _SMALL_BYTES = 2, 16, 8 << 20

_PATIENCE = 0.001
"""Seconds that a consumer who finds nothing ready waits for more than one item."""


class Prefetch(Generic[T]):
    """Computes the items of a sequence ahead, in order, in one thread; for one consumer.

    Ready items are held up to ``depth`` and up to ``budget_bytes``, but always one, however large.
    Beside them the thread has one item in hand.

    To wake a thread costs as much as a small item. So a consumer who finds nothing ready is woken
    when half of the most there can be are, or no more will be, or after a millisecond when one is.

    Args:
        item: from a number to the item.
        start: first number.
        stop: end number, exclusive.
        depth: items held ready at most; by default 2, or 16 of no more than 8 MiB together.
        budget_bytes: bytes of the items held ready at most; None for no such limit.
        size: bytes of an item; by default :func:`item_bytes`.

    Attributes:
        waited: seconds the consumer has waited for items in all.

    Raises:
        ValueError: ``depth`` or ``budget_bytes`` is not positive.
    """

    def __init__(
        self,
        item: Callable[[int], T],
        start: int,
        stop: int,
        depth: int | None = None,
        budget_bytes: int | None = None,
        size: Callable[[T], int] | None = None,
    ) -> None:
        if (depth is not None and depth < 1) or (budget_bytes is not None and budget_bytes < 1):
            raise ValueError(f"depth {depth} and budget_bytes {budget_bytes} must be positive")
        self.waited = 0.0
        self._left = max(stop - start, 0)
        self._shelf: _Shelf[T] = _Shelf(depth, budget_bytes, size or item_bytes)
        # The thread knows the shelf and not this object: one that is dropped unclosed stops too.
        self._thread = threading.Thread(
            target=_fill, args=(self._shelf, item, range(start, stop)), name="prefetch", daemon=True
        )
        self._thread.start()
        weakref.finalize(self, self._shelf.close)

    @property
    def produced(self) -> int:
        """Items that the thread has computed so far."""
        return self._shelf.produced

    @property
    def peak_bytes(self) -> int | None:
        """Most bytes held at once, ready and in hand; None where an item's size is not known."""
        return self._shelf.peak

    def __iter__(self) -> Iterator[T]:
        """Yield the items that are left.

        Raises:
            BaseException: what ``item`` raised, with its traceback, after the items before it.
            RuntimeError: this was closed, or belongs to the process that this one was forked from.
        """
        while self._left:
            yield self._next()  # without a name, or the last item would live until the next one

    def _next(self) -> T:
        begin = time.perf_counter()
        item = self._shelf.take()
        self.waited += time.perf_counter() - begin
        self._left -= 1
        return item

    def close(self) -> None:
        """Stop the thread, at any time and as often as one likes; ready items are let go.

        An item that is being computed can't be interrupted: this waits for it. In a forked child,
        which has no such thread, it does nothing.
        """
        if self._shelf.is_elsewhere:
            return
        self._shelf.close()
        if self._thread is not threading.current_thread():
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def item_bytes(item: Any) -> int | None:
    """Return the bytes of an array or tensor (``nbytes``), or of all in a tuple, list or mapping.

    None where something in it has no ``nbytes``.
    """
    if isinstance(item, Mapping):
        return item_bytes(list(item.values()))
    if isinstance(item, (tuple, list)):
        sizes = [item_bytes(part) for part in item]
        known = [size for size in sizes if size is not None]
        return sum(known) if len(known) == len(sizes) else None
    size = getattr(item, "nbytes", None)
    return None if size is None else int(size)


class _Bell:
    """Wakes the one thread that waits for it. Rung, it stays so until somebody has waited.

    A ``threading.Condition`` makes a lock and runs some Python for each wait and each notice.
    """

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def wait(self, seconds: float = -1) -> None:
        """Wait until it rings, or so long."""
        self._silent.acquire(timeout=seconds)

    def ring(self) -> None:
        """Ring; never called by two threads at once."""
        if self._silent.locked():
            self._silent.release()


class _Shelf(Generic[T]):
    """What the thread and the consumer share. All fields are guarded by one lock.

    Who waits says so and lets go of the lock; who changes something rings for whom it matters to.
    Then the woken one looks again, for a bell may have been rung for an earlier wait.
    """

    def __init__(
        self, depth: int | None, budget: int | None, size: Callable[[T], int | None]
    ) -> None:
        self.produced = 0
        self.peak: int | None = 0
        self._depth, self._most = (depth, depth) if depth else (_DEPTH, _SMALL_DEPTH)
        self._budget, self._size = budget, size
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._ready: deque[tuple[T, int]] = deque()
        self._held = 0
        self._error: BaseException | None = None
        self._closed = False
        self._room, self._items = _Bell(), _Bell()
        self._is_full = False  # the thread waits
        self._wanted = 0  # items ready, at which the consumer is to be woken; 0: it does not wait

    @property
    def is_elsewhere(self) -> bool:
        """Whether this process is a fork of the one that has the thread."""
        return os.getpid() != self._process

    def put(self, item: T) -> bool:
        """Wait for room, then hold an item ready; False when closed meanwhile."""
        size = self._size(item)
        if size is None and self._budget is not None:
            raise TypeError(
                f"the bytes of a {type(item).__name__} are not known: give Prefetch their size"
            )
        taking = size or 0
        with self._lock:
            self.produced += 1
            if size is None:
                self.peak = None
            elif self.peak is not None:
                self.peak = max(self.peak, self._held + size)
            while not (self._closed or self._has_room(size)):
                self._wake_consumer()  # no more will be ready, however many it wants
                self._is_full = True
                self._wait(self._room)
            if self._closed:
                return False
            self._ready.append((item, taking))
            self._held += taking
            if self._wanted and len(self._ready) >= self._wanted:
                self._wake_consumer()
            return True

    def take(self) -> T:
        """Wait for the next item."""
        if self.is_elsewhere:  # and the lock may be held by a thread that is not here
            raise RuntimeError(
                f"this Prefetch belongs to process {self._process}, and its thread did not come "
                f"along into the fork {os.getpid()}: make one in each process"
            )
        with self._lock:
            if not self._has_news():
                self._wanted = (self._most + 1) // 2
                self._wait(self._items, _PATIENCE)
            while not self._has_news():
                self._wanted = 1
                self._wait(self._items)
            self._wanted = 0
            if self._closed:
                raise RuntimeError("this Prefetch was closed before its last item")
            if not self._ready and self._error is not None:
                raise self._error
            item, size = self._ready.popleft()
            self._held -= size
            self._wake_thread()
            return item

    def end(self, error: BaseException | None = None) -> None:
        """Say that no more items come, and why: the consumer raises it after those ready."""
        with self._lock:
            self._error = error
            self._wake_consumer()

    def close(self) -> None:
        """Wake and end both sides, and let all items go."""
        if self.is_elsewhere:
            return
        with self._lock:
            self._closed = True
            self._ready.clear()
            self._error = None
            self._held = 0
            self._wake_consumer()
            self._wake_thread()

    def _has_room(self, size: int | None) -> bool:
        count = len(self._ready)
        if not count:
            return True
        held = self._held + (size or 0)
        if count >= self._depth and (size is None or held > _SMALL_BYTES):
            return False
        return count < self._most and (self._budget is None or held <= self._budget)

    def _has_news(self) -> bool:
        return self._closed or bool(self._ready) or self._error is not None

    def _wait(self, bell: _Bell, seconds: float = -1) -> None:
        """Let go of the lock until a bell rings."""
        self._lock.release()
        try:
            bell.wait(seconds)
        finally:
            self._lock.acquire()

    def _wake_consumer(self) -> None:
        if self._wanted:
            self._wanted = 0
            self._items.ring()

    def _wake_thread(self) -> None:
        if self._is_full:
            self._is_full = False
            self._room.ring()


def _fill(shelf: _Shelf[T], item: Callable[[int], T], numbers: range) -> None:
    """Compute the items, until closed or something is raised. This is the thread."""
    try:
        for number in numbers:
            if not shelf.put(item(number)):
                return
        shelf.end()
    except BaseException as error:  # the consumer raises it
        shelf.end(error)
