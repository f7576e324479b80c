"""Saving and restoring a network, all its workers together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from data_shards.errors import CorruptDataError
from trainer.checkpoint.format import saved_steps, step_folder
from trainer.checkpoint.reader import Checkpoint, find_latest
from trainer.checkpoint.restore import restore_layer
from trainer.checkpoint.snapshot import HostBuffers, LayerState, layer_state
from trainer.checkpoint.writer import CheckpointWriter
from trainer.engine import Engine
from trainer.progress import Progress
from trainer.results import TrainJob
from trainer.together import together, told

Note = Callable[[str], None]

_RETRIES, _PAUSE = 5, 5.0  # of writing the best weights at the end, seconds between


@dataclass(frozen=True)
class Saved:
    """A checkpoint to go on from, the same on every worker."""

    folder: Path
    progress: Progress


def state_folder(job: TrainJob, network: str) -> Path:
    """Where a network's newest states are, to go on from."""
    return job.checkpoints / network / "state"


def best_folder(job: TrainJob, network: str) -> Path:
    """Where the weights of a network's best epoch are."""
    return job.checkpoints / network / "best"


def latest(job: TrainJob, network: str, device: torch.device, note: Note) -> Saved | None:
    """Find the newest good checkpoint of a network; one worker looks, and tells the others.

    Raises:
        CorruptDataError: there are checkpoints, and all are damaged.
    """

    def look() -> Saved | None:
        if dist.get_rank() != 0:
            return None
        found = find_latest(state_folder(job, network), notes.append)
        if found is None:
            return None
        return Saved(found.folder, Progress.model_validate(found.progress))

    notes: list[str] = []
    saved = told(together(look, device), source=0)
    for text in told(notes, source=0):
        note(text)
    return saved


class Saver:
    """Writes a network's checkpoints: its state now and then, and the weights of its best epoch.

    Args:
        job: what the worker was told.
        network: name of the network.
        layers: names of its layers.
        engine: the network.
        note: told what went wrong, which does not stop training.
    """

    def __init__(
        self, job: TrainJob, network: str, layers: Sequence[str], engine: Engine, note: Note
    ) -> None:
        self._job, self._network, self._engine, self._note = job, network, engine, note
        self._layers = tuple(layers)
        rank, workers = dist.get_rank(), job.grid.workers
        start = f"{job.attempt}-{int(time.time())}"
        attempt = told(start, source=0)
        self._state = CheckpointWriter(
            state_folder(job, network),
            rank,
            workers,
            layers,
            attempt,
            keep=job.config.checkpoint.keep,
        )
        self._best = CheckpointWriter(
            best_folder(job, network), rank, workers, layers, attempt, keep=1
        )
        self._best_states: tuple[Progress, list[LayerState]] | None = None  # until they are on disk
        self.stalled = 0.0

    def save(self, progress: Progress) -> None:
        """Save the state in the background; every worker calls this after the same step."""
        self._settle_best()
        begin = time.perf_counter()
        states = self._states(self._state.buffers(), optimizer=True)
        self._state.save(progress.step, states, progress.model_dump(mode="json"))
        self.stalled += time.perf_counter() - begin
        self._tell_faults()

    def save_best(self, progress: Progress) -> None:
        """Keep the weights as they are now, averaged if they are, as those of the best epoch."""
        begin = time.perf_counter()
        with self._engine.averaged():
            states = self._states(HostBuffers(), optimizer=False)
        self._best_states = progress, states
        self._best.save(progress.step, states, progress.model_dump(mode="json"))
        self.stalled += time.perf_counter() - begin
        self._tell_faults()

    def restore(self, saved: Saved) -> Progress:
        """Load a checkpoint into the engine, whatever grid wrote it.

        Raises:
            CorruptDataError: a file is damaged.
            InputError: it is another network's, or another optimizer's.
        """
        checkpoint = Checkpoint.open(saved.folder)
        checkpoint.check_layers(self._layers)
        for index, module in self._engine.stage.local_layers():
            restore_layer(
                checkpoint, index, module, self._engine.optimizer, self._engine.averages(index)
            )
        self._engine.guard.restore(saved.progress.recent, saved.progress.skipped)
        grid, layout = self._job.grid, self._job.layout
        plan = {"stages": grid.stages, "folded": grid.folded, "micro_batch": layout.micro_batch}
        return saved.progress.model_copy(update=plan)

    def restore_best(self, progress: Progress) -> None:
        """Load the weights of the best epoch.

        Raises:
            CorruptDataError: they are damaged, or could not be written however often.
        """
        self._state.wait()
        for _ in range(_RETRIES):
            if self._settle_best(wait=True):
                break
            time.sleep(_PAUSE)
        self._tell_faults()
        if not told(progress.best_step in saved_steps(self._folder), source=0):
            raise CorruptDataError(
                f"{self._folder}: the weights of epoch {progress.best_epoch} could not be written; "
                f"free some space, then: replisome train --resume {self._job.run_folder}"
            )
        checkpoint = Checkpoint.open(self.best_folder(progress))
        checkpoint.check_layers(self._layers)
        for index, module in self._engine.stage.local_layers():
            restore_layer(checkpoint, index, module, None, None)
        self._engine.average = None  # the best weights are averages, where there are any

    def best_folder(self, progress: Progress) -> Path:
        """Return the folder of the best epoch's weights."""
        return self._folder / step_folder(progress.best_step or 0)

    def close(self, patience: float | None = None) -> None:
        """Wait until what was begun is on disk; no longer than some seconds if workers are lost."""
        self._state.close(patience)
        self._best.close(patience)
        self._tell_faults()

    @property
    def _folder(self) -> Path:
        return best_folder(self._job, self._network)

    def _states(self, buffers: HostBuffers, *, optimizer: bool) -> list[LayerState]:
        """Copy what this worker writes: replicas take turns with the layers they all have."""
        engine, replicas = self._engine, self._job.grid.replicas
        shares = self._job.config.grid.zero == 1 and replicas > 1
        states: list[LayerState] = []
        for index, module in engine.stage.local_layers():
            mine = index % replicas == engine.replica
            if not mine and not (shares and optimizer):
                continue
            states.append(
                layer_state(
                    index,
                    self._layers[index],
                    module,
                    engine.optimizer if optimizer else None,
                    engine.averages(index) if optimizer else None,
                    weights=mine,
                    part=engine.replica if shares and optimizer else None,
                    buffers=buffers,
                )
            )
        return states

    def _settle_best(self, *, wait: bool = False) -> bool:
        """Write the best weights again if that failed; return whether they are on disk."""
        if self._best_states is None:
            return True
        progress, states = self._best_states
        under_way = not self._best.wait(None if wait else 0.0)
        on_disk = progress.step in saved_steps(self._folder)
        state = told("there" if on_disk else "under way" if under_way else "failed", source=0)
        if state == "there":
            self._best_states = None
        elif state == "failed":
            self._best.save(progress.step, states, progress.model_dump(mode="json"))
        return state == "there"

    def _tell_faults(self) -> None:
        for fault in (*self._state.faults(), *self._best.faults()):
            self._note(fault)
