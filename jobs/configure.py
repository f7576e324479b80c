"""From what a person typed to a configuration that is known to fit the data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_shards.dataset import ShardedDataset
from data_shards.documents import read_toml
from data_shards.errors import InputError
from trainer.config import RunConfig, resolve
from trainer.cut import check_cut, check_stages
from trainer.grid import Grid, lay_out
from trainer.recipe import build_layer, shape_of, trainable
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
    grid = Grid(config.grid.stages, config.grid.replicas)
    lay_out(config.batch_size, grid, config.grid.micro_batches)
    for network in recipe.networks(config.baselines):
        layers = network.layers(config.size, shape_of(schema))
        parameters = [
            trainable(build_layer(layer, config.seed, i)) for i, layer in enumerate(layers)
        ]
        cut = config.cut_of(network is recipe.network)
        if cut is None:
            check_stages(parameters, grid.stages)
        else:
            check_cut(cut, parameters, grid.stages)
