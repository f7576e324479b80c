"""A sweep in MLflow: one parent run, a child a trial, kept up in a thread of the driver's.

MLflow that is slow or away holds nothing up: what is to be told waits, in order.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_shards.store.location import Location
from jobs.runfolder import Identity, RunFolder
from jobs.sweep.messages import News
from jobs.sweep.slot import trial_folder
from jobs.sweep.study import ObjectiveName
from jobs.tracking import Delivery, log_dataset, log_parameters
from trainer.events import FILE_NAME, Event

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

PARENT = "mlflow.parentRunId"
_PATIENCE = 60.0  # seconds that the end of a sweep waits for MLflow
_PAUSE = 2.0  # seconds until something that failed is tried again
_STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "returned": "KILLED"}


@dataclass(frozen=True)
class Sweep:
    """What all trials of a sweep have in common.

    Attributes:
        folder: of the sweep.
        run_id: of the parent run.
        data: the data set.
        fingerprint: of the data set.
        network: whose metrics go by their plain names.
        objectives: what trials are judged by.
        tags: that the children have too, so that filters find them.
    """

    folder: RunFolder
    run_id: str
    data: Location
    fingerprint: str
    network: str
    objectives: tuple[ObjectiveName, ...]
    tags: Mapping[str, str]

    @property
    def trials(self) -> Path:
        """Folder of the trials' folders."""
        return self.folder.path / "trials"


class Pages:
    """Keeps the runs of a sweep's trials up to date.

    Args:
        client: of the tracking store.
        sweep: the sweep.
        keep: keeps an attribute with a trial in the study.
        say: told, once, that MLflow does not answer.
    """

    def __init__(
        self,
        client: MlflowClient,
        sweep: Sweep,
        keep: Callable[[int, str, Any], None],
        say: Callable[[str], None],
    ) -> None:
        self._client, self._sweep, self._keep, self._say = client, sweep, keep, say
        self._waiting: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._deliveries: dict[int, Delivery] = {}
        self._experiment: str | None = None
        self._failing = False
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._run, name="pages", daemon=True)
        self._thread.start()

    def take(self, news: News) -> None:
        """Tell MLflow of something that happened."""
        match news.kind:
            case "began":
                self._waiting.put(lambda: self._began(news))
            case "ended" | "again":
                self._waiting.put(lambda: self._ended(news))

    def do(self, work: Callable[[], None]) -> None:
        """Do something with MLflow, after what is waiting."""
        self._waiting.put(work)

    def close(self) -> int:
        """Wait for what is left; return how much MLflow would not take."""
        self._deadline = time.monotonic() + _PATIENCE
        self._waiting.put(None)
        self._thread.join()
        for delivery in self._deliveries.values():
            delivery.close()
        return self._waiting.qsize()

    def _run(self) -> None:
        while (work := self._waiting.get()) is not None:
            while not self._done(work):
                if self._deadline is not None and time.monotonic() > self._deadline:
                    self._waiting.put(work)  # to be counted
                    return
                time.sleep(_PAUSE)

    def _done(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except Exception as error:  # whatever MLflow says, the sweep goes on
            if not self._failing:
                self._say(f"MLflow takes nothing now ({error}); it waits")
            self._failing = True
            return False
        self._failing = False
        return True

    def _began(self, news: News) -> None:
        folder = trial_folder(self._sweep.trials, news.number)
        identity = folder / "run.json"
        if identity.is_file():
            run_id = Identity.model_validate_json(identity.read_text()).run_id
            self._client.update_run(run_id, status="RUNNING")
        else:
            run_id = self._child(news)
            folder.mkdir(parents=True, exist_ok=True)
            known = Identity(
                data=str(self._sweep.data), fingerprint=self._sweep.fingerprint, run_id=run_id
            )
            identity.write_text(known.model_dump_json(indent=2) + "\n")
            self._keep(news.number, "replisome.run_id", run_id)
        (folder / "log").mkdir(exist_ok=True)
        self._deliveries[news.number] = Delivery(
            self._client,
            run_id,
            [folder / FILE_NAME],
            self._sweep.network,
            _ignore,
            self._say,
            folder / "log" / "delivered.json",
        )

    def _child(self, news: News) -> str:
        """Create a trial's run; one that was created for nothing is left deleted."""
        if self._experiment is None:
            self._experiment = self._client.get_run(self._sweep.run_id).info.experiment_id
        tags = {
            **self._sweep.tags,
            PARENT: self._sweep.run_id,
            "replisome.trial": str(news.number),
            "replisome.slot": str(news.slot),
        }
        name = f"{self._sweep.folder.name}-{news.number:04d}"
        run = self._client.create_run(self._experiment, run_name=name, tags=tags)
        run_id: str = run.info.run_id
        log_parameters(self._client, run_id, {**news.values, "trial": news.number})
        log_dataset(self._client, run_id, self._sweep.data, self._sweep.fingerprint)
        return run_id

    def _ended(self, news: News) -> None:
        folder = trial_folder(self._sweep.trials, news.number)
        run_id = Identity.model_validate_json((folder / "run.json").read_text()).run_id
        delivery = self._deliveries.pop(news.number, None)
        if delivery is not None:
            delivery.close()
        told = news.told
        assert told is not None
        for objective, value in zip(self._sweep.objectives, told.values, strict=False):
            self._client.log_metric(run_id, f"objective/{objective}", value)
        self._client.log_metric(run_id, "trial/seconds", told.seconds)
        for name, number in told.extra.items():
            self._client.log_metric(run_id, f"trial/{name}", float(number))
        self._client.set_tag(run_id, "replisome.state", told.ending)
        if told.reason:
            self._client.set_tag(run_id, "replisome.reason", told.reason[:500])
        self._client.set_terminated(run_id, _STATUS[told.ending])


def _ignore(_: Event) -> None:
    """Trials have no progress bars of their own."""
