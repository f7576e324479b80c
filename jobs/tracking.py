"""MLflow, as seen from the driver: the only process that opens the tracking store.

Workers write the run's event log; :class:`Delivery` brings it here, in batches, from a thread. The
store being slow, locked or away never reaches the training: events stay on disk until they are
delivered.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_shards.store.location import Location
from trainer.events import Event, EventReader

if TYPE_CHECKING:
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

DATABASE = "mlflow.db"
_URI = "MLFLOW_TRACKING_URI"
_POLL = 0.3  # seconds between looks at the event log
_BATCH = 1000  # MLflow's limit of metrics a request
_RETRY = 5.0  # seconds until a failed delivery is tried again
_PATIENCE = 60.0  # seconds the end of a run waits for the store
_PARAMETER_BATCH = 100
_KIND = "custom_model_development"  # shows the pages for training, not those for language models


def tracking_uri(runs: Path) -> str:
    """Return the tracking store: ``MLFLOW_TRACKING_URI`` if set, else sqlite in the runs folder."""
    return os.environ.get(_URI) or f"sqlite:///{runs.resolve() / DATABASE}"


def open_store(runs: Path) -> MlflowClient:
    """Connect to the tracking store; a new sqlite store is created here, by one process.

    Two processes that create the tables at the same time leave a broken file.
    """
    # One quick retry: what can't be delivered now waits on disk, nobody waits for it.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from mlflow.tracking import MlflowClient

    for name in ("mlflow", "alembic"):  # after the import, which sets its own
        logging.getLogger(name).setLevel(logging.ERROR)
    uri = tracking_uri(runs)
    if not uri.startswith("sqlite:"):
        return MlflowClient(tracking_uri=uri)
    runs.mkdir(parents=True, exist_ok=True)
    with (runs / ".mlflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = MlflowClient(tracking_uri=uri)
        client.search_experiments(max_results=1)  # creates the tables
    return client


@contextmanager
def using_store(uri: str) -> Iterator[None]:
    """Let MLflow's fluent functions use a store, inside this block only.

    MLflow keeps the store in a global and in the environment of the process, where it would decide
    for whatever runs next.
    """
    import mlflow

    before = os.environ.get(_URI)
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)
        if before is not None:
            os.environ[_URI] = before


def start_run(
    client: MlflowClient,
    runs: Path,
    experiment: str,
    name: str,
    parameters: Mapping[str, Any],
    tags: Mapping[str, str],
) -> str:
    """Create a run, and its experiment if it is the first; return the run's id."""
    found = client.get_experiment_by_name(experiment)
    if found is None:
        location = None
        if tracking_uri(runs).startswith("sqlite:"):
            location = (runs.resolve() / "artifacts" / experiment).as_uri()
        experiment_id = client.create_experiment(
            experiment, artifact_location=location, tags={"mlflow.experimentKind": _KIND}
        )
    else:
        experiment_id = found.experiment_id
    run_id: str = client.create_run(experiment_id, run_name=name, tags=dict(tags)).info.run_id
    log_parameters(client, run_id, parameters)
    return run_id


def log_parameters(client: MlflowClient, run_id: str, parameters: Mapping[str, Any]) -> None:
    """Log parameters, as many at a time as MLflow takes."""
    from mlflow.entities import Param

    entries = [Param(key, str(value)) for key, value in parameters.items()]
    for start in range(0, len(entries), _PARAMETER_BATCH):
        client.log_batch(run_id, params=entries[start : start + _PARAMETER_BATCH])


def log_dataset(client: MlflowClient, run_id: str, place: Location, digest: str) -> None:
    """Enter the data set among the run's inputs, under its own fingerprint."""
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource
    from mlflow.entities import DatasetInput, InputTag

    local = place.folder is not None
    source = LocalArtifactDatasetSource(str(place)) if local else resolve_dataset_source(str(place))
    name = str(place).rsplit("/", maxsplit=1)[-1]
    dataset = MetaDataset(source=source, name=name, digest=digest[:32])
    entity = dataset._to_mlflow_entity()
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])


class Delivery:
    """Follows a run's event logs: shows progress, and delivers metrics to MLflow.

    Args:
        client: of the tracking store.
        run_id: the run.
        logs: event logs to follow; they need not exist yet.
        main: network whose metrics go by their plain names; others get their network's name first.
        watch: told each event, for progress bars.
        complain: told, once, that the store does not take metrics.
        ledger: where is written how far the logs were delivered, for a later driver to go on from.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        logs: Sequence[Path],
        main: str,
        watch: Callable[[Event], None],
        complain: Callable[[str], None],
        ledger: Path | None = None,
    ) -> None:
        self._client = client
        self._run_id = run_id
        self._ledger = ledger
        done = json.loads(ledger.read_text()) if ledger is not None and ledger.exists() else {}
        self._readers = {path: EventReader(path, done.get(path.name, 0)) for path in logs}
        self._main = main
        self._watch = watch
        self._complain = complain
        self._waiting: list[Metric] = []
        self._written: dict[str, int] = {}
        self._retry_at = 0.0
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def close(self) -> int:
        """Deliver what is left; return how many metrics the store would not take."""
        self._stop.set()
        self._thread.join()
        deadline = time.monotonic() + _PATIENCE
        self._retry_at = 0.0
        self._look()
        while self._waiting and time.monotonic() < deadline:
            time.sleep(_POLL)
            self._deliver()
        if not self._waiting:
            self._write_down()
        return len(self._waiting)

    def _run(self) -> None:
        while not self._stop.wait(_POLL):
            self._look()

    def _look(self) -> None:
        for reader in self._readers.values():
            for event in reader.new():
                self._watch(event)
                self._waiting += self._metrics(event)
        self._deliver()
        if not self._waiting:
            self._write_down()

    def _write_down(self) -> None:
        """Write down that all that was read is delivered."""
        if self._ledger is None:
            return
        done = {path.name: reader.offset for path, reader in self._readers.items()}
        if done != self._written:
            partial = self._ledger.with_suffix(".part")
            partial.write_text(json.dumps(done))
            partial.replace(self._ledger)
            self._written = done

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
        """Send what is waiting; keep it if that fails."""
        while self._waiting and time.monotonic() >= self._retry_at:
            batch = self._waiting[:_BATCH]
            try:
                self._client.log_batch(self._run_id, metrics=batch)
            except Exception as error:  # whatever the store says, training goes on
                self._retry_at = time.monotonic() + _RETRY
                if not self._failing:
                    self._complain(f"MLflow takes no metrics now ({error}); they wait on disk")
                self._failing = True
                return
            self._failing = False
            del self._waiting[: len(batch)]
