"""MLflow's store, as seen from the driver: the only process that opens it."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_shards.store.location import Location

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DATABASE = "mlflow.db"
_URI = "MLFLOW_TRACKING_URI"
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


def experiment_id(client: MlflowClient, runs: Path, name: str) -> str:
    """Return an experiment's id; the experiment is made if it is not there."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    location = None
    if tracking_uri(runs).startswith("sqlite:"):
        location = (runs.resolve() / "artifacts" / name).as_uri()
    return str(
        client.create_experiment(
            name, artifact_location=location, tags={"mlflow.experimentKind": _KIND}
        )
    )


def log_parameters(client: MlflowClient, run_id: str, parameters: Mapping[str, Any]) -> None:
    """Log parameters, as many at a time as MLflow takes."""
    from mlflow.entities import Param

    entries = [Param(key, str(value)) for key, value in parameters.items()]
    for start in range(0, len(entries), _PARAMETER_BATCH):
        client.log_batch(run_id, params=entries[start : start + _PARAMETER_BATCH])


def log_dataset(
    client: MlflowClient,
    run_id: str,
    place: Location,
    digest: str,
    schema: Mapping[str, Any] | None = None,
) -> None:
    """Enter the data set among the run's inputs, under its own fingerprint.

    Args:
        client: of the store.
        run_id: the run.
        place: of the data set.
        digest: its fingerprint.
        schema: MLflow's name of a type by name of a field.
    """
    from mlflow.data.dataset_source_registry import resolve_dataset_source
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource
    from mlflow.entities import DatasetInput, InputTag
    from mlflow.types import ColSpec, Schema

    columns = Schema([ColSpec(kind, name) for name, kind in schema.items()]) if schema else None
    local = place.folder is not None
    source = LocalArtifactDatasetSource(str(place)) if local else resolve_dataset_source(str(place))
    name = str(place).rsplit("/", maxsplit=1)[-1]
    dataset = MetaDataset(source=source, name=name, digest=digest[:32], schema=columns)
    entity = dataset._to_mlflow_entity()
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])
