"""Bringing a run's journal and event logs to MLflow, from a thread of the driver's.

MLflow being slow, locked or away reaches nobody: what is to be told waits on disk. What has arrived
is written down, so that a later driver, or ``replisome track sync``, goes on from there.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_shards.errors import CorruptDataError, InputError
from data_shards.store.location import Location
from jobs.journal import Entry, Ledger, journal_size, read_entries
from jobs.tracking import experiment_id, log_dataset, log_parameters, open_store, tracking_uri
from trainer.events import FILE_NAME, Event, EventReader

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

_POLL = 0.3  # seconds between looks at the event log
_BATCH = 1000  # MLflow's limit of metrics a request
_RETRY = 5.0  # seconds until a failed delivery is tried again
PATIENCE = 60.0  # seconds the end of a run waits for MLflow
PARENT = "mlflow.parentRunId"

Watch = Callable[[Event], None]


class ParentUnknownError(Exception):
    """The run that this one is shown below is not in MLflow yet."""


class _RefusedError(Exception):
    """MLflow will never take an entry."""


class Store:
    """MLflow's store, opened when it is first needed; shared by the deliveries of a driver.

    Args:
        runs: the folder of all runs.
    """

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._client: MlflowClient | None = None
        self._lock = threading.Lock()

    def client(self) -> MlflowClient:
        """Return a client; raises whatever MLflow raises when it is away."""
        with self._lock:
            if self._client is None:
                self._client = open_store(self.runs)
            return self._client


class Delivery:
    """Follows a run: shows its progress, and brings what it tells to MLflow.

    Args:
        store: MLflow's.
        folder: of the run.
        main: network whose metrics go by their plain names; others get their network's name first.
        watch: told each event, for progress bars.
        complain: told, once, that MLflow does not answer.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        main: str,
        watch: Watch,
        complain: Callable[[str], None],
    ) -> None:
        self._store, self._folder, self._main = store, folder, main
        self._watch, self._complain = watch, complain
        self._ledger = Ledger.of(folder)
        self._readers: dict[Path, EventReader] = {}
        self._waiting: list[Metric] = []
        self._retry_at = 0.0
        self._failing = False
        self._patience = 0.0
        self._through = -1  # size of the journal of which all was delivered
        self._stop = threading.Event()
        self._left = 0
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run, once it has one."""
        return self._ledger.run_id

    @property
    def model(self) -> str | None:
        """MLflow's address of the model, once it has it."""
        return self._ledger.model

    @property
    def through(self) -> bool:
        """Whether it has ended with nothing left."""
        return not self._thread.is_alive() and self._left == 0

    def wait_for_id(self, seconds: float) -> str | None:
        """Wait until the run is in MLflow, so long at most; return its id."""
        deadline = time.monotonic() + seconds
        while self.run_id is None and time.monotonic() < deadline and self._thread.is_alive():
            time.sleep(0.02)
        return self.run_id

    def finish(self, patience: float = PATIENCE) -> None:
        """Deliver what is left, for so many seconds at most, and end; returns at once."""
        self._patience = patience
        self._stop.set()

    def close(self, patience: float = PATIENCE) -> int:
        """Deliver what is left; return how much MLflow would not take."""
        self.finish(patience)
        self._thread.join()
        return self._left

    def _run(self) -> None:
        while not self._stop.wait(_POLL):
            self._look()
        deadline = time.monotonic() + self._patience
        self._retry_at = 0.0
        self._look()
        while (left := self._count()) and time.monotonic() < deadline:
            time.sleep(_POLL)
            self._deliver()
        self._left = left

    def _count(self) -> int:
        return len(self._waiting) + len(read_entries(self._folder, self._ledger.entries))

    def _look(self) -> None:
        for path in [self._folder / FILE_NAME, *self._folder.glob("log/system-node*.jsonl")]:
            if path not in self._readers:
                self._readers[path] = EventReader(path, self._ledger.logs.get(path.name, 0))
            for event in self._readers[path].new():
                self._watch(event)
                self._waiting += self._metrics(event)
        self._deliver()

    def _metrics(self, event: Event) -> list[Metric]:
        from mlflow.entities import Metric

        if event.kind != "metrics":
            return []
        prefix = "" if event.network in ("", self._main) else f"{event.network}/"
        stamp = int(event.time * 1000)
        return [
            Metric(prefix + name, value, stamp, event.step)
            for name, value in event.values.items()
            if not math.isnan(value)  # an undefined score is no metric
        ]

    def _deliver(self) -> None:
        """Tell what is waiting; keep it if that fails.

        Metrics go before the journal's entries, except that the run must exist: so a run that has
        ended has all its numbers.
        """
        if time.monotonic() < self._retry_at:
            return
        try:
            if self._ledger.run_id is None:
                self._deliver_entries(1)
            if self._ledger.run_id is not None:
                self._deliver_metrics()
                self._deliver_entries(None)
        except _RefusedError as error:
            self._complain(f"MLflow refuses an entry, which is left out: {error}")
        except ParentUnknownError:
            self._retry_at = time.monotonic() + _POLL
        except Exception as error:  # whatever MLflow says, training goes on
            self._retry_at = time.monotonic() + _RETRY
            if not self._failing:
                text = str(error).strip().partition("\n")[0][:200]
                self._complain(f"MLflow does not answer ({text}): what it is told waits on disk")
            self._failing = True
        else:
            self._failing = False

    def _deliver_metrics(self) -> None:
        client = self._store.client()
        while self._waiting:
            batch = self._waiting[:_BATCH]
            client.log_batch(self._ledger.run_id, metrics=batch)
            del self._waiting[: len(batch)]
        logs = {path.name: reader.offset for path, reader in self._readers.items()}
        if logs != {name: self._ledger.logs.get(name, 0) for name in logs}:
            self._note(logs={**self._ledger.logs, **logs})

    def _deliver_entries(self, most: int | None) -> None:
        size = journal_size(self._folder)
        if size == self._through:
            return
        for entry in read_entries(self._folder, self._ledger.entries)[:most]:
            done = self._ledger.entries + 1
            try:
                changes = apply(self._store, self._folder, self._ledger.run_id, entry)
            except Exception as error:
                if entry.kind == "begin" or not _is_refusal(error):
                    raise
                self._note(entries=done)
                raise _RefusedError(f"{entry.kind}: {error}") from error
            self._note(entries=done, **changes)
        if most is None:
            self._through = size

    def _note(self, **changes: Any) -> None:
        self._ledger = self._ledger.model_copy(update=changes)
        self._ledger.write(self._folder)


def apply(store: Store, folder: Path, run_id: str | None, entry: Entry) -> dict[str, Any]:
    """Tell MLflow one entry; doing it twice does no harm.

    Returns:
        What becomes known by it: fields of the ledger.

    Raises:
        ParentUnknownError: the run's parent is not in MLflow yet.
        Exception: whatever MLflow raises.
    """
    from jobs.model import log_run_model

    client, values = store.client(), entry.values
    match entry.kind:
        case "begin":
            return {"run_id": _begin(store, client, entry)}
        case "parameters":
            log_parameters(client, _known(run_id), values)
        case "tags":
            for key, value in values.items():
                client.set_tag(run_id, key, value)
        case "metrics":
            stamp = int(entry.time * 1000)
            for key, value in values["metrics"].items():
                client.log_metric(run_id, key, value, timestamp=stamp, step=values["step"])
        case "file":
            client.log_artifact(run_id, values["path"], values["folder"] or None)
        case "data":
            place = Location.parse(values["place"])
            log_dataset(client, _known(run_id), place, values["digest"], values["schema"])
        case "model":
            weights, uri = Path(values["weights"]), tracking_uri(store.runs)
            name = folder.parent.name  # of the experiment
            found = log_run_model(weights, name, _known(run_id), uri, values["alias"])
            return {"model": found}
        case "status":
            client.update_run(run_id, status=values["status"])
            if values["status"] != "RUNNING":
                end = int(entry.time * 1000)
                client.set_terminated(run_id, values["status"], end)
    return {}


def _is_refusal(error: Exception) -> bool:
    """Whether it would be the same at every try: MLflow objects, or what it is to show is gone."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, MlflowException):
        status = error.get_http_status_code()
        return 400 <= status < 500 and status not in (401, 403, 408, 429)
    return isinstance(error, (FileNotFoundError, InputError, CorruptDataError))


def _known(run_id: str | None) -> str:
    if run_id is None:
        raise ValueError("the journal does not begin with a run")
    return run_id


def _begin(store: Store, client: MlflowClient, entry: Entry) -> str:
    """Create the run, unless an earlier try did and nobody heard of it."""
    values, tags = entry.values, dict(entry.values["tags"])
    if values["parent"] is not None:
        parent = Ledger.of(Path(values["parent"])).run_id
        if parent is None:
            raise ParentUnknownError(values["parent"])
        tags[PARENT] = parent
    experiment = experiment_id(client, store.runs, values["experiment"])
    mine = f"tags.`replisome.id` = '{tags['replisome.id']}'"
    found = client.search_runs([experiment], mine, max_results=1)
    if found:
        return str(found[0].info.run_id)
    run = client.create_run(
        experiment, start_time=int(entry.time * 1000), run_name=values["name"], tags=tags
    )
    return str(run.info.run_id)
