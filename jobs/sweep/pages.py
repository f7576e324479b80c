"""A sweep in MLflow: one parent run, a child a trial. Written to journals; never in the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.store.location import Location
from jobs.delivery import PATIENCE, Delivery, Store
from jobs.journal import Journal, Status
from jobs.runfolder import Identity, RunFolder
from jobs.sweep.messages import News
from jobs.sweep.slot import trial_folder
from jobs.sweep.study import ObjectiveName
from trainer.events import Event

_STATUS: Mapping[str, Status] = {
    "complete": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
    "returned": "KILLED",
}
_SOON = 5.0  # seconds that a trial's last entries are tried at once; later at the sweep's end


@dataclass(frozen=True)
class Sweep:
    """What all trials of a sweep have in common.

    Attributes:
        folder: of the sweep.
        data: the data set.
        fingerprint: of the data set.
        schema: MLflow's types of its fields.
        network: whose metrics go by their plain names.
        objectives: what trials are judged by.
        parameters: of all trials, apart from what is searched.
        tags: that the children have too, so that filters find them.
    """

    folder: RunFolder
    data: Location
    fingerprint: str
    schema: Mapping[str, str]
    network: str
    objectives: tuple[ObjectiveName, ...]
    parameters: Mapping[str, Any]
    tags: Mapping[str, str]

    @property
    def trials(self) -> Path:
        """Folder of the trials' folders."""
        return self.folder.path / "trials"


class Pages:
    """Keeps the runs of a sweep and of its trials up to date.

    Args:
        sweep: the sweep.
        keep: keeps an attribute with a trial in the study.
        say: told, once, that MLflow does not answer.
    """

    def __init__(
        self, sweep: Sweep, keep: Callable[[int, str, Any], None], say: Callable[[str], None]
    ) -> None:
        self._sweep, self._keep, self._say = sweep, keep, say
        self._store = Store(sweep.folder.root)
        self._complained = False
        self._parent = self._follow(sweep.folder.path)
        self._trials: dict[int, Delivery] = {}
        self._ending: list[tuple[int, Delivery]] = []
        self._known: set[int] = set()

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the sweep's run, once it has one."""
        return self._parent.run_id

    def take(self, news: News) -> None:
        """Take note of something that happened to a trial."""
        match news.kind:
            case "began":
                self._began(news)
            case "ended" | "again":
                self._ended(news)
        self._keep_ids()

    def close(self) -> int:
        """Deliver what is left; return how much MLflow would not take."""
        for number, delivery in [*self._ending, *self._trials.items()]:
            delivery.close(_SOON)
            self._trials[number] = self._follow(trial_folder(self._sweep.trials, number))
        left = self._parent.close(PATIENCE)
        patience = 0.0 if left else PATIENCE
        left += sum(delivery.close(patience) for delivery in self._trials.values())
        self._keep_ids()
        return left

    def _follow(self, folder: Path) -> Delivery:
        return Delivery(self._store, folder, self._sweep.network, _ignore, self._complain)

    def _complain(self, text: str) -> None:
        if not self._complained:
            self._say(text)
        self._complained = True

    def _began(self, news: News) -> None:
        sweep, folder = self._sweep, trial_folder(self._sweep.trials, news.number)
        for number, delivery in self._ending:
            if number == news.number:  # one at a time
                delivery.close(_SOON)
        journal = Journal(folder)
        known = Identity(data=str(sweep.data), fingerprint=sweep.fingerprint)
        (folder / "run.json").write_text(known.model_dump_json(indent=2) + "\n")
        if journal.begun:
            journal.status("RUNNING")
        else:
            tags = {
                **sweep.tags,
                "replisome.trial": str(news.number),
                "replisome.slot": str(news.slot),
            }
            name = f"{sweep.folder.name}-{news.number:04d}"
            parameters = {**sweep.parameters, **news.values, "trial": news.number}
            journal.begin(sweep.folder.experiment, name, parameters, tags, sweep.folder.path)
            journal.data(sweep.data, sweep.fingerprint, sweep.schema)
        self._trials[news.number] = self._follow(folder)

    def _ended(self, news: News) -> None:
        journal, told = Journal(trial_folder(self._sweep.trials, news.number)), news.told
        assert told is not None
        objectives = zip(self._sweep.objectives, told.values, strict=False)
        journal.metrics(
            {
                **{f"objective/{name}": value for name, value in objectives},
                "trial/seconds": told.seconds,
                **{f"trial/{name}": float(value) for name, value in told.extra.items()},
            }
        )
        tags = {"replisome.state": told.ending, "replisome.status": _STATUS[told.ending].lower()}
        journal.tags(tags | ({"replisome.reason": told.reason[:500]} if told.reason else {}))
        journal.status(_STATUS[told.ending])
        if news.number in self._trials:
            delivery = self._trials.pop(news.number)
            delivery.finish(_SOON)
            self._ending.append((news.number, delivery))

    def _keep_ids(self) -> None:
        """Write the runs' ids into the study, and let go of deliveries that are through."""
        for number, delivery in [*self._ending, *self._trials.items()]:
            if number not in self._known and delivery.run_id is not None:
                self._known.add(number)
                self._keep(number, "replisome.run_id", delivery.run_id)
        self._ending = [
            (number, delivery) for number, delivery in self._ending if not delivery.through
        ]


def _ignore(_: Event) -> None:
    """Trials have no progress bars of their own."""
