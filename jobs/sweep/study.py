"""The study of a sweep in Optuna's storage: what it is, who drives it, and which trial comes next.

The storage is the only truth about a sweep. A study carries its plan; going on with another plan is
refused. It carries a lease, which its driver renews; a second driver is refused while that holds.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil
from pydantic import Field

from data_shards.documents import Document
from data_shards.errors import InputError
from data_shards.hashing import key, permutation
from jobs.sweep.space import Direction, Space, differences

if TYPE_CHECKING:
    import optuna
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.storages import RDBStorage

SamplerName = Literal["tpe", "gp", "cmaes", "qmc", "random", "grid", "list"]
PrunerName = Literal["median", "halving", "hyperband", "patient", "none"]
ObjectiveName = Literal["loss", "auroc", "aupr", "seconds", "parameters"]
DIRECTIONS: Mapping[ObjectiveName, Direction] = {
    "loss": "minimize",
    "auroc": "maximize",
    "aupr": "maximize",
    "seconds": "minimize",
    "parameters": "minimize",
}
_PLAN, _LEASE = "replisome.plan", "replisome.lease"
LEASE_SECONDS = 60.0
_SETTLE = 0.2  # seconds until a lease is read back: of two that write at once, the later wins
_CONNECT = 5  # seconds to wait for a database server


class SweepPlan(Document):
    """All that makes a study what it is; stored with it.

    Attributes:
        config: of all trials, apart from what is searched, as plain values.
        space: see :meth:`jobs.sweep.space.Space.plain`; empty for a list.
        members: for a list: the settings of each trial, by its number.
    """

    recipe: str
    data: str
    fingerprint: str
    config: dict[str, Any]
    space: dict[str, Any]
    members: tuple[dict[str, Any], ...] = ()
    objectives: tuple[ObjectiveName, ...] = Field(min_length=1)
    sampler: SamplerName = "tpe"
    pruner: PrunerName = "median"
    seed: int = 0

    @property
    def directions(self) -> list[Direction]:
        """Of the objectives."""
        return [DIRECTIONS[name] for name in self.objectives]

    @property
    def study(self) -> str:
        """What the name of its study begins with: recipe and data, so that no two are mixed up."""
        return f"{self.recipe}-{self.fingerprint[:12]}"

    def search_space(self) -> Space:
        """Return the space."""
        return Space.read(self.space, "the study")


class Lease(Document):
    """Who drives a study, and until when.

    Attributes:
        token: of the driver.
        host: it runs on.
        pid: of its process.
        started: when that process started; seconds since the epoch.
        until: the lease ends then, unless renewed; seconds since the epoch.
    """

    token: str
    host: str
    pid: int
    started: float
    until: float

    @classmethod
    def mine(cls) -> Lease:
        """Return a fresh lease of this process."""
        started = psutil.Process().create_time()
        return cls(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            pid=os.getpid(),
            started=started,
            until=time.time() + LEASE_SECONDS,
        )

    def holds(self) -> bool:
        """Whether its driver may still be at work: not past its end, nor known to be dead."""
        if time.time() > self.until:
            return False
        if self.host != socket.gethostname():
            return True
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 1.0
        except psutil.NoSuchProcess:
            return False


class LeaseLostError(InputError):
    """Another driver has the study now."""


def sqlite_url(folder: Path) -> str:
    """Return the storage that lies in a sweep's own folder."""
    return f"sqlite:///{folder / 'study.db'}"


def open_storage(url: str) -> RDBStorage:
    """Connect to a storage; makes its tables if they are missing.

    Raises:
        InputError: it does not answer, or the address is none.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    settings: dict[str, Any] = {"pool_pre_ping": True}  # a server that was away: connect again
    if url.startswith("postgresql://"):
        url = url.replace("postgresql://", "postgresql+psycopg://", 1)
    if url.startswith("postgresql"):
        settings["connect_args"] = {"connect_timeout": _CONNECT}
    try:
        return optuna.storages.RDBStorage(url, engine_kwargs=settings)
    except (SQLAlchemyError, ValueError, ImportError, ModuleNotFoundError) as error:
        raise InputError(
            f"the storage {masked(url)} can't be opened: {_first_line(error)}",
            remedy="start the server, or leave --storage out for a file in the sweep's folder",
        ) from None


def masked(url: str) -> str:
    """Return an address without its password."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        return "(no address)"


def open_study(storage: RDBStorage, name: str, plan: SweepPlan, *, resume: bool) -> optuna.Study:
    """Create a study, or open one to go on with it.

    Raises:
        InputError: it exists and shall not be resumed, or does not and shall; its plan is another.
    """
    import optuna

    exists = name in optuna.study.get_all_study_names(storage)
    if exists and not resume:
        raise InputError(
            f"a sweep {name!r} exists in this storage",
            remedy="go on with it: --resume; or give another --name",
        )
    if resume and not exists:
        raise InputError(f"there is no sweep {name!r} in this storage", remedy="check the name")
    study = optuna.create_study(
        storage=storage,
        study_name=name,
        directions=plan.directions,
        sampler=make_sampler(plan, 0),
        pruner=make_pruner(plan),
        load_if_exists=resume,
    )
    stored = study.user_attrs.get(_PLAN)
    if stored is None:
        study.set_user_attr(_PLAN, plan.model_dump(mode="json"))
    elif changed := differences(stored, plan.model_dump(mode="json")):
        raise InputError(
            f"sweep {name!r} was begun with other settings: {'; '.join(changed[:5])}",
            remedy="go on without changing them, or begin another sweep",
        )
    return study


def stored_plan(study: optuna.Study) -> SweepPlan:
    """Return the plan that a study carries."""
    return SweepPlan.model_validate(study.user_attrs[_PLAN])


def take_lease(study: optuna.Study, lease: Lease) -> None:
    """Become the driver of a study.

    Raises:
        InputError: another driver is at work on it.
    """
    held = study.user_attrs.get(_LEASE)
    if held is not None:
        other = Lease.model_validate(held)
        if other.token != lease.token and other.holds():
            raise InputError(
                f"process {other.pid} on {other.host} drives this sweep",
                remedy=f"wait for it or stop it; if it is gone, its claim ends in "
                f"{max(0.0, other.until - time.time()):.0f} s",
            )
    study.set_user_attr(_LEASE, lease.model_dump())
    time.sleep(_SETTLE)
    now = Lease.model_validate(study.user_attrs[_LEASE])
    if now.token != lease.token:
        raise InputError(
            f"process {now.pid} on {now.host} drives this sweep", remedy="wait for it or stop it"
        )


def renew_lease(study: optuna.Study, lease: Lease) -> Lease:
    """Extend a lease.

    Raises:
        LeaseLostError: another driver has taken the study over.
    """
    now = Lease.model_validate(study.user_attrs[_LEASE])
    if now.token != lease.token:
        raise LeaseLostError(
            f"process {now.pid} on {now.host} has taken this sweep over: this one ends",
            remedy="look at it there, or with: replisome sweep status",
        )
    lease = lease.model_copy(update={"until": time.time() + LEASE_SECONDS})
    study.set_user_attr(_LEASE, lease.model_dump())
    return lease


def give_lease_back(study: optuna.Study, lease: Lease) -> None:
    """Let the next driver begin at once."""
    study.set_user_attr(_LEASE, lease.model_copy(update={"until": 0.0}).model_dump())


def make_sampler(plan: SweepPlan, number: int) -> BaseSampler:
    """Return the sampler for a trial.

    Those with a random state get a seed from the trial's number: a process that goes on with a
    study would else repeat the points of the one before.
    """
    from optuna import samplers
    from optuna.exceptions import ExperimentalWarning

    warnings.simplefilter("ignore", ExperimentalWarning)  # of QMC and fixed points, for years
    drawn = key(plan.seed, number, 0x5EED) & 0xFFFF_FFFF
    fixed = plan.seed & 0xFFFF_FFFF
    match plan.sampler:
        case "tpe":
            return samplers.TPESampler(seed=drawn, constant_liar=True)
        case "gp":
            return samplers.GPSampler(seed=drawn)
        case "cmaes":
            return samplers.CmaEsSampler(seed=drawn)
        case "qmc":
            return samplers.QMCSampler(seed=fixed, scramble=True, warn_independent_sampling=False)
        case "grid":
            # Optuna's own stops a loop of its own at the end, which there is none of here.
            return samplers.PartialFixedSampler(
                grid_point(plan, number), samplers.RandomSampler(seed=drawn)
            )
        case "random" | "list":
            return samplers.RandomSampler(seed=drawn)


def planned_trials(plan: SweepPlan) -> int | None:
    """Return how many trials a list or a grid has; None where there is no end."""
    if plan.members:
        return len(plan.members)
    if plan.sampler == "grid":
        return math.prod(len(values) for values in plan.search_space().grid().values())
    return None


def grid_point(plan: SweepPlan, number: int) -> dict[str, Any]:
    """Return the point of a grid that a trial gets: each one once, in an order by the seed."""
    grid = plan.search_space().grid()
    sizes = [len(values) for values in grid.values()]
    place = int(permutation(math.prod(sizes), plan.seed)[number % math.prod(sizes)])
    point = {}
    for (name, values), size in zip(grid.items(), sizes, strict=True):
        place, digit = divmod(place, size)
        point[name] = values[digit]
    return point


def make_pruner(plan: SweepPlan) -> BasePruner:
    """Return the pruner; steps are epochs."""
    from optuna import pruners

    epochs = int(plan.config["epochs"])
    match plan.pruner:
        case "median":
            return pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
        case "halving":
            return pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        case "hyperband":
            return pruners.HyperbandPruner(
                min_resource=1, max_resource=max(1, epochs), reduction_factor=3
            )
        case "patient":
            return pruners.PatientPruner(pruners.MedianPruner(n_startup_trials=4), patience=2)
        case "none":
            return pruners.NopPruner()


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0][:200]
