"""Saving while training goes on: each worker writes its files, the leader makes them count."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from data_shards.store.manifest import checksums
from trainer.checkpoint.commit import Attempt, Workplace
from trainer.checkpoint.format import (
    FileRecord,
    Kind,
    check_layer_name,
    flush,
    merge_parts,
    optimizer_file,
    plain_progress,
    saved_steps,
    weights_file,
    write_index,
)
from trainer.checkpoint.retention import removable
from trainer.checkpoint.snapshot import HostBuffers, LayerState


@dataclass(frozen=True)
class SaveReport:
    """How long a save took this worker.

    Attributes:
        step: optimizer steps taken.
        stalled: seconds that training waited for the save before.
        snapshot: seconds that training waited for the copy to host memory; 0 without buffers.
        write: seconds of writing in the background; the leader's has the wait for all others.
        bytes: that this worker wrote.
        saved: whether its part (the leader's: the whole) is on the disk.
    """

    step: int
    stalled: float
    snapshot: float
    write: float
    bytes: int
    saved: bool


@dataclass(frozen=True)
class _Job:
    step: int
    number: int
    states: Sequence[LayerState]
    progress: dict[str, Any]
    best: frozenset[int]
    stalled: float
    snapshot: float


class CheckpointWriter:
    """Writes one worker's share of a run's checkpoints, in the background, one at a time.

    Every worker has one, on a folder that all of them share, and calls :meth:`save` for the same
    steps in the same order. The worker of rank 0 leads: it waits for the others' files, makes the
    checkpoint appear, and removes old ones. What goes wrong is told by :meth:`faults` and does
    not stop training.

    Args:
        folder: for the checkpoints; made if missing.
        rank: of this worker.
        workers: how many there are.
        layers: names of all layers of the network.
        attempt: of letters, digits, - and _: names this start of the run's workers, and is the
            same for all of them. Files of other attempts never count, and once a leader of another
            attempt has started on the folder, this one's adds no more checkpoints.
        keep: how many of the newest checkpoints stay.
        patience: seconds that the leader waits for others once its own files are written.

    Raises:
        InputError: a layer's name can't be part of a file name.
        OSError: the folder can't be made or written to.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        workers: int,
        layers: Sequence[str],
        attempt: str,
        *,
        keep: int,
        patience: float = 120.0,
    ) -> None:
        for name in layers:
            check_layer_name(name)
        self._attempt = Attempt(folder, attempt)
        self._rank, self._workers, self._layers = rank, workers, tuple(layers)
        self._keep, self._patience = keep, patience
        self._buffers = HostBuffers()
        self._buffers_given: float | None = None
        self._stalled = 0.0
        self._saves = 0
        self._best: frozenset[int] = frozenset()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._faults: list[str] = []
        self._reports: list[SaveReport] = []
        folder.mkdir(parents=True, exist_ok=True)
        if rank == 0:
            self._attempt.begin()

    def buffers(self) -> HostBuffers:
        """Return memory to copy the next snapshot into, once the save before is done with it.

        Give it to every :func:`~trainer.checkpoint.snapshot.layer_state` of one :meth:`save`; the
        time from here to there is reported as the snapshot's.
        """
        self._wait_before()
        self._buffers_given = time.perf_counter()
        return self._buffers

    def save(
        self,
        step: int,
        states: Sequence[LayerState],
        progress: Mapping[str, Any] | None = None,
        *,
        best: Collection[int] = (),
    ) -> None:
        """Write a checkpoint in the background; waits only for the one before.

        Args:
            step: optimizer steps taken.
            states: of this worker's layers; nobody may change them any more.
            progress: what the training loop wants back; the leader's is kept.
            best: steps whose checkpoints stay, whatever their age; the leader's counts. This step
                may be among them. While none of them exists (its save failed), the best of before
                stay.

        Raises:
            ValueError: ``progress`` is not plain JSON.
        """
        plain = plain_progress(progress or {})
        given, self._buffers_given = self._buffers_given, None
        snapshot = 0.0 if given is None else time.perf_counter() - given
        self._wait_before()
        stalled, self._stalled = self._stalled, 0.0
        self._saves += 1
        job = _Job(step, self._saves, states, plain, frozenset(best), stalled, snapshot)
        # A daemon: a worker that ends without close() leaves a folder that does not count.
        self._thread = threading.Thread(
            target=self._run, args=(job,), name=f"checkpoint {step}", daemon=True
        )
        self._thread.start()

    def faults(self) -> list[str]:
        """Return what went wrong since the last call: for people, and no reason to stop."""
        with self._lock:
            faults, self._faults = self._faults, []
        return faults

    def reports(self) -> list[SaveReport]:
        """Return how long the saves took that ended since the last call."""
        with self._lock:
            reports, self._reports = self._reports, []
        return reports

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the last save to end, well or not; return whether it did within the seconds."""
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                return False
            self._thread = None
        return True

    def close(self, timeout: float | None = None) -> bool:
        """Wait for the last save, then give up on it; return whether it ended by itself."""
        if self.wait(timeout):
            return True
        self._closing.set()
        self._fault(f"a checkpoint was not written within {timeout:g} s of the end")
        return False

    def _wait_before(self) -> None:
        begin = time.perf_counter()
        self.wait()
        self._stalled += time.perf_counter() - begin

    def _fault(self, text: str) -> None:
        with self._lock:
            self._faults.append(text)

    def _run(self, job: _Job) -> None:
        """Write this worker's files and, as the leader, commit; keep what goes wrong."""
        begin = time.perf_counter()
        place = self._attempt.workplace(job.step, job.number)
        files: list[FileRecord] = []
        saved = False
        try:
            place.folder.mkdir(exist_ok=True)
            for state in job.states:
                files += write_layer(place.folder, state)
            place.hand_in(self._rank, files)
            if self._rank == 0:
                self._commit(job, place)
            saved = True
        except Exception as error:  # a thread has nobody to raise to
            self._fault(f"the checkpoint of step {job.step} was not saved: {_reason(error)}")
            if self._rank == 0:
                place.clear()
            else:
                names = [name for state in job.states for name in layer_files(state)]
                place.give_up(self._rank, names, _reason(error))
        written = sum(record.bytes for record in files)
        seconds = time.perf_counter() - begin
        with self._lock:
            self._reports.append(
                SaveReport(job.step, job.stalled, job.snapshot, seconds, written, saved)
            )

    def _commit(self, job: _Job, place: Workplace) -> None:
        parts = place.collect(self._workers, self._patience, self._closing.is_set)
        index = merge_parts(job.step, self._layers, parts, job.progress)
        place.drop_notes()
        write_index(place.folder, index)
        flush(place.folder)
        self._attempt.publish(place)
        try:
            self._retain(job)
        except (OSError, RuntimeError) as error:
            self._fault(f"old checkpoints were not removed: {_reason(error)}")

    def _retain(self, job: _Job) -> None:
        steps = saved_steps(self._attempt.folder)
        self._best = job.best.intersection(steps) or self._best
        for step in removable(steps, job.step, self._keep, self._best):
            self._attempt.remove(step)
        self._attempt.sweep(job.number)


def layer_files(state: LayerState) -> dict[str, tuple[Kind, dict[str, Tensor]]]:
    """Return what a worker writes of a layer: from each file's name to its kind and tensors."""
    files: dict[str, tuple[Kind, dict[str, Tensor]]] = {}
    if state.tensors is not None:
        files[weights_file(state.index, state.name)] = ("weights", state.tensors)
    if state.optimizer:
        files[optimizer_file(state.index, state.name, state.part)] = ("optimizer", state.optimizer)
    return files


def write_layer(folder: Path, state: LayerState) -> list[FileRecord]:
    """Write a worker's files of one layer, flushed to the disk; return what they are."""
    records = []
    for name, (kind, tensors) in layer_files(state).items():
        path = folder / name
        # Empty metadata beside no tensors makes a header that safetensors 0.8 itself can't read.
        save_file(tensors, path, (state.aliases if kind == "weights" else None) or None)
        flush(path)
        size, crc, digest = checksums(path)
        records.append(
            FileRecord(
                name=name, layer=state.index, kind=kind, bytes=size, crc32c=crc, sha256=digest
            )
        )
    return records


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
