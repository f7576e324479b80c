"""From what a person typed to a configuration that is known to fit the data."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_shards.dataset import ShardedDataset
from data_shards.documents import parse, read_toml
from data_shards.errors import InputError
from jobs.runfolder import find_run_folder
from trainer.checkpoint.format import INDEX
from trainer.checkpoint.reader import Checkpoint
from trainer.checkpoint.transfer import plan_transfer
from trainer.config import RunConfig, flatten, merge, resolve
from trainer.grid import grid_of, lay_out
from trainer.optimizers import check_optimizer
from trainer.planning.cut import check_cut, check_stages, plain_cut
from trainer.planning.plan import count_parameters
from trainer.recipe import Layer, frozen, shape_of
from trainer.recipes import get_recipe


def configure(recipe_name: str, file: Path | None, flags: Mapping[str, Any]) -> RunConfig:
    """Resolve a run's configuration from recipe, TOML file and flags.

    Raises:
        InputError: a key or value is wrong, or the file is for another recipe.
    """
    recipe = get_recipe(recipe_name)
    values: dict[str, Any] = {}
    if file is not None:
        values = read_toml(file, remedy="give a TOML file; a run's config.toml is one")
        if values.setdefault("recipe", recipe_name) != recipe_name:
            raise InputError(
                f"the file is for recipe {values['recipe']!r}, not {recipe_name!r}",
                path=file,
                remedy=f"say: replisome train {values['recipe']}",
            )
    size = flags.get("size", values.get("size", next(iter(recipe.sizes))))
    if size not in recipe.sizes:
        raise InputError(
            f"recipe {recipe_name!r} has no size {size!r}",
            remedy=f"it has: {', '.join(recipe.sizes)}",
        )
    return resolve(
        recipe_name, {"size": size, **recipe.defaults(size)}, values, flags, file or "flags"
    )


def read_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Read KEY=VALUE settings, with dotted keys and values as in TOML, into nested ones.

    Raises:
        InputError: one has no "=".
    """
    nested: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or not key.strip():
            raise InputError(
                f"--set {setting!r} is not KEY=VALUE", remedy="say for example schedule.name=cosine"
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text  # a plain word needs no quotes
        for part in reversed(key.strip().split(".")):
            value = {part: value}
        nested = merge(nested, value)
    return nested


def init_settings(
    init_from: str | None, fresh: Sequence[str], freeze: Sequence[str], runs: Path
) -> dict[str, Any]:
    """Return the settings that say whose weights a training starts from.

    Args:
        init_from: a run, or the folder of a checkpoint.
        fresh: layers that start fresh.
        freeze: layers that stay as they are.
        runs: the folder of all runs.

    Raises:
        InputError: no such run, it has no weights, or layers are named without it.
    """
    if init_from is None:
        if fresh or freeze:
            raise InputError(
                "--fresh and --freeze say nothing without --init-from",
                remedy="say --init-from RUN too",
            )
        return {}
    path = Path(init_from)
    if not (path / INDEX).is_file():
        from jobs.export import best_weights, config_of

        folder = find_run_folder(runs, init_from)
        path = best_weights(folder, get_recipe(config_of(folder).recipe).network.name)
    init = {"source": str(path.resolve()), "fresh": list(fresh), "freeze": list(freeze)}
    return {"init": init}


def continued(saved: RunConfig, flags: Mapping[str, Any]) -> RunConfig:
    """Return the configuration with which a run goes on.

    Args:
        saved: the one that it began with.
        flags: what the command line says now; only where it computes may change, and what it does
            about failures.

    Raises:
        InputError: a flag would change what is computed.
    """
    free = ("grid", "checkpoint", "failure")
    fixed = [key for key in flatten(flags) if key.split(".")[0] not in free]
    if fixed:
        raise InputError(
            f"{', '.join(fixed)} can't change when a run goes on",
            remedy="leave it out, or begin a new run (--config takes the old run's config.toml, "
            "--init-from its weights)",
        )
    values = merge(saved.model_dump(), flags)
    if "stages" in flags.get("grid", {}) and not isinstance(saved.grid.cut, str):
        values["grid"]["cut"] = "measured"  # the cut by hand was for another number of stages
    return parse(RunConfig, values, "the command line")


def preflight(config: RunConfig, data: ShardedDataset) -> None:
    """Find what would fail later, before anything is started.

    Raises:
        InputError: the data set is another recipe's or too small, or the grid does not fit.
    """
    recipe, schema = get_recipe(config.recipe), data.schema
    if schema.recipe not in ("", config.recipe):
        raise InputError(
            f"the data set was built for recipe {schema.recipe!r}, not {config.recipe!r}",
            path=str(data.place),
            remedy=f"build one with: replisome data build {config.recipe}",
        )
    for field in ("sequence", "labels"):  # what the recipes so far read
        schema.field(field)
    samples = schema.split("train").samples
    if samples < config.batch_size:
        raise InputError(
            f"the training split has {samples:,} samples, fewer than one batch of "
            f"{config.batch_size:,}",
            path=str(data.place),
            remedy=f"use --batch-size {samples} or less, or build a larger data set",
        )
    check_optimizer(config.optimizer)
    grid = grid_of(config.grid)
    lay_out(config.batch_size, grid, config.grid.micro_batches)
    for network in recipe.networks(config.baselines):
        layers = network.layers(config.size, shape_of(schema))
        if network is recipe.network:
            layers = _check_init(config, layers)
        parameters = count_parameters(layers, config.seed)
        check_stages(parameters, grid)
        cut = config.cut_of(network is recipe.network)
        if cut != "measured":
            check_cut(plain_cut(parameters, grid.parts, cut), parameters, grid)


def _check_init(config: RunConfig, layers: Sequence[Layer]) -> list[Layer]:
    """Check that the weights to start from fit the layers' names; return the layers, some frozen.

    Raises:
        InputError: no checkpoint is there, or names don't fit.
    """
    init = config.init
    if init.source is None:
        return list(layers)
    if not (Path(init.source) / INDEX).is_file():
        raise InputError(
            "is no folder of a checkpoint", path=init.source, remedy="say: --init-from RUN"
        )
    saved, names = Checkpoint.open(Path(init.source)).layers, [layer.name for layer in layers]
    plan = plan_transfer(saved, names, skip=init.fresh, freeze=init.freeze)
    return [
        frozen(layer) if still else layer for layer, still in zip(layers, plan.frozen, strict=True)
    ]
