"""The driver of a sweep: makes the board and the slots, shows the table, tells MLflow.

It holds nothing that the study does not: killed at any moment, another driver goes on.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_shards.dataset import ShardedDataset
from jobs.cluster import Share, cluster, share
from jobs.console import Console
from jobs.journal import Journal, Status
from jobs.provenance import command_line, git_commit
from jobs.runfolder import RunFolder
from jobs.sight import check_sight
from jobs.sweep.board import Board
from jobs.sweep.folder import SweepIdentity, SweepStatus
from jobs.sweep.gathering import gather
from jobs.sweep.messages import PAUSED, Budget, News, Opening, Snapshot, ask
from jobs.sweep.pages import Pages, Sweep
from jobs.sweep.results import load_study, record_sweep
from jobs.sweep.slot import SlotJob, trial_folder
from jobs.sweep.slots import Slots
from jobs.sweep.study import Lease, SweepPlan
from jobs.sweep.table import SweepTable
from trainer.config import RunConfig, flatten
from trainer.grid import Grid, grid_of
from trainer.recipes import get_recipe
from trainer.results import CALL

Order = Literal["pause", "drain", "cancel"]
_LOOK = 0.5  # seconds between two looks at the board
_STATUS_EVERY = 2.0  # seconds between two writes of the status
_DRAW_EVERY = 60.0  # seconds between two drawings of the study
_LEAVE = 60.0  # seconds that slots get to save and leave


@dataclass(frozen=True)
class Request:
    """What a person asked for.

    Attributes:
        plan: what the study is.
        config: of all trials, apart from what is searched.
        data: the data set.
        folder: of the sweep; its identity is in it when it goes on.
        storage: address of the study's storage.
        study: its name.
        slots: trials at a time.
        budget: when to end.
        retries: how often a trial whose worker group was lost is tried again.
        halve: try again with half the micro-batch when memory runs out.
        keep: whose weights are kept.
        resume: go on with a sweep.
    """

    plan: SweepPlan
    config: RunConfig
    data: ShardedDataset
    folder: RunFolder
    storage: str
    study: str
    slots: int
    budget: Budget
    retries: int
    halve: bool
    keep: Literal["best", "all"]
    resume: bool


def run_sweep(request: Request, console: Console) -> dict[str, Any]:
    """Run a sweep until its budget is used, its list is done, or somebody ends it.

    Returns:
        What came of it, as plain values.

    Raises:
        InputError: before anything is started: the study can't be opened, or another driver has it.
        Exception: no slot could be kept at work.
    """
    grid = grid_of(request.config.grid)
    with contextlib.ExitStack() as stack:
        stack.enter_context(request.folder.owned())
        with console.step("start Ray"):
            found = stack.enter_context(cluster())
            # All slots together are as one grid of more replicas.
            all_slots = Grid(grid.stages, grid.replicas * request.slots, grid.folded)
            workers = share(found, all_slots, request.config.grid.device)
        for note in workers.notes:
            console.say(note)
        check_sight(workers.resources, request.folder.root, request.data)
        with console.step("open the study"):
            board = _open_board(request, grid)
        sweep = _parent_run(request, workers)
        console.say(f"sweep {request.study}, in {request.folder.path}")
        table = stack.enter_context(
            SweepTable(console.log, request.plan.objectives, request.budget, request.slots)
        )
        driver = _Driver(request, board, sweep, workers, table)
        status = driver.drive()
    return driver.result(status)


def _open_board(request: Request, grid: Grid) -> Any:
    """Make the board's actor, on this node, where a storage in a file is."""
    import ray

    opening = Opening(
        request.storage,
        request.study,
        request.plan,
        Lease.mine(),
        request.budget,
        request.retries,
        request.resume,
    )
    here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
    actor = ray.remote(Board).options(num_cpus=0, label_selector=here)
    board = actor.remote(opening, grid.workers)
    ask(board.open)
    return board


def _parent_run(request: Request, workers: Share) -> Sweep:
    """Begin the sweep's own run, or go on with it."""
    from jobs.record import data_schema

    folder, plan = request.folder, request.plan
    journal, schema = Journal(folder.path), data_schema(request.data.schema)
    common = {
        **flatten(plan.config),
        "grid.device": workers.device,
        "git.commit": git_commit(),
        "data.path": plan.data,
        "data.fingerprint": plan.fingerprint,
    }
    tags = {
        "replisome.sweep": folder.name,
        "replisome.recipe": plan.recipe,
        "replisome.data": plan.fingerprint[:12],
        "mlflow.user": getpass.getuser(),
    }
    SweepIdentity.new(request.study, request.storage).write(folder)
    if journal.begun:
        journal.status("RUNNING")
        journal.tags({"replisome.resumed": command_line()})
    else:
        search = {
            "sweep.sampler": plan.sampler,
            "sweep.pruner": plan.pruner,
            "sweep.seed": plan.seed,
            "sweep.objectives": ", ".join(plan.objectives),
            "sweep.space": json.dumps(plan.space)[:6000],
            "sweep.members": len(plan.members),
            "sweep.slots": request.slots,
        }
        about = {
            **tags,
            "replisome.phase": "sweep",
            "replisome.folder": str(folder.path),
            "mlflow.source.name": command_line(),
            "mlflow.source.type": "LOCAL",
            "mlflow.source.git.commit": git_commit() or "unknown",
        }
        journal.begin(folder.experiment, folder.name, common | search, about)
        journal.data(request.data.place, plan.fingerprint, schema)
    return Sweep(
        folder,
        request.data.place,
        plan.fingerprint,
        schema,
        get_recipe(plan.recipe).network.name,
        plan.objectives,
        {name: value for name, value in common.items() if name not in plan.space},
        {**tags, "replisome.phase": "trial"},
    )


class _Driver:
    """Drives a sweep whose board is there."""

    def __init__(
        self,
        request: Request,
        board: Any,
        sweep: Sweep,
        workers: Share,
        table: SweepTable,
    ) -> None:
        self._request, self._board = request, board
        self._sweep, self._table = sweep, table
        self._job = SlotJob(
            0,
            board,
            request.config,
            request.data.place,
            sweep.trials,
            request.plan.objectives,
            workers.device,
            {},
        )
        self._workers = workers
        self._seen = 0
        self._status_at = self._drawn_at = 0.0
        self._drawn_for = -1
        self._best: int | None = None
        self._ended_by: Order | None = None
        self._gathered: dict[str, float] = {}

    def drive(self) -> Snapshot:
        """Keep the sweep going until it ends; return how it stands then."""
        request, folder = self._request, self._request.folder
        folder.log.mkdir(parents=True, exist_ok=True)
        self._sweep.trials.mkdir(exist_ok=True)
        self._command.unlink(missing_ok=True)
        self._pages = Pages(self._sweep, self._keep, self._table.say)
        self._slots = Slots(
            self._job,
            request.slots,
            self._workers,
            folder.log,
            self._table.say,
            halve=request.halve,
        )
        before: Snapshot = self._ask("watch", 0)[1]
        self._best = before.best[0] if before.best else None
        try:
            while self._slots.alive():
                self._look()
                self._obey()
                time.sleep(_LOOK)
        except KeyboardInterrupt:
            self._table.say("interrupted: trials save and leave; once more ends them at once")
            self._leave("pause")
        finally:
            self._slots.end()
        snapshot = self._look()
        if self._slots.errors and not snapshot.counts["complete"]:
            self._finish(snapshot, "FAILED")
            raise self._slots.errors[0]
        if request.plan.members and self._ended_by is None:
            self._gather(snapshot)
        self._finish(snapshot, "KILLED" if self._ended_by in ("pause", "cancel") else "FINISHED")
        return snapshot

    def _gather(self, snapshot: Snapshot) -> None:
        """Have the recipe make one thing of a list's members, if all have ended."""
        request = self._request
        counts = snapshot.counts
        if counts["complete"] + counts["failed"] < len(request.plan.members):
            return

        def advance(done: int, total: int) -> None:
            self._table.progress("gathering the members", done, total)
            if time.monotonic() - self._status_at > _STATUS_EVERY:
                self._look()  # renews the lease

        try:
            study = load_study(request.storage, request.study)
            self._gathered = gather(request.folder, request.data, study, advance, self._table.say)
        except BaseException:
            self._finish(snapshot, "FAILED")
            raise

    def result(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return what came of it, as plain values."""
        best = None
        if snapshot.best is not None:
            number, values = snapshot.best
            best = {
                "trial": number,
                "values": dict(zip(self._request.plan.objectives, values, strict=True)),
                "config": str(trial_folder(self._sweep.trials, number) / "config.toml"),
            }
        return {
            "sweep": self._request.study,
            "folder": str(self._request.folder.path),
            "run_id": self._pages.run_id,
            "counts": dict(snapshot.counts),
            "best": best,
            "seconds": snapshot.wall_seconds,
            "worker_seconds": snapshot.worker_seconds,
            "ended": self._ended_by or snapshot.closing,
            "gathered": self._gathered,
        }

    @property
    def _command(self) -> Path:
        return self._request.folder.path / "command"

    def _ask(self, method: str, *arguments: Any) -> Any:
        return ask(getattr(self._board, method), *arguments)

    def _keep(self, number: int, name: str, value: Any) -> None:
        self._ask("keep", number, name, value)

    def _look(self) -> Snapshot:
        """See what is new, and show and tell it."""
        news: list[News]
        snapshot: Snapshot
        news, snapshot = self._ask("watch", self._seen)
        self._seen += len(news)
        for item in news:
            self._take(item, snapshot)
        self._table.show(snapshot)
        if time.monotonic() - self._status_at > _STATUS_EVERY:
            self._status_at = time.monotonic()
            SweepStatus.of(snapshot, self._table.summary(snapshot)).write(self._request.folder)
        ended = snapshot.counts["complete"] + snapshot.counts["pruned"]
        if time.monotonic() - self._drawn_at > _DRAW_EVERY and ended != self._drawn_for:
            self._drawn_at, self._drawn_for = time.monotonic(), ended
            self._record()
        return snapshot

    def _take(self, news: News, snapshot: Snapshot) -> None:
        self._table.take(news)
        self._pages.take(news)
        if news.kind == "ended" and self._request.keep == "best":
            best = snapshot.best[0] if snapshot.best else None
            for number in {news.number, self._best} - {best, None}:
                assert number is not None
                _forget_weights(trial_folder(self._sweep.trials, number))
            self._best = best

    def _obey(self) -> None:
        """Do what ``replisome sweep pause``, ``drain`` or ``cancel`` asks."""
        if not self._command.exists():
            return
        order = self._command.read_text().strip()
        self._command.unlink()
        self._table.say(f"asked to {order}")
        if order == "drain":
            self._ended_by = "drain"
            self._ask("stop_handing_out", "drained")
        elif order in ("pause", "cancel"):
            self._leave("pause" if order == "pause" else "cancel")

    def _leave(self, order: Literal["pause", "cancel"]) -> None:
        """Have the running trials save and leave, and wait for it."""
        self._ended_by = order
        snapshot: Snapshot = self._ask("watch", self._seen)[1]
        running = {trial.number for trial in snapshot.running}
        if order == "cancel":
            self._ask("cancel")
        else:
            self._ask("stop_handing_out", PAUSED)
        deadline = time.monotonic() + _LEAVE
        with contextlib.suppress(KeyboardInterrupt):
            while self._slots.alive() and time.monotonic() < deadline:
                for number in running:
                    trial_folder(self._sweep.trials, number).mkdir(exist_ok=True)
                    (trial_folder(self._sweep.trials, number) / CALL).write_text(order)
                running |= {trial.number for trial in self._look().running}
                time.sleep(_LOOK)
        self._slots.end()
        for number in running:
            (trial_folder(self._sweep.trials, number) / CALL).unlink(missing_ok=True)

    def _finish(self, snapshot: Snapshot, status: Status) -> None:
        self._record(final=status == "FINISHED")
        Journal(self._request.folder.path).status(status)
        if left := self._pages.close():
            root = self._request.folder.root
            self._table.say(
                f"{left:,} entries wait on disk for MLflow: replisome track sync --runs {root} "
                "delivers them"
            )
        if not self._ask("close"):
            self._table.say("the storage is away: what ended last is not written, and is done anew")
        SweepStatus.of(snapshot, self._table.summary(snapshot)).write(self._request.folder)

    def _record(self, *, final: bool = False) -> None:
        request = self._request
        try:
            record_sweep(request.folder, request.storage, request.study, final=final)
        except Exception as error:  # a picture, or a storage that is away, must not end a sweep
            text = str(error).partition("\n")[0]
            self._table.say(f"the sweep's page is not brought up to date now: {text}")


def _forget_weights(folder: Path) -> None:
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
