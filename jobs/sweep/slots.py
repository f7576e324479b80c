"""The slots as the driver sees them: a thread each, which starts a fresh group when one is lost."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from jobs.cluster import Share
from jobs.launch import run_group
from jobs.lost import MemoryLostError, NodeLostError, WorkersLostError
from jobs.nodes import Node, most_replicas, place, responding
from jobs.sweep.messages import Told, ask
from jobs.sweep.slot import SlotJob, work_slot
from trainer.grid import Grid, grid_of

_STARTS = 3  # groups in a row that may fail without having had a trial
_WAIT = 1.0  # seconds between two looks for room
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory", "MemoryError")

Say = Callable[[str], None]


class Slots:
    """Keeps slots at work until the board has no more trials.

    Args:
        job: what the slots are told, apart from their number.
        count: how many there are.
        workers: what each worker gets.
        log: folder for Ray Train's own files.
        say: told of lost groups.
        halve: whether a trial that runs out of memory is tried again with half the micro-batch.
    """

    def __init__(
        self, job: SlotJob, count: int, workers: Share, log: Path, say: Say, *, halve: bool
    ) -> None:
        self._job, self._workers, self._log, self._say = job, workers, log, say
        self._halve = halve
        self._grid: Grid = grid_of(job.config.grid)
        self._halved: dict[int, int] = {}
        self._taken: dict[int, list[str]] = {}
        self._mute: set[str] = set()
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self.errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._keep, args=(number,), name=f"slot {number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def alive(self) -> int:
        """How many slots are at work."""
        return sum(thread.is_alive() for thread in self._threads)

    def end(self) -> None:
        """Start no more groups."""
        self._ending.set()

    def _keep(self, number: int) -> None:
        """Start a group, and another one when it is lost, until it has nothing to do."""
        fruitless, attempt = 0, 0
        while not self._ending.is_set():
            found = self._room(number)
            if found is None:
                return
            with self._lock:
                job = replace(self._job, number=number, halved=dict(self._halved))
            storage = self._log / f"slot-{number}-{attempt}"
            attempt += 1
            try:
                run_group(
                    work_slot,
                    job,
                    self._grid,
                    self._workers,
                    storage,
                    found=found,
                    hang_seconds=job.config.failure.hang_seconds,
                )
                return
            except Exception as error:
                if self._ending.is_set():
                    return
                fruitless = 0 if self._lost(number, error) else fruitless + 1
                if fruitless == _STARTS:
                    self.errors.append(error)
                    return
            finally:
                with self._lock:
                    self._taken.pop(number, None)

    def _lost(self, slot: int, error: Exception) -> bool:
        """Tell the board; return whether the group had a trial."""
        numbers: list[int] = ask(self._job.board.at_work, slot)
        reason = str(error).partition("\n")[0] or type(error).__name__
        if not isinstance(error, WorkersLostError):
            reason = f"{type(error).__name__}: {reason}"
        if gone := self._gone(slot):  # Ray itself may take a quarter of a minute to see it
            reason = f"{gone} is gone"
        told = Told("failed", reason=reason)
        count = not gone and not isinstance(error, NodeLostError)
        if isinstance(error, MemoryLostError) or any(sign in reason for sign in _NO_MEMORY):
            told = replace(told, extra={"out_of_memory": True})
            if self._halve and numbers:
                count = False
                for number in numbers:
                    with self._lock:
                        self._halved[number] = self._halved.get(number, 0) + 1
        ask(self._job.board.crashed, slot, told, count)
        which = f"trial {numbers[0]} in slot {slot}" if numbers else f"slot {slot}"
        self._say(f"{which}: {reason}; a fresh worker group starts")
        return bool(numbers)

    def _gone(self, slot: int) -> str:
        """Name the nodes of a slot that do not answer any more; nothing if all do."""
        with self._lock:
            there = {node.id for node in responding(self._mute, self._say)}
            lost = sorted(set(self._taken.get(slot, [])) - there)
        return ", ".join(f"node {node[:8]}" for node in lost)

    def _room(self, slot: int) -> Sequence[Node] | None:
        """Wait for room for a slot's workers; return the nodes with what is left of them."""
        told = False
        while not self._ending.wait(_WAIT if told else 0.0):
            with self._lock:
                left = [self._left(node) for node in responding(self._mute, self._say)]
                if most_replicas(left, self._workers.resources, self._grid.stages) >= (
                    self._grid.replicas
                ):
                    places = place(left, self._workers.resources, self._grid)
                    assert places is not None
                    self._taken[slot] = places
                    return left
            if ask(self._job.board.over):
                return None
            if not told:
                self._say(f"slot {slot}: waiting for room for its {self._grid.workers} worker(s)")
            told = True
        return None

    def _left(self, node: Node) -> Node:
        """Return a node with what other slots leave of it."""
        taken = sum(places.count(node.id) for places in self._taken.values())
        need = self._workers.resources
        return replace(
            node,
            resources={
                name: amount - taken * need.get(name, 0.0)
                for name, amount in node.resources.items()
            },
        )
