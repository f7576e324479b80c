"""A run's folder: ``runs/<experiment>/<run>/``, from which all that MLflow shows can be rebuilt."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import tomli_w

from data_shards.errors import InputError
from trainer.config import RunConfig

_NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")


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
