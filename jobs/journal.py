"""What a run tells MLflow, on disk first: a journal that is delivered whenever MLflow answers.

``log/tracking.jsonl`` in the run's folder has an entry a line, in order; numbers of the training
are in the event logs beside it. ``log/delivered.json`` says how far both were delivered, so nothing
is lost, and nothing is told twice, whoever dies in between.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from data_shards.documents import Document
from data_shards.store.location import Location
from jobs.masking import masked_values

JOURNAL, LEDGER = "tracking.jsonl", "delivered.json"
Kind = Literal["begin", "parameters", "tags", "metrics", "file", "data", "model", "status"]
Status = Literal["RUNNING", "FINISHED", "FAILED", "KILLED"]


class Entry(Document):
    """One thing to tell.

    Attributes:
        kind: of what.
        time: seconds since the epoch.
        values: what to tell; see :class:`Journal`.
    """

    kind: Kind
    time: float
    values: dict[str, Any]


class Ledger(Document):
    """How far a run was delivered.

    Attributes:
        run_id: MLflow's, once it has one.
        entries: of the journal.
        logs: bytes of each event log, by file name.
        model: MLflow's address of the model.
    """

    run_id: str | None = None
    entries: int = 0
    logs: dict[str, int] = {}  # noqa: RUF012  # pydantic copies it
    model: str | None = None

    @classmethod
    def of(cls, folder: Path) -> Ledger:
        """Read that of a run's folder."""
        path = folder / "log" / LEDGER
        return cls.model_validate_json(path.read_text()) if path.is_file() else cls()

    def write(self, folder: Path) -> None:
        """Write it into a run's folder, whole or not at all."""
        path = folder / "log" / LEDGER
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(self.model_dump_json())
        partial.replace(path)


class Journal:
    """Writes what MLflow shall know of a run; returns at once, whatever MLflow does.

    Secrets are masked here, before anything reaches a disk.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._path = folder / "log" / JOURNAL
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _drop_torn_line(self._path)

    @property
    def begun(self) -> bool:
        """Whether it has a beginning."""
        return bool(read_entries(self.folder, 0))

    def begin(
        self,
        experiment: str,
        name: str,
        parameters: Mapping[str, Any],
        tags: Mapping[str, str],
        parent: Path | None = None,
    ) -> None:
        """Create the run.

        Args:
            experiment: its name; made if it is not there.
            name: of the run.
            parameters: of the run.
            tags: of the run.
            parent: folder of the run below which it is shown.
        """
        identity = {"replisome.id": secrets.token_hex(16)}
        values = {"experiment": experiment, "name": name, "tags": {**tags, **identity}}
        self._add("begin", values | {"parent": str(parent) if parent else None})
        self.parameters(parameters)

    def parameters(self, values: Mapping[str, Any]) -> None:
        """Log parameters; each once, with one value."""
        self._add("parameters", {key: str(value) for key, value in values.items()})

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._add("tags", dict(values))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Log numbers that are in no event log."""
        self._add("metrics", {"step": step, "metrics": dict(values)})

    def file(self, path: Path, folder: str = "") -> None:
        """Show a file, as it is when it is delivered."""
        self._add("file", {"path": str(path.resolve()), "folder": folder})

    def data(self, place: Location, digest: str, schema: Mapping[str, Any] | None = None) -> None:
        """Enter the data set among the run's inputs."""
        self._add("data", {"place": str(place), "digest": digest, "schema": schema})

    def model(self, weights: Path, alias: str | None = None) -> None:
        """Log the trained network and enter it in the registry.

        Args:
            weights: folder of the weights.
            alias: name of this version in the registry.
        """
        self._add("model", {"weights": str(weights.resolve()), "alias": alias})

    def status(self, status: Status) -> None:
        """Say what the run does, or how it ended."""
        self._add("status", {"status": status})

    def _add(self, kind: Kind, values: dict[str, Any]) -> None:
        entry = Entry(kind=kind, time=time.time(), values=masked_values(values))
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(entry.model_dump_json() + "\n")


def _drop_torn_line(path: Path) -> None:
    """Cut off what a writer that was killed left unfinished."""
    if path.is_file() and not (content := path.read_bytes()).endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def journal_size(folder: Path) -> int:
    """Return the bytes of a run's journal: it only grows."""
    path = folder / "log" / JOURNAL
    return path.stat().st_size if path.is_file() else 0


def read_entries(folder: Path, since: int) -> list[Entry]:
    """Read the complete entries of a run's journal after the first ``since``."""
    path = folder / "log" / JOURNAL
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")[:-1]
    return [Entry.model_validate(json.loads(line)) for line in lines[since:]]
