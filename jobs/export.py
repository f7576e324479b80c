"""``replisome export``: a run's model as two files that plain PyTorch loads without us."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_shards.dataset import ShardedDataset
from data_shards.documents import parse, read_toml
from data_shards.errors import InputError
from jobs.console import Console
from jobs.journal import Ledger
from jobs.provenance import versions
from jobs.runfolder import RunFolder, find_run_folder
from trainer.checkpoint.export import DESCRIPTION, MODEL, export_model
from trainer.checkpoint.format import saved_steps, step_folder
from trainer.checkpoint.reader import Checkpoint
from trainer.config import RunConfig
from trainer.recipes import get_recipe


def config_of(folder: RunFolder) -> RunConfig:
    """Read the configuration that a run began with."""
    path = folder.path / "config.toml"
    return parse(RunConfig, read_toml(path, remedy="it is a run's own file"), path)


def best_weights(folder: RunFolder, network: str) -> Path:
    """Return the checkpoint with the weights of the best epoch so far.

    Raises:
        InputError: there are none yet.
    """
    path = folder.path / "checkpoints" / network / "best"
    steps = saved_steps(path)
    if not steps:
        raise InputError(
            f"has no weights of {network!r} yet: no epoch was finished",
            path=folder.path,
            remedy="let it train longer: replisome train --resume " + str(folder.path),
        )
    return path / step_folder(steps[-1])


def export(
    run: str, out: Path, runs: Path, network: str | None, console: Console
) -> dict[str, Any]:
    """Write the best weights of a run's network, averaged where the run averages.

    Args:
        run: its folder, EXPERIMENT/RUN, name or MLflow id.
        out: folder to make.
        runs: the folder of all runs.
        network: which; by default the recipe's model, else one of its ablations.
        console: where to say what was written.

    Raises:
        InputError: no such run or network, or ``out`` exists.
    """
    folder = find_run_folder(runs, run)
    config, identity = config_of(folder), folder.identity()
    recipe = get_recipe(config.recipe)
    names = [known.name for known in recipe.networks(baselines=True)]
    name = network or names[0]
    if name not in names:
        raise InputError(
            f"recipe {config.recipe!r} has no network {name!r}", remedy=f"it has {', '.join(names)}"
        )
    checkpoint = Checkpoint.open(best_weights(folder, name))
    schema = ShardedDataset(identity.data).schema
    about = {
        "recipe": config.recipe,
        "network": name,
        "size": config.size,
        "input": "DNA codes A=0 C=1 G=2 T=3 N=4, uint8, shape (batch, length)",
        "length": schema.window.length,
        "output": "logits, float32, shape (batch, tasks)",
        "tasks": list(schema.task_names),
        "run": f"{folder.experiment}/{folder.name}",
        "run_id": Ledger.of(folder.path).run_id,
        "data_fingerprint": identity.fingerprint,
        "config": config.model_dump(mode="json"),
        "versions": versions(),
    }
    # The best weights are averages already, where the run keeps averages.
    export_model(checkpoint, out, ema=False, about=about)
    console.say(f"wrote {out / MODEL} and {out / DESCRIPTION}")
    console.say(
        "load it with torch.nn.Sequential(...).load_state_dict(safetensors.torch.load_file(...))"
    )
    return {"folder": str(out), "network": name, "step": checkpoint.step}
