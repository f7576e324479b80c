"""From what a person typed to a sweep that is known to make sense."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data_shards.dataset import ShardedDataset
from data_shards.documents import parse, read_toml
from data_shards.errors import InputError
from jobs.configure import configure, preflight
from jobs.runfolder import RunFolder, create_run_folder
from jobs.sweep.campaign import Request
from jobs.sweep.folder import SweepIdentity, find_sweep
from jobs.sweep.messages import Budget
from jobs.sweep.results import load_study
from jobs.sweep.space import Space, default_space, nested
from jobs.sweep.study import (
    DIRECTIONS,
    ObjectiveName,
    PrunerName,
    SamplerName,
    SweepPlan,
    masked,
    sqlite_url,
    stored_plan,
)
from trainer.config import RunConfig, merge
from trainer.recipes import get_recipe

STORAGE = "REPLISOME_STORAGE"
"""Environment variable with the address of the studies' database."""


@dataclass(frozen=True)
class Wish:
    """What a person typed; None is "not said".

    Attributes:
        given: settings of all trials, nested.
        members: how many seeds, or a TOML file with a list of settings.
        resume: name of a sweep to go on with.
    """

    recipe: str | None
    data: str | None
    config: Path | None
    given: Mapping[str, Any]
    space: Path | None
    members: str | None
    objectives: Sequence[ObjectiveName]
    sampler: SamplerName | None
    pruner: PrunerName | None
    seed: int | None
    trials: int | None
    seconds: float | None
    worker_seconds: float | None
    slots: int
    retries: int
    halve: bool
    keep: Literal["best", "all"]
    storage: str | None
    runs: Path
    experiment: str | None
    name: str | None
    resume: str | None


def make_request(wish: Wish) -> Request:
    """Resolve a wish, and find what would fail later.

    Raises:
        InputError: something is missing, unknown or does not go together; on going on: something
            is other than it was.
    """
    if wish.slots < 1:
        raise InputError(f"--slots {wish.slots} is none", remedy="say 1 or more")
    return _begin(wish) if wish.resume is None else _go_on(wish, wish.resume)


def _begin(wish: Wish) -> Request:
    if wish.recipe is None or wish.data is None:
        raise InputError(
            "a recipe and --data are needed",
            remedy="replisome sweep danq --data x.zarr --trials 20, or: --resume SWEEP",
        )
    plan, config, data = _planned(wish)
    if not plan.members and plan.sampler != "grid":
        limits = (wish.trials, wish.seconds, wish.worker_seconds)
        if all(limit is None for limit in limits):
            raise InputError("nothing says when to stop", remedy="say --trials, or --hours")
    folder = create_run_folder(
        wish.runs, wish.experiment or config.recipe, wish.name, f"sweep-{config.size}"
    )
    storage = wish.storage or os.environ.get(STORAGE) or sqlite_url(folder.path)
    return _request(wish, plan, config, data, folder, storage, f"{plan.study}-{folder.name}")


def _go_on(wish: Wish, name: str) -> Request:
    folder = find_sweep(wish.runs, name)
    identity = SweepIdentity.of(folder)
    assert identity is not None
    storage = storage_again(wish.storage, identity)
    plan = stored_plan(load_study(storage, identity.study))
    if _says_what(wish):
        # The plan as it would be now; the study's own is compared with it when it is opened.
        again = replace(wish, recipe=wish.recipe or plan.recipe, data=wish.data or plan.data)
        plan, config, data = _planned(again, before=plan)
    else:
        config = parse(RunConfig, plan.config, "the study")
        data = _opened(plan.data, config)
        if data.attributes.fingerprint != plan.fingerprint:
            raise InputError(
                "the data set is another than the sweep began with (fingerprint "
                f"{data.attributes.fingerprint[:12]}, then {plan.fingerprint[:12]})",
                path=plan.data,
                remedy="bring the old one back, or begin another sweep",
            )
    return _request(wish, plan, config, data, folder, storage, identity.study, resume=True)


def objectives(names: Sequence[str]) -> tuple[ObjectiveName, ...]:
    """Read the names of objectives.

    Raises:
        InputError: one is unknown.
    """
    for name in names:
        if name not in DIRECTIONS:
            raise InputError(
                f"--objective {name!r} is none", remedy=f"there are: {', '.join(DIRECTIONS)}"
            )
    return tuple(known for name in names for known in DIRECTIONS if known == name)


def _says_what(wish: Wish) -> bool:
    """Whether it says anything about what is searched, and not only how long and where."""
    plain = (wish.recipe, wish.data, wish.config, wish.space, wish.members)
    choice = (wish.sampler, wish.pruner, wish.seed)
    return any(said is not None for said in (*plain, *choice)) or bool(
        wish.given or wish.objectives
    )


def _planned(
    wish: Wish, before: SweepPlan | None = None
) -> tuple[SweepPlan, RunConfig, ShardedDataset]:
    """Work out what the study is.

    Args:
        wish: with recipe and data.
        before: the study's plan, for what is not said.
    """
    assert wish.recipe is not None and wish.data is not None
    file = before.config if before is not None and wish.config is None else None
    settings = merge(file or {}, wish.given)
    objectives = tuple(wish.objectives) or (before.objectives if before else ())
    config = configure(wish.recipe, wish.config, {**settings, "baselines": False})
    objectives = objectives or (config.monitor,)
    if objectives[0] in ("loss", "auroc", "aupr"):
        config = config.model_copy(update={"monitor": objectives[0]})
    data = _opened(wish.data, config)
    samples = data.schema.split("train").samples
    members = _members(wish.members, config) if wish.members else ()
    if before is not None and wish.members is None:
        members = before.members
    if members:
        space = Space({})
    elif wish.space is not None:
        document = read_toml(wish.space, remedy="a table a setting: see replisome sweep --help")
        space = Space.read(document, str(wish.space)).fitted(config, samples)
    elif before is not None:
        space = before.search_space()
    else:
        recipe_space = get_recipe(wish.recipe).space
        space = default_space(config, recipe_space, samples).fitted(config, samples)
    pruner: PrunerName = wish.pruner or (before.pruner if before else _usual_pruner(objectives))
    if len(objectives) > 1 and pruner != "none":
        raise InputError(
            f"--pruner {pruner} goes with a single objective", remedy="say: --pruner none"
        )
    sampler: SamplerName = wish.sampler or (before.sampler if before else "tpe")
    plan = SweepPlan(
        recipe=wish.recipe,
        data=str(data.place),
        fingerprint=data.attributes.fingerprint,
        config=config.model_dump(mode="json"),
        space=space.plain(),
        members=members,
        objectives=objectives,
        sampler="list" if members else sampler,
        pruner="none" if members else pruner,
        seed=wish.seed if wish.seed is not None else (before.seed if before else 0),
    )
    if plan.sampler == "grid":
        space.grid()
    return plan, config, data


def _usual_pruner(objectives: Sequence[ObjectiveName]) -> PrunerName:
    return "median" if len(objectives) == 1 else "none"


def _opened(place: str, config: RunConfig) -> ShardedDataset:
    data = ShardedDataset(place)
    preflight(config, data)
    return data


def _members(text: str, config: RunConfig) -> tuple[dict[str, Any], ...]:
    """Read the list of a campaign: ``seeds=N``, or a TOML file with ``[[member]]`` tables.

    Raises:
        InputError: it is neither, or a member's settings make no configuration.
    """
    kind, equals, number = text.partition("=")
    if kind == "seeds" and equals:
        if not number.isdigit() or int(number) < 1:
            raise InputError(f"--members {text!r}: no number of seeds", remedy="say: seeds=10")
        return tuple({"seed": config.seed + count} for count in range(int(number)))
    path = Path(text)
    document = read_toml(path, remedy="say seeds=N, or name a TOML file with [[member]] tables")
    tables = document.get("member")
    if not isinstance(tables, list) or not tables:
        raise InputError(
            "has no [[member]] tables", path=path, remedy='write for example: [[member]] "seed" = 1'
        )
    for place, table in enumerate(tables, start=1):
        values = merge(config.model_dump(), nested(table))
        parse(RunConfig, values, f"{path}, member {place}")
    return tuple(tables)


def storage_again(given: str | None, identity: SweepIdentity) -> str:
    """Return the storage of a sweep that is there; its password is told anew.

    Raises:
        InputError: another storage was named, or the password is missing.
    """
    given = given or os.environ.get(STORAGE)
    if given is None:
        if "***" in identity.storage:
            raise InputError(
                f"the study is in {identity.storage}, and its password is not kept",
                remedy=f"say --storage with the password, or set {STORAGE}",
            )
        return identity.storage
    if masked(given) != identity.storage:
        raise InputError(
            f"the study is in {identity.storage}, not in {masked(given)}",
            remedy="name the storage that the sweep began with",
        )
    return given


def _request(
    wish: Wish,
    plan: SweepPlan,
    config: RunConfig,
    data: ShardedDataset,
    folder: RunFolder,
    storage: str,
    study: str,
    *,
    resume: bool = False,
) -> Request:
    trials = wish.trials
    if trials is None and plan.members:
        trials = len(plan.members)
    return Request(
        plan,
        config,
        data,
        folder,
        storage,
        study,
        wish.slots,
        Budget(trials, wish.seconds, wish.worker_seconds),
        wish.retries,
        wish.halve,
        "all" if plan.members else wish.keep,
        resume,
    )
