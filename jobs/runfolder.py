"""A run's folder: ``runs/<experiment>/<run>/``, from which all that MLflow shows can be rebuilt."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w

from data_shards.documents import Document
from data_shards.errors import InputError
from jobs.journal import Ledger
from trainer.config import RunConfig

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
_IDENTITY, _LOCK = "run.json", "lock"


class Identity(Document):
    """What a run is to the world: enough to go on with it.

    Attributes:
        data: place of its data set.
        fingerprint: of the data set.
    """

    data: str
    fingerprint: str


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run.

    Attributes:
        root: the folder of all runs; the tracking database lies there.
        experiment: name of the experiment.
        name: name of the run.
    """

    root: Path
    experiment: str
    name: str

    @property
    def path(self) -> Path:
        """The run's own folder."""
        return self.root / self.experiment / self.name

    @property
    def figures(self) -> Path:
        """Where its pictures are."""
        return self.path / "figures"

    @property
    def log(self) -> Path:
        """Where its logs are."""
        return self.path / "log"

    def write_config(self, config: RunConfig) -> None:
        """Write ``config.toml``, which ``train --config`` accepts."""
        text = tomli_w.dumps(config.model_dump(mode="json", exclude_none=True))
        (self.path / "config.toml").write_text(text)

    def write_json(self, name: str, values: dict[str, Any]) -> Path:
        """Write a JSON file into the folder."""
        path = self.path / name
        path.write_text(json.dumps(values, indent=2) + "\n")
        return path

    def write_identity(self, identity: Identity) -> None:
        """Write down what a later driver needs to go on with the run."""
        self.write_json(_IDENTITY, identity.model_dump(mode="json"))

    def identity(self) -> Identity:
        """Read what the run's first driver wrote down.

        Raises:
            InputError: the file is missing or damaged.
        """
        path = self.path / _IDENTITY
        try:
            return Identity.model_validate_json(path.read_text())
        except (OSError, ValueError) as error:
            raise InputError(
                f"not the folder of a run that can go on: {error}",
                path=path,
                remedy="name a run's folder, as runs/danq/RUN",
            ) from None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Be the only driver of the run; a driver that died owns nothing any more.

        Raises:
            InputError: another driver is at work on it.
        """
        with (self.path / _LOCK).open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                lock.seek(0)
                raise InputError(
                    f"process {lock.read().strip() or '?'} is training this run",
                    path=self.path,
                    remedy="wait for it, or stop it first",
                ) from None
            lock.truncate(0)
            lock.write(f"{os.getpid()} on {socket.gethostname()}")
            lock.flush()
            yield

    def driven(self) -> bool:
        """Whether a driver is at work on the run."""
        lock = self.path / _LOCK
        if not lock.exists():
            return False
        with lock.open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


def create_run_folder(root: Path, experiment: str, name: str | None, size: str) -> RunFolder:
    """Make the folder of a new run.

    Args:
        root: the folder of all runs; made if missing.
        experiment: name of the experiment.
        name: name of the run; by default size, time and four random hex digits.
        size: size of the network, for the default name.

    Raises:
        InputError: a name that is no file name, or a run of that name exists.
    """
    if name is None:
        name = f"{size}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    for what, value in (("--name", name), ("--experiment", experiment)):
        if not _NAME.match(value):
            raise InputError(
                f"{what} {value!r} is not a name",
                remedy="use letters, digits, '.', '_' and '-', beginning with a letter or digit",
            )
    folder = RunFolder(root.resolve(), experiment, name)
    if folder.path.exists():
        raise InputError(
            "a run of that name exists", path=folder.path, remedy="give another --name"
        )
    for path in (folder.figures, folder.log, folder.path / "checkpoints"):
        path.mkdir(parents=True)
    return folder


def find_run_folder(root: Path, run: str) -> RunFolder:
    """Find the folder of a run.

    Args:
        root: the folder of all runs.
        run: path of the run's folder, EXPERIMENT/RUN, the run's name if it is the only one of that
            name, or its MLflow id.

    Raises:
        InputError: there is no such run, or more than one.
    """
    for given in (Path(run), root / run):
        if (given / _IDENTITY).is_file():
            return folder_at(given)
    found = [path.parent for path in sorted(root.glob(f"*/*/{_IDENTITY}"))]
    named = [path for path in found if path.name == run] or [
        path for path in found if Ledger.of(path).run_id == run
    ]
    if len(named) != 1 or not run:
        known = ", ".join(f"{path.parent.name}/{path.name}" for path in found[-5:]) or "none"
        raise InputError(
            f"{'no run is' if not named else f'{len(named)} runs are'} called {run!r}",
            path=root,
            remedy=f"name one as EXPERIMENT/RUN; the last ones: {known}",
        )
    return folder_at(named[0])


def folder_at(path: Path) -> RunFolder:
    """Return the folder at a path: RUNS/EXPERIMENT/NAME."""
    path = path.resolve()
    return RunFolder(path.parent.parent, path.parent.name, path.name)
