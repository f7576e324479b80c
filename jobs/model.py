"""The trained network as one model: assembled from its layers' weights, and entered in MLflow."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from importlib.metadata import version
from pathlib import Path

import numpy as np
from torch import nn

from data_shards.dataset import ShardedDataset
from data_shards.documents import parse, read_toml
from data_shards.store.schema import Schema
from jobs.runfolder import Identity
from jobs.tracking import using_store
from trainer.config import RunConfig
from trainer.trained import assemble


def log_run_model(weights: Path, experiment: str, run_id: str, uri: str, alias: str | None) -> str:
    """Enter a run's network in MLflow, from what lies in the run's folder.

    Args:
        weights: folder of the weights, in the folder of the run that trained them.
        experiment: name in the registry.
        run_id: MLflow run that shows it.
        uri: of MLflow's store.
        alias: name of this version in the registry.

    Returns:
        The model's URI.
    """
    folder = weights.parents[3]  # <run>/checkpoints/<network>/best/<step>
    config = parse(RunConfig, read_toml(folder / "config.toml", remedy="restore it"), folder)
    identity = parse(Identity, json.loads((folder / "run.json").read_text()), folder)
    schema = ShardedDataset(identity.data).schema
    network = assemble(config, schema, weights)
    return log_model(network, schema, experiment, run_id, uri, alias)


def log_model(
    network: nn.Module,
    schema: Schema,
    experiment: str,
    run_id: str,
    uri: str,
    alias: str | None = None,
) -> str:
    """Enter a model in MLflow: exported (no pickle), signed, registered under the experiment.

    Returns:
        The model's URI.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import Schema as Columns
    from mlflow.types import TensorSpec

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    length, tasks = schema.window.length, len(schema.tasks)
    signature = ModelSignature(
        Columns([TensorSpec(np.dtype("uint8"), (-1, length))]),
        Columns([TensorSpec(np.dtype("float32"), (-1, tasks))]),
    )
    example = np.zeros((2, length), dtype=np.uint8)
    with (
        using_store(uri),
        warnings.catch_warnings(),
        contextlib.redirect_stderr(io.StringIO()),  # it tells of each step
        mlflow.start_run(run_id=run_id),
    ):
        warnings.simplefilter("ignore")  # of torch.export, about the LSTM's cached weights
        info = mlflow.pytorch.log_model(
            network,
            name="model",
            signature=signature,
            input_example=example,
            registered_model_name=experiment,
            serialization_format="pt2",
            pip_requirements=[f"{name}=={version(name)}" for name in ("torch", "mlflow", "numpy")],
            metadata={"input": "codes: A=0 C=1 G=2 T=3 N=4", "tasks": list(schema.task_names)},
        )
        if alias is not None:
            version_number = str(info.registered_model_version)
            mlflow.MlflowClient().set_registered_model_alias(experiment, alias, version_number)
    return str(info.model_uri)
