"""The board: hands trials out, takes reports, says whether to prune; alone writes the study.

Slots ask it; the driver watches it. A storage that is away for a while loses nothing: what has to
be written waits here, in order, no trial is handed out meanwhile, and none is pruned.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from jobs.sweep.messages import (
    CANCELLED,
    PAUSED,
    WAIT,
    Assignment,
    News,
    Opening,
    Running,
    Snapshot,
    Told,
)
from jobs.sweep.outbox import Outbox, storage_errors
from jobs.sweep.space import Space
from jobs.sweep.study import (
    LeaseLostError,
    give_lease_back,
    make_sampler,
    open_storage,
    open_study,
    planned_trials,
    renew_lease,
    take_lease,
)

if TYPE_CHECKING:
    from optuna.trial import Trial

_RENEW = 10.0  # seconds between two renewals of the lease
VALUES, ATTEMPTS, CRASHES, RUN_ID, SECONDS, REASON, WALL = (
    f"replisome.{name}"
    for name in ("values", "attempts", "crashes", "run_id", "seconds", "reason", "wall_seconds")
)
"""Attributes of a trial in the storage; the last one of the study."""


@dataclass
class _Open:
    """A trial that has not ended.

    Attributes:
        trial: Optuna's.
        reported: epochs that are written.
        seconds: in slots, over all attempts.
        crashes: of its slots, that count.
    """

    trial: Trial
    reported: set[int] = field(default_factory=set)
    seconds: float = 0.0
    crashes: int = 0


class Board:
    """See the module. Every method returns soon; the storage is asked for as little as can be.

    Args:
        opening: what to open.
        workers: of a slot; what a second of a trial costs.
        clock: seconds, monotonic.

    """

    def __init__(
        self, opening: Opening, workers: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._plan, self._budget, self._retries = opening.plan, opening.budget, opening.retries
        self._workers, self._clock, self._opening = workers, clock, opening
        self._lease, self._renewed = opening.lease, clock()
        self._space = opening.plan.search_space() if opening.plan.space else Space({})
        self._running: dict[int, Running] = {}
        self._trials: dict[int, _Open] = {}
        self._asked: Trial | None = None
        self._again: deque[Assignment] = deque()
        self._ended: dict[str, int] = {"complete": 0, "pruned": 0, "failed": 0}
        self._best: tuple[int, tuple[float, ...]] | None = None
        self._news: list[News] = []
        self._outbox = Outbox(lambda: self._study.get_trials(deepcopy=False))
        self._closing: str | None = None
        self._worker_seconds = 0.0
        self._wall_before, self._began = 0.0, clock()

    def open(self) -> None:
        """Open the study; before that there is nothing to ask.

        Raises:
            InputError: see :func:`jobs.sweep.study.open_study` and ``take_lease``.
        """
        opening = self._opening
        storage = open_storage(opening.url)
        self._study = open_study(storage, opening.name, opening.plan, resume=opening.resume)
        take_lease(self._study, opening.lease)
        self._wall_before = float(self._study.user_attrs.get(WALL, 0.0))
        self._adopt()

    # Slots ask --------------------------------------------------------------------------------

    def next(self, slot: int) -> Assignment | Literal["wait"] | None:
        """Hand out a trial; :data:`WAIT` if there is none now, None if there will be none."""
        if not self._outbox.send():
            return WAIT
        if self._again and self._closing not in (PAUSED, CANCELLED):
            assignment = self._again.popleft()
        else:
            if self._why_closed() is not None:
                return None if self.over() else WAIT
            if self._spoken_for():
                return WAIT
            try:
                assignment = self._ask()
            except StopIteration:
                self._closing = "all members are done" if self._plan.members else "all points done"
                return None if self.over() else WAIT
            except storage_errors():
                self._outbox.lost()
                return WAIT
        self._running[assignment.number] = Running(
            assignment.number, slot, assignment.values, time.time(), assignment.attempt
        )
        if assignment.attempt:
            self._set(self._trials[assignment.number].trial, ATTEMPTS, assignment.attempt)
        self._tell_news("began", assignment, slot)
        return assignment

    def over(self) -> bool:
        """Whether no trial will be handed out any more, whatever becomes of those at work."""
        if self._closing in (PAUSED, CANCELLED):
            return True
        return self._why_closed() is not None and not self._running and not self._again

    def report(self, number: int, epoch: int, values: Sequence[float]) -> bool:
        """Take a trial's validation after an epoch; return whether it shall end here."""
        at_work = self._running.get(number)
        if at_work is None:
            return False
        self._running[number] = replace(at_work, epoch=epoch, value=values[0])
        if len(self._plan.objectives) > 1 or not math.isfinite(values[0]):
            return False
        at_hand = self._trials[number]
        if epoch not in at_hand.reported:  # a trial that was begun again repeats some
            at_hand.reported.add(epoch)
            self._outbox.put(lambda: at_hand.trial.report(values[0], epoch))
        if not self._outbox.send():
            return False
        try:
            return at_hand.trial.should_prune()
        except storage_errors():
            self._outbox.lost()
            return False

    def tell(self, number: int, told: Told) -> None:
        """Take a trial's end; a second one of the same trial says nothing."""
        at_work = self._running.pop(number, None)
        if at_work is None:
            return
        assignment = Assignment(number, at_work.values, at_work.attempt)
        self._worker_seconds += told.seconds * self._workers
        self._trials[number].seconds += told.seconds
        if told.ending == "complete" and not all(math.isfinite(value) for value in told.values):
            told = replace(told, ending="failed", reason="the objective is no finite number")
        if told.ending == "returned":
            self._return(assignment, at_work.slot, told)
            return
        at_hand = self._trials.pop(number)
        self._ended[told.ending] += 1
        if told.ending == "complete":
            self._best = self._better(number, told.values)
        self._outbox.put(lambda: self._record(at_hand, told))
        self._tell_news("ended", assignment, at_work.slot, told)
        self._outbox.send()

    def at_work(self, slot: int) -> list[int]:
        """Return the numbers of the trials that a slot has."""
        return [number for number, running in self._running.items() if running.slot == slot]

    def crashed(self, slot: int, told: Told, count: bool = True) -> None:
        """Take the end of a slot's group: its trial is done again, or has failed for good.

        Args:
            slot: whose group is gone.
            told: why, as a failure.
            count: whether it counts against the trial.
        """
        for number in self.at_work(slot):
            at_hand = self._trials[number]
            at_hand.crashes += count
            self._set(at_hand.trial, CRASHES, at_hand.crashes)
            told = replace(told, seconds=time.time() - self._running[number].began)
            if at_hand.crashes > self._retries:
                self.tell(number, told)
            else:
                self.tell(number, replace(told, ending="returned"))

    # The driver watches -----------------------------------------------------------------------

    def watch(self, since: int) -> tuple[list[News], Snapshot]:
        """Return what happened since, and how things are; renews the lease.

        Raises:
            LeaseLostError: another driver has the study.
        """
        self._outbox.send()
        if self._clock() - self._renewed > _RENEW and self._outbox.away is None:
            try:
                self._lease = renew_lease(self._study, self._lease)
                self._renewed = self._clock()
                self._study.set_user_attr(WALL, self._wall())
            except LeaseLostError as error:
                self._closing = str(error)
                raise
            except storage_errors():
                self._outbox.lost()
        counts = {**self._ended, "running": len(self._running), "waiting": len(self._again)}
        snapshot = Snapshot(
            counts,
            tuple(self._running.values()),
            self._best,
            self._wall(),
            self._worker_seconds,
            self._why_closed(),
            self._outbox.away,
        )
        return self._news[since:], snapshot

    def keep(self, number: int, name: str, value: Any) -> None:
        """Keep an attribute with a trial in the storage."""
        study = self._study

        def write() -> None:
            study._storage.set_trial_user_attr(_id_of(study, number), name, value)

        self._outbox.put(write)
        self._outbox.send()

    def stop_handing_out(self, reason: str) -> None:
        """Hand out no more trials."""
        self._closing = reason

    def cancel(self) -> None:
        """End the sweep for good: what waits or runs has failed."""
        self._closing = CANCELLED
        for assignment in list(self._again):
            self._running[assignment.number] = Running(
                assignment.number, -1, assignment.values, time.time(), assignment.attempt
            )
        self._again.clear()
        for number in list(self._running):
            self.tell(number, Told("failed", reason="cancelled"))

    def close(self) -> bool:
        """Write what is left and give the lease back; return whether the storage took it."""
        done = self._outbox.send()
        if done:
            try:
                self._study.set_user_attr(WALL, self._wall())
                give_lease_back(self._study, self._lease)
            except storage_errors():
                return False
        return done

    # Inside -----------------------------------------------------------------------------------

    def _adopt(self) -> None:
        """Take over the trials that a dead driver left running, under their own numbers."""
        import optuna
        from optuna.trial import TrialState

        for frozen in self._study.get_trials(deepcopy=False):
            self._worker_seconds += float(frozen.user_attrs.get(SECONDS, 0.0)) * self._workers
            match frozen.state:
                case TrialState.RUNNING:
                    trial = optuna.trial.Trial(self._study, frozen._trial_id)
                    self._trials[frozen.number] = _Open(
                        trial,
                        set(frozen.intermediate_values),
                        float(frozen.user_attrs.get(SECONDS, 0.0)),
                        int(frozen.user_attrs.get(CRASHES, 0)),
                    )
                    values = frozen.user_attrs.get(VALUES)
                    if values is None:  # its driver died between asking and writing
                        self._study.sampler = make_sampler(self._plan, frozen.number)
                        values = self._drawn(trial)
                    attempt = int(frozen.user_attrs.get(ATTEMPTS, 0)) + 1
                    self._again.append(Assignment(frozen.number, values, attempt))
                case TrialState.COMPLETE:
                    self._ended["complete"] += 1
                    self._best = self._better(frozen.number, tuple(frozen.values))
                case TrialState.PRUNED:
                    self._ended["pruned"] += 1
                case TrialState.FAIL:
                    self._ended["failed"] += 1

    def _ask(self) -> Assignment:
        """Begin a new trial.

        Raises:
            StopIteration: the list or the grid is at its end.
        """
        if self._asked is None:
            number = len(self._study.get_trials(deepcopy=False))
            planned = planned_trials(self._plan)
            if planned is not None and number >= planned:
                raise StopIteration
            self._study.sampler = make_sampler(self._plan, number)
            self._asked = self._study.ask()
        trial = self._asked  # kept until its values are written, should the storage go away
        assignment = Assignment(trial.number, self._drawn(trial), 0)
        self._trials[trial.number] = _Open(trial)
        self._asked = None
        return assignment

    def _drawn(self, trial: Trial) -> dict[str, Any]:
        """Draw a trial's values, or take them from the list, and write them down."""
        if self._plan.members:
            values = dict(self._plan.members[trial.number])
        else:
            values = self._space.suggest(trial)
        trial.set_user_attr(VALUES, values)
        return values

    def _return(self, assignment: Assignment, slot: int, told: Told) -> None:
        again = replace(assignment, attempt=assignment.attempt + 1)
        self._again.append(again)
        at_hand = self._trials[assignment.number]
        self._set(at_hand.trial, SECONDS, at_hand.seconds)
        self._tell_news("again", assignment, slot, told)
        self._outbox.send()

    def _record(self, at_hand: _Open, told: Told) -> None:
        """Write a trial's end; may be tried again, so every line can be done twice."""
        from optuna.trial import TrialState

        trial = at_hand.trial
        trial.set_user_attr(SECONDS, at_hand.seconds)
        if told.reason:
            trial.set_user_attr(REASON, told.reason)
        for name, value in told.extra.items():
            trial.set_user_attr(f"replisome.{name}", value)
        states = {
            "complete": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        values = list(told.values) if told.ending == "complete" else None
        self._study.tell(trial, values, states[told.ending], skip_if_finished=True)

    def _set(self, trial: Trial, name: str, value: Any) -> None:
        self._outbox.put(lambda: trial.set_user_attr(name, value))

    def _why_closed(self) -> str | None:
        if self._closing is not None:
            return self._closing
        return self._budget.used_up(sum(self._ended.values()), self._wall(), self._worker_seconds)

    def _spoken_for(self) -> bool:
        """Whether the trials at work are all that the budget allows."""
        if self._budget.trials is None:
            return False
        taken = sum(self._ended.values()) + len(self._running) + len(self._again)
        return taken >= self._budget.trials

    def _better(self, number: int, values: tuple[float, ...]) -> tuple[int, tuple[float, ...]]:
        if self._best is None:
            return number, values
        if self._plan.directions[0] == "minimize":
            return min(self._best, (number, values), key=lambda found: found[1][0])
        return max(self._best, (number, values), key=lambda found: found[1][0])

    def _wall(self) -> float:
        return self._wall_before + self._clock() - self._began

    def _tell_news(
        self,
        kind: Literal["began", "ended", "again"],
        assignment: Assignment,
        slot: int,
        told: Told | None = None,
    ) -> None:
        self._news.append(
            News(kind, assignment.number, slot, assignment.values, assignment.attempt, told)
        )


def _id_of(study: Any, number: int) -> int:
    return int(study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))
