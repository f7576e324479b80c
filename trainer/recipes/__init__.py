"""Published systems, one file each. A new file here that defines ``RECIPE`` is a new recipe."""

from __future__ import annotations

import difflib
import pkgutil
from functools import cache
from importlib import import_module

from data_shards.errors import InputError
from trainer.recipe import Recipe


@cache
def recipe_names() -> tuple[str, ...]:
    """Names of all recipes, sorted: the module names of this package."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__)))


def get_recipe(name: str) -> Recipe:
    """Return a recipe by name.

    Raises:
        InputError: there is none of that name; suggests the nearest.
    """
    if name not in recipe_names():
        near = difflib.get_close_matches(name, recipe_names(), n=1)
        known = ", ".join(recipe_names())
        raise InputError(
            f"no recipe {name!r}",
            remedy=f"did you mean {near[0]!r}?" if near else f"there are: {known}",
        )
    recipe: Recipe = import_module(f"{__name__}.{name}").RECIPE
    return recipe
