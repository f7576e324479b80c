"""The board: which trial a slot gets, what is stored of it, and what a dead driver leaves."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from data_shards.errors import InputError
from jobs.sweep.board import Board
from jobs.sweep.messages import WAIT, Assignment, Budget, Opening, Told
from jobs.sweep.study import Lease, LeaseLostError, SweepPlan, open_storage, sqlite_url
from trainer.config import RunConfig

MANY = Budget(trials=100)
SPACE = {"optimizer.lr": {"low": 1e-4, "high": 1e-1, "log": True}}


def plan(**changes: Any) -> SweepPlan:
    config = RunConfig(recipe="danq", epochs=9).model_dump(mode="json")
    values: dict[str, Any] = {
        "recipe": "danq",
        "data": "x.zarr",
        "fingerprint": "f" * 64,
        "config": config,
        "space": SPACE,
        "objectives": ("loss",),
        "sampler": "random",
        "pruner": "none",
    }
    return SweepPlan(**{**values, **changes})


class Desk:
    """Opens boards on one storage, as one driver after the other."""

    def __init__(self, folder: Path) -> None:
        self.url = sqlite_url(folder)
        self.now = 0.0

    def board(
        self,
        what: SweepPlan | None = None,
        *,
        budget: Budget = MANY,
        retries: int = 1,
        resume: bool = False,
        lease: Lease | None = None,
    ) -> Board:
        opening = Opening(
            self.url, "s", what or plan(), lease or Lease.mine(), budget, retries, resume
        )
        board = Board(opening, 2, lambda: self.now)
        board.open()
        return board

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        return optuna.load_study(study_name="s", storage=open_storage(self.url)).trials

    def states(self) -> list[TrialState]:
        return [trial.state for trial in self.trials()]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def given(board: Board, slot: int = 0) -> Assignment:
    answer = board.next(slot)
    assert isinstance(answer, Assignment)
    return answer


def done(value: float, seconds: float = 1.0) -> Told:
    return Told("complete", (value,), seconds=seconds)


def run_one(board: Board, value: Callable[[dict[str, Any]], float]) -> dict[str, Any]:
    trial = given(board)
    board.tell(trial.number, done(value(trial.values)))
    return trial.values


def test_a_trial_is_stored_with_settings_values_and_cost(desk: Desk) -> None:
    board = desk.board()
    trial = given(board)
    board.report(trial.number, 1, (0.7,))
    board.report(trial.number, 2, (0.5,))
    board.tell(trial.number, Told("complete", (0.5,), seconds=3.0, extra={"epochs": 2}))
    [stored] = desk.trials()
    assert stored.state == TrialState.COMPLETE
    assert stored.value == 0.5
    assert stored.intermediate_values == {1: 0.7, 2: 0.5}
    assert stored.user_attrs["replisome.values"] == trial.values
    assert stored.user_attrs["replisome.seconds"] == 3.0
    assert stored.user_attrs["replisome.epochs"] == 2
    news, snapshot = board.watch(0)
    assert [item.kind for item in news] == ["began", "ended"]
    assert snapshot.best == (0, (0.5,))
    assert snapshot.worker_seconds == 6.0, "two workers"


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes", "gp"])
def test_a_seed_gives_the_same_trials_however_often_the_driver_changes(
    sampler: str, tmp_path: Path
) -> None:
    def sequence(folder: Path, restarts: int) -> list[tuple[float, ...]]:
        folder.mkdir()
        desk = Desk(folder)
        what = plan(
            sampler=sampler,
            seed=3,
            space={**SPACE, "optimizer.momentum": {"low": 0.0, "high": 0.9}},
        )
        drawn: list[tuple[float, ...]] = []
        board = desk.board(what)
        for number in range(14):
            if restarts and number % 3 == 2:
                assert board.close()
                board = desk.board(what, resume=True)
            values = run_one(board, lambda v: math.log(v["optimizer.lr"]) ** 2)
            drawn.append(tuple(values.values()))
        return drawn

    whole = sequence(tmp_path / "whole", 0)
    assert len(set(whole)) == 14
    assert sequence(tmp_path / "pieces", 1) == whole


def test_the_pruner_ends_a_bad_trial_at_its_report(desk: Desk) -> None:
    board = desk.board(plan(pruner="median"))
    for _ in range(5):
        trial = given(board)
        assert not any(board.report(trial.number, epoch, (0.1,)) for epoch in (1, 2, 3))
        board.tell(trial.number, done(0.1))
    trial = given(board)
    assert not board.report(trial.number, 1, (0.9,)), "not in the first epoch"
    assert board.report(trial.number, 2, (0.9,))
    board.tell(trial.number, Told("pruned"))
    assert desk.states()[-1] == TrialState.PRUNED
    assert desk.trials()[-1].intermediate_values == {1: 0.9, 2: 0.9}


def test_an_objective_that_is_no_number_is_a_failed_trial(desk: Desk) -> None:
    board = desk.board()
    board.tell(given(board).number, done(math.nan))
    [stored] = desk.trials()
    assert stored.state == TrialState.FAIL
    assert stored.user_attrs["replisome.reason"] == "the objective is no finite number"
    board.tell(given(board).number, done(0.3))
    assert board.watch(0)[1].best == (1, (0.3,))


def test_trials_of_a_dead_driver_keep_numbers_settings_and_reports(desk: Desk) -> None:
    board = desk.board()
    first, second = given(board, 0), given(board, 1)
    board.report(second.number, 1, (0.6,))
    # the driver dies here; another one comes, with a dead lease in its way
    dead = Lease.mine().model_copy(update={"started": 1.0})
    board._study.set_user_attr("replisome.lease", dead.model_dump())
    board = desk.board(resume=True)
    again = [given(board, slot) for slot in (0, 1)]
    assert [trial.number for trial in again] == [first.number, second.number]
    assert [trial.values for trial in again] == [first.values, second.values]
    assert [trial.attempt for trial in again] == [1, 1]
    board.report(second.number, 1, (0.6,))  # goes on from a checkpoint: this epoch was done
    board.report(second.number, 2, (0.4,))
    for trial in again:
        board.tell(trial.number, done(0.4))
    assert desk.states() == [TrialState.COMPLETE] * 2
    assert desk.trials()[1].intermediate_values == {1: 0.6, 2: 0.4}
    assert given(board).number == 2


def test_a_driver_that_died_between_asking_and_writing_loses_no_trial(desk: Desk) -> None:
    board = desk.board()
    board._study.ask()  # and nothing more
    board.close()
    board = desk.board(resume=True)
    trial = given(board)
    assert trial.number == 0
    assert set(trial.values) == {"optimizer.lr"}


def test_a_crashed_group_gives_its_trial_back_a_stated_number_of_times(desk: Desk) -> None:
    board = desk.board(retries=2)
    for attempt in range(3):
        trial = given(board)
        assert (trial.number, trial.attempt) == (0, attempt)
        board.crashed(0, Told("failed", reason="worker 1 died"))
    assert desk.states() == [TrialState.FAIL]
    assert desk.trials()[0].user_attrs["replisome.reason"] == "worker 1 died"
    assert desk.trials()[0].user_attrs["replisome.crashes"] == 3
    assert given(board).number == 1, "the campaign goes on"


def test_a_lost_node_does_not_count_against_the_trial(desk: Desk) -> None:
    board = desk.board(retries=0)
    for _ in range(4):
        assert given(board).number == 0
        board.crashed(0, Told("failed", reason="node gone"), count=False)
    assert desk.states() == [TrialState.RUNNING]


def test_a_second_end_of_a_trial_says_nothing(desk: Desk) -> None:
    board = desk.board()
    trial = given(board)
    board.tell(trial.number, done(0.2))
    board.tell(trial.number, done(0.1))
    board.crashed(0, Told("failed", reason="late"))
    assert [stored.value for stored in desk.trials()] == [0.2]


def test_budgets_end_a_sweep_and_never_overrun_in_trials(desk: Desk) -> None:
    board = desk.board(budget=Budget(trials=2))
    first, second = given(board, 0), given(board, 1)
    assert board.next(2) == WAIT, "the two at work are all that is allowed"
    board.tell(first.number, done(1.0))
    assert board.next(0) == WAIT, "the other may yet come back"
    board.tell(second.number, Told("pruned"))
    assert board.next(0) is None
    assert board.watch(0)[1].closing == "2 trials are done"


def test_wall_time_and_worker_time_are_counted_over_all_drivers(desk: Desk) -> None:
    board = desk.board(budget=Budget(worker_seconds=10.0))
    board.tell(given(board).number, done(1.0, seconds=4.0))
    desk.now += 20.0
    board.close()
    board = desk.board(budget=Budget(worker_seconds=10.0, seconds=100.0), resume=True)
    assert board.watch(0)[1].wall_seconds == 20.0
    assert board.watch(0)[1].worker_seconds == 8.0
    board.tell(given(board).number, done(1.0, seconds=2.0))
    assert board.next(0) is None
    assert board.watch(0)[1].closing == "10 seconds of workers are used"


def test_a_paused_sweep_hands_nothing_out_and_a_cancelled_one_fails_what_is_left(
    desk: Desk,
) -> None:
    board = desk.board()
    trial = given(board)
    board.stop_handing_out("paused")
    board.tell(trial.number, Told("returned", reason="called away"))
    assert board.next(0) is None
    assert desk.states() == [TrialState.RUNNING], "goes on with --resume"
    board.close()
    board = desk.board(resume=True)
    assert given(board).number == 0
    board.cancel()
    assert board.next(0) is None
    assert desk.states() == [TrialState.FAIL]


def test_a_drained_sweep_lets_a_crashed_trial_end(desk: Desk) -> None:
    board = desk.board()
    given(board)
    board.stop_handing_out("drained")
    board.crashed(0, Told("failed", reason="x"))
    assert given(board).number == 0
    board.tell(0, done(0.1))
    assert board.next(0) is None


def test_a_list_gives_each_member_once_under_its_place(desk: Desk) -> None:
    members = ({"seed": 5}, {"seed": 6}, {"seed": 7})
    board = desk.board(plan(space={}, members=members, sampler="list"))
    values = [run_one(board, lambda _: 0.0) for _ in members]
    assert values == list(members)
    assert board.next(0) is None


def test_a_grid_is_gone_through_once(desk: Desk) -> None:
    space = {"seed": {"choices": [1, 2]}, "batch_size": {"choices": [32, 64]}}
    board = desk.board(plan(space=space, sampler="grid"))
    seen = [tuple(run_one(board, lambda _: 0.0).values()) for _ in range(4)]
    assert sorted(seen) == [(1, 32), (1, 64), (2, 32), (2, 64)]
    assert board.next(0) is None


def test_a_second_driver_is_refused_while_the_first_is_alive(desk: Desk) -> None:
    board = desk.board()
    with pytest.raises(InputError, match="drives this sweep"):
        desk.board(resume=True)
    board.close()
    desk.board(resume=True)


def test_another_plan_is_refused_with_the_difference(desk: Desk) -> None:
    desk.board().close()
    with pytest.raises(InputError, match="a sweep 's' exists"):
        desk.board()
    with pytest.raises(InputError, match=r"fingerprint: f+ then, e+ now"):
        desk.board(plan(fingerprint="e" * 64), resume=True)
    narrower = {"optimizer.lr": {"low": 1e-3, "high": 1e-1, "log": True}}
    with pytest.raises(InputError, match=r"space.optimizer.lr.low: 0.0001 then, 0.001 now"):
        desk.board(plan(space=narrower), resume=True)


def test_several_objectives_are_stored_and_never_prune(desk: Desk) -> None:
    board = desk.board(plan(objectives=("auroc", "seconds")))
    trial = given(board)
    assert not board.report(trial.number, 1, (0.1, 5.0))
    board.tell(trial.number, Told("complete", (0.9, 5.0)))
    assert desk.trials()[0].values == [0.9, 5.0]


def test_what_a_storage_that_is_away_would_not_take_is_written_when_it_is_back(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    board = desk.board(plan(pruner="median"))
    trial = given(board)

    def away(*_: Any, **__: Any) -> None:
        raise OperationalError("x", {}, Exception("no server"))

    with monkeypatch.context() as outage:
        for method in ("report", "should_prune"):
            outage.setattr(optuna.trial.Trial, method, away)
        for method in ("tell", "get_trials"):
            outage.setattr(optuna.study.Study, method, away)
        outage.setattr(optuna.trial.Trial, "set_user_attr", away)
        assert not board.report(trial.number, 1, (0.5,))
        board.tell(trial.number, done(0.5))
        assert board.next(0) == WAIT
        assert board.watch(0)[1].away is not None
    assert desk.states() == [TrialState.RUNNING]
    assert given(board).number == 1
    assert board.watch(0)[1].away is None
    first, _ = desk.trials()
    assert (first.state, first.value) == (TrialState.COMPLETE, 0.5)
    assert first.intermediate_values == {1: 0.5}


def test_a_driver_whose_study_was_taken_over_is_told_who_has_it_and_ends(desk: Desk) -> None:
    first = desk.board(lease=Lease.mine().model_copy(update={"until": 0.0}))
    given(first)
    desk.board(resume=True)
    desk.now = 11.0  # its lease is due
    with pytest.raises(LeaseLostError, match=r"process \d+ on .* has taken this sweep over"):
        first.watch(0)
    assert first.next(0) == WAIT, "it hands nothing out any more"


def test_there_is_nothing_to_wait_for_once_the_last_trial_has_ended(desk: Desk) -> None:
    board = desk.board(budget=Budget(trials=1))
    trial = given(board)
    assert not board.over(), "it may come back, and need another slot"
    board.crashed(0, Told("failed", reason="lost"))
    assert not board.over(), "it has come back"
    again = given(board)
    assert again.number == trial.number
    board.tell(again.number, done(0.5))
    assert board.over()
    assert board.next(0) is None
