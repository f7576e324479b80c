"""``replisome recipes``: what can be trained."""

from __future__ import annotations

from typing import Any

import tomli_w
from rich.table import Table

from jobs.console import Console
from trainer.recipe import Shape, build_layer, trainable
from trainer.recipes import get_recipe, recipe_names

_SHOWN = Shape(length=1000, tasks=919)


def list_recipes(console: Console) -> dict[str, Any]:
    """List the recipes."""
    recipes = [get_recipe(name) for name in recipe_names()]
    table = Table("recipe", "title", "sizes")
    for recipe in recipes:
        table.add_row(recipe.name, recipe.title, ", ".join(recipe.sizes))
    console.show(table)
    return {"recipes": [{"name": recipe.name, "title": recipe.title} for recipe in recipes]}


def show_recipe(name: str, console: Console) -> dict[str, Any]:
    """Show all that a recipe says.

    Raises:
        InputError: there is no such recipe.
    """
    recipe = get_recipe(name)
    console.show(f"{recipe.title}\n{recipe.citation}\n\nsample: {recipe.sample}\n")
    layers: dict[str, list[dict[str, Any]]] = {}
    for size, about in recipe.sizes.items():
        table = Table("layer", "module", "weights", title=f"{size}: {about}", title_justify="left")
        layers[size] = []
        for index, layer in enumerate(recipe.network.layers(size, _SHOWN)):
            module = build_layer(layer, 0, index)
            kind, weights = type(module).__name__, trainable(module)
            layers[size].append({"layer": layer.name, "module": kind, "weights": weights})
            table.add_row(layer.name, kind, f"{weights:,}")
        total = sum(entry["weights"] for entry in layers[size])
        table.add_section()
        table.add_row(f"{_SHOWN.length} bp, {_SHOWN.tasks} tasks", "", f"{total:,}")
        console.show(table)
        console.show(f"defaults:\n{tomli_w.dumps(dict(recipe.defaults(size)))}")
    baselines = [network.name for network in recipe.ablations]
    baselines += [estimator.name for estimator in recipe.estimators]
    console.show(f"baselines: {', '.join(baselines)}")
    return {
        "name": recipe.name,
        "title": recipe.title,
        "citation": recipe.citation,
        "sample": recipe.sample,
        "layers": layers,
        "defaults": {size: dict(recipe.defaults(size)) for size in recipe.sizes},
        "baselines": baselines,
    }
