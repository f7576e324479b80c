"""What a list of trained members comes to: the recipe makes one thing of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from data_shards.dataset import ShardedDataset
from data_shards.documents import parse
from jobs.journal import Journal
from jobs.runfolder import RunFolder
from jobs.sweep.board import VALUES
from jobs.sweep.results import config_of_trial
from jobs.sweep.slot import trial_folder
from jobs.sweep.study import stored_plan
from trainer.config import RunConfig
from trainer.recipe import Advance, Member
from trainer.recipes import get_recipe

if TYPE_CHECKING:
    import optuna

FOLDER = "members"


def gather(
    folder: RunFolder,
    data: ShardedDataset,
    study: optuna.Study,
    advance: Advance,
    say: Callable[[str], None],
) -> dict[str, float]:
    """Have the recipe gather a list's members, and put what it makes into MLflow.

    Those that failed are left out, and said so.

    Returns:
        The recipe's figures; empty where the recipe makes nothing of members, or none is complete.
    """
    recipe = get_recipe(stored_plan(study).recipe)
    members = members_of(study, folder)
    if recipe.gather is None or not members:
        return {}
    planned = len(stored_plan(study).members)
    if len(members) < planned:
        say(f"{len(members)} of {planned} members are gathered: the others have failed")
    made = folder.path / FOLDER
    made.mkdir(exist_ok=True)
    figures = dict(recipe.gather(data, members, made, advance))
    journal = Journal(folder.path)
    journal.metrics(figures, step=len(study.trials))
    for file in sorted(path for path in made.iterdir() if path.is_file()):
        journal.file(file, FOLDER)
    return figures


def members_of(study: optuna.Study, folder: RunFolder) -> list[Member]:
    """Return the members that are complete, in their order."""
    from optuna.trial import TrialState

    plan, network = stored_plan(study), get_recipe(stored_plan(study).recipe).network.name
    found = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)):
        place = trial_folder(folder.path / "trials", trial.number)
        weights = sorted((place / "checkpoints" / network / "best").glob("step-*"))
        config = parse(RunConfig, config_of_trial(plan, trial), f"trial {trial.number}")
        found.append(Member(trial.number, trial.user_attrs[VALUES], config, weights[-1]))
    return found
