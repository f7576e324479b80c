"""What came of a sweep: its best trial as a configuration, a table of all, its page in MLflow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomli_w

from data_shards.errors import InputError
from jobs.journal import Journal
from jobs.runfolder import RunFolder
from jobs.sweep.board import CRASHES, REASON, RUN_ID, SECONDS, VALUES
from jobs.sweep.drawing import draw
from jobs.sweep.slot import trial_folder
from jobs.sweep.space import nested
from jobs.sweep.study import SweepPlan, open_storage, stored_plan
from jobs.sweep.table import settings, shown
from trainer.config import merge

if TYPE_CHECKING:
    import optuna
    import pyarrow as pa
    from optuna.trial import FrozenTrial

_ROWS = 20  # of the table on the page


def load_study(storage: str, name: str) -> optuna.Study:
    """Open a study to look at it.

    Raises:
        InputError: it is not there.
    """
    import optuna

    try:
        return optuna.load_study(study_name=name, storage=open_storage(storage))
    except KeyError:
        raise InputError(f"there is no study {name!r} in its storage", path=storage) from None


def best_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Return the best trial, or the Pareto front.

    Raises:
        InputError: no trial is complete.
    """
    try:
        found = study.best_trials
    except ValueError:
        found = []
    if not found:
        raise InputError(
            f"no trial of {study.study_name} is complete yet", remedy="wait, or look at its status"
        )
    return found if len(study.directions) > 1 else found[:1]


def config_of_trial(plan: SweepPlan, trial: FrozenTrial) -> dict[str, Any]:
    """Return a trial's whole configuration, for ``train --config``."""
    values = merge(plan.config, nested(trial.user_attrs[VALUES]))
    return _without_none(values)


def write_best(study: optuna.Study, out: Path, trial: int | None = None) -> dict[str, Any]:
    """Write the configuration of the best trial, or of one by its number, as TOML.

    Raises:
        InputError: there is none.
    """
    if trial is None:
        chosen = best_trials(study)[0]
    else:
        found = [frozen for frozen in study.trials if frozen.number == trial]
        if not found:
            raise InputError(f"there is no trial {trial}", remedy="look at: sweep status")
        [chosen] = found
    plan = stored_plan(study)
    values = config_of_trial(plan, chosen)
    text = tomli_w.dumps(values)
    achieved = ", ".join(
        f"{name} {shown(value)}"
        for name, value in zip(plan.objectives, chosen.values or [], strict=False)
    )
    out.write_text(
        f"# trial {chosen.number} of {study.study_name}: {achieved or 'no value'}\n{text}"
    )
    return {
        "trial": chosen.number,
        "values": dict(zip(plan.objectives, chosen.values or [], strict=False)),
        "settings": chosen.user_attrs[VALUES],
        "out": str(out),
    }


def trial_table(study: optuna.Study) -> pa.Table:
    """Return all trials: a row each, settings and objectives as columns, curves as JSON."""
    import pyarrow as pa

    plan = stored_plan(study)
    names = sorted({name for trial in study.trials for name in trial.user_attrs.get(VALUES, {})})
    rows = []
    for trial in study.trials:
        row: dict[str, Any] = {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "started": trial.datetime_start,
            "ended": trial.datetime_complete,
            "seconds": trial.user_attrs.get(SECONDS),
            "crashes": trial.user_attrs.get(CRASHES, 0),
            "reason": trial.user_attrs.get(REASON),
            "run_id": trial.user_attrs.get(RUN_ID),
        }
        values = trial.values or []
        for number, objective in enumerate(plan.objectives):
            row[f"objective.{objective}"] = values[number] if values else None
        given = trial.user_attrs.get(VALUES, {})
        row |= {name: _cell(given.get(name), names, name, study) for name in names}
        row["epochs"] = json.dumps(trial.intermediate_values)
        rows.append(row)
    return pa.Table.from_pylist(rows)


def record_sweep(folder: RunFolder, storage: str, name: str, *, final: bool) -> None:
    """Bring the sweep's page in MLflow up to date: figures, best configuration, description.

    Args:
        folder: of the sweep.
        storage: of its study.
        name: of its study.
        final: whether it is through: then the best trial's network goes into the registry.
    """
    study = load_study(storage, name)
    plan, journal = stored_plan(study), Journal(folder.path)
    for path in draw(study, plan.objectives, folder.figures):
        journal.file(path, "figures")
    journal.tags({"mlflow.note.content": description(study, plan)})
    try:
        best = best_trials(study)[0]
    except InputError:
        return
    write_best(study, folder.path / "best.toml")
    journal.file(folder.path / "best.toml")
    values = zip(plan.objectives, best.values, strict=True)
    metrics = {f"best/{objective}": value for objective, value in values}
    journal.metrics({**metrics, "best/trial": best.number}, step=len(study.trials))
    weights = sorted(
        trial_folder(folder.path / "trials", best.number).glob("checkpoints/*/best/step-*")
    )
    if final and weights:
        journal.model(weights[-1], alias=f"best-of-{folder.name}")


def description(study: optuna.Study, plan: SweepPlan) -> str:
    """Describe a sweep in Markdown: how many trials, and the best ones."""
    from collections import Counter

    from optuna.trial import TrialState

    states = Counter(trial.state for trial in study.get_trials(deepcopy=False))
    counts = ", ".join(f"{number} {state.name.lower()}" for state, number in states.items())
    lines = [f"**{len(study.trials)} trials**: {counts}.", ""]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not complete:
        return "\n".join(lines)
    sign = 1 if plan.directions[0] == "minimize" else -1
    lines += [
        f"| trial | {' | '.join(plan.objectives)} | settings |",
        "|---:|" + "---:|" * len(plan.objectives) + "---|",
    ]
    for trial in sorted(complete, key=lambda found: sign * found.values[0])[:_ROWS]:
        values = " | ".join(shown(value) for value in trial.values)
        lines.append(f"| {trial.number} | {values} | {settings(trial.user_attrs[VALUES])} |")
    lines += ["", "The best one again: `replisome train RECIPE --config best.toml` (an artifact)."]
    return "\n".join(lines)


def _cell(value: Any, names: list[str], name: str, study: optuna.Study) -> Any:
    """Return a value for a column; choices of different types are written as text."""
    kinds = {
        type(trial.user_attrs[VALUES][name])
        for trial in study.trials
        if name in trial.user_attrs.get(VALUES, {})
    }
    if value is None or len(kinds - {int, float}) == 0 or len(kinds) == 1:
        return value
    return json.dumps(value)


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    """Leave out what has no value: TOML has no word for it."""
    return {
        name: _without_none(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if value is not None
    }
