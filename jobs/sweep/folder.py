"""A sweep's folder: ``runs/<experiment>/<sweep>/``, beside the folders of runs.

``sweep.json`` says which study it is, ``status.json`` how it stands, ``command`` what its driver is
asked to do; ``trials/<number>/`` are run folders. ``study.db`` is the study, unless a database has
it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Self

from data_shards.documents import Document
from data_shards.errors import InputError
from jobs.runfolder import RunFolder, folder_at
from jobs.sweep.messages import Snapshot
from jobs.sweep.study import masked

_IDENTITY, _STATUS, _COMMAND = "sweep.json", "status.json", "command"


class SweepIdentity(Document):
    """What a sweep is to the world.

    Attributes:
        study: name of its study.
        storage: address of the study's storage, without a password.
    """

    study: str
    storage: str

    @classmethod
    def new(cls, study: str, storage: str) -> Self:
        """Describe a sweep; passwords stay out of files."""
        return cls(study=study, storage=masked(storage))

    @classmethod
    def of(cls, folder: RunFolder) -> Self | None:
        """Read that of a folder, if it has one.

        Raises:
            InputError: the file is damaged.
        """
        path = folder.path / _IDENTITY
        if not path.is_file():
            return None
        try:
            return cls.model_validate_json(path.read_text())
        except ValueError as error:
            raise InputError(f"damaged: {error}", path=path, remedy="restore the file") from None

    def write(self, folder: RunFolder) -> None:
        """Write it into a folder."""
        folder.write_json(_IDENTITY, self.model_dump())


class SweepStatus(Document):
    """How a sweep stands, as its driver last saw it.

    Attributes:
        at: when; seconds since the epoch.
        summary: for people.
        counts: trials by state.
        running: number, epoch, value and slot of those at work.
    """

    at: float
    summary: str
    counts: dict[str, int]
    running: tuple[dict[str, Any], ...]
    best: int | None
    best_values: tuple[float, ...]
    wall_seconds: float
    worker_seconds: float
    closing: str | None

    @classmethod
    def of(cls, snapshot: Snapshot, summary: str) -> Self:
        """Take it from the board's snapshot."""
        running = tuple(
            {
                "trial": trial.number,
                "slot": trial.slot,
                "epoch": trial.epoch,
                "value": None if trial.value != trial.value else trial.value,
                "settings": trial.values,
            }
            for trial in snapshot.running
        )
        number, values = snapshot.best if snapshot.best else (None, ())
        return cls(
            at=time.time(),
            summary=summary,
            counts=dict(snapshot.counts),
            running=running,
            best=number,
            best_values=values,
            wall_seconds=snapshot.wall_seconds,
            worker_seconds=snapshot.worker_seconds,
            closing=snapshot.closing,
        )

    def write(self, folder: RunFolder) -> None:
        """Write it into a folder, whole or not at all."""
        partial = folder.path / f"{_STATUS}.part"
        partial.write_text(self.model_dump_json(indent=2) + "\n")
        partial.replace(folder.path / _STATUS)

    @classmethod
    def read(cls, folder: RunFolder) -> Self | None:
        """Read the last one of a folder."""
        path = folder.path / _STATUS
        return cls.model_validate_json(path.read_text()) if path.is_file() else None


def command(folder: RunFolder, order: str) -> None:
    """Ask a sweep's driver to do something; it looks twice a second."""
    partial = folder.path / f"{_COMMAND}.part"
    partial.write_text(order)
    partial.replace(folder.path / _COMMAND)


def find_sweep(root: Path, name: str) -> RunFolder:
    """Find the folder of a sweep.

    Args:
        root: the folder of all runs.
        name: path of its folder, EXPERIMENT/SWEEP, or its name if it is the only one of that name.

    Raises:
        InputError: there is no such sweep, or more than one.
    """
    for given in (Path(name), root / name):
        if (given / _IDENTITY).is_file():
            return folder_at(given)
    found = [path.parent for path in sorted(root.glob(f"*/*/{_IDENTITY}"))]
    named = [path for path in found if path.name == name]
    if len(named) != 1:
        known = ", ".join(f"{path.parent.name}/{path.name}" for path in found[-5:]) or "none"
        raise InputError(
            f"{len(named) or 'no'} sweep{'s are' if len(named) > 1 else ' is'} called {name!r}",
            path=root,
            remedy=f"name one as EXPERIMENT/SWEEP; the last ones: {known}",
        )
    return folder_at(named[0])
