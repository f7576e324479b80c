"""``replisome track sync``: telling MLflow what it missed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_shards.errors import InputError
from jobs.console import Console
from jobs.delivery import Delivery, Store
from jobs.journal import JOURNAL, Ledger, read_entries
from jobs.runfolder import RunFolder
from jobs.tracking import tracking_uri
from trainer.events import FILE_NAME, Event
from trainer.recipes import get_recipe


def sync(runs: Path, patience: float, console: Console) -> dict[str, Any]:
    """Deliver what waits in a runs folder.

    Runs whose driver is at work are left to it. A sweep comes before its trials, which are shown
    below it.

    Args:
        runs: the folder of all runs.
        patience: seconds to wait for MLflow, for each run.
        console: where to tell about it.

    Returns:
        How many runs were brought up to date, and how many entries still wait.

    Raises:
        InputError: there are no runs.
    """
    if not runs.is_dir():
        raise InputError("no such folder", path=runs, remedy="say where: --runs DIR")
    store, done, left = Store(runs), [], 0
    for folder in waiting(runs):
        if _driven(runs, folder):
            console.say(f"{folder.relative_to(runs)}: its driver is at work")
            continue
        delivery = Delivery(store, folder, _main_network(folder), _ignore, console.say)
        remains = delivery.close(patience)
        left += remains
        state = f"{remains:,} entries still wait" if remains else "delivered"
        console.say(f"{folder.relative_to(runs)}: {state}")
        if not remains:
            done.append(str(folder))
    if left:
        raise ConnectionError(f"MLflow at {tracking_uri(runs)} did not take {left:,} entries")
    console.show(f"{len(done)} runs were brought up to date")
    return {"delivered": done, "waiting": left}


def waiting(runs: Path) -> list[Path]:
    """Return the folders of runs that have something to tell, sweeps before their trials."""
    places = ("*/*", "*/*/trials/*")
    folders = [path.parents[1] for place in places for path in runs.glob(f"{place}/log/{JOURNAL}")]
    return [folder for folder in sorted(folders) if _has_more(folder)]


def _has_more(folder: Path) -> bool:
    ledger = Ledger.of(folder)
    if read_entries(folder, ledger.entries):
        return True
    logs = [folder / FILE_NAME, *folder.glob("log/system-node*.jsonl")]
    return any(
        path.is_file() and path.stat().st_size > ledger.logs.get(path.name, 0) for path in logs
    )


def _driven(runs: Path, folder: Path) -> bool:
    owner = folder.parents[1] if folder.parent.name == "trials" else folder
    return RunFolder(runs, owner.parent.name, owner.name).driven()


def _main_network(folder: Path) -> str:
    import tomllib

    path = folder / "config.toml"
    if not path.is_file():  # a sweep's own folder has no event log
        return ""
    return get_recipe(tomllib.loads(path.read_text())["recipe"]).network.name


def _ignore(_: Event) -> None:
    """Nobody watches."""
