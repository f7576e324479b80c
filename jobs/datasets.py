"""``replisome data``: simulate, build, show and check data sets."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from rich.table import Table

from data_shards.build.description import read_description
from data_shards.build.plan import Plan
from data_shards.build.rows_plan import plan_rows
from data_shards.build.rows_spec import RowsSpec
from data_shards.build.run import build, refuse_existing
from data_shards.build.windows_plan import plan_windows
from data_shards.build.windows_spec import WindowsSpec
from data_shards.check import check
from data_shards.dataset import ShardedDataset
from data_shards.diff import diff
from data_shards.errors import InputError
from data_shards.progress import Progress
from data_shards.store.location import Location
from data_shards.store.schema import Compression, read_attributes
from data_shards.store.transfer import fetch, publish, refuse_taken
from jobs.cluster import cluster
from jobs.console import Console
from jobs.provenance import command_line
from trainer.recipes import get_recipe


def simulate_files(recipe_name: str, out: Path, seed: int, console: Console) -> dict[str, Any]:
    """Write a recipe's simulated raw files into a new folder.

    Raises:
        InputError: the folder exists and is not empty, or there is no such recipe.
    """
    recipe = get_recipe(recipe_name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            "the output folder is not empty", path=out, remedy="give another --out, or remove it"
        )
    with console.step("simulate"):
        recipe.simulate(out, seed)
    files = sorted(path.name for path in out.iterdir())
    return {"recipe": recipe_name, "folder": str(out), "seed": seed, "files": files}


def build_dataset(
    recipe_name: str,
    source: Path,
    spec_path: Path | None,
    out: str,
    console: Console,
    scratch: Path | None = None,
    compression: Compression = "none",
) -> dict[str, Any]:
    """Build a data set from raw files; everything is checked before anything is written.

    Args:
        recipe_name: the recipe it is for, or "" for none.
        source: folder of the raw files.
        spec_path: the description; by default the recipe's, in ``source``.
        out: path or URL of the data set to be.
        console: where to say how far it is.
        compression: of the shards.
        scratch: folder in which a data set for an object store is built before it is sent.

    Raises:
        InputError: for every fault of a file; names file and line.
    """
    recipe = get_recipe(recipe_name) if recipe_name else None
    place = Location.parse(out)
    if place.folder is not None:
        refuse_existing(place.folder)
    else:
        refuse_taken(place)
    if recipe is None and spec_path is None:
        raise InputError(
            "neither a recipe nor a description is given",
            remedy="name a recipe (replisome recipes list), or a description: --spec X.toml",
        )
    if not source.is_dir():
        raise InputError("no such folder", path=source, remedy="give the folder of the raw files")
    if spec_path is None:
        spec_path = source / recipe.spec_name if recipe is not None else source
    with console.step("read and check files"), console.bars() as bars:
        plan = _plan(read_description(spec_path), source, recipe_name, spec_path, bars.update)
    folder = place.folder or _scratch(place, scratch)
    if not (place.folder is None and folder.exists()):  # it may be built, but not yet sent
        with console.step("build shards"), cluster(), console.bars() as bars:
            build(
                plan,
                folder,
                command=command_line(),
                progress=bars.update,
                compression=compression,
            )
    if place.folder is None:
        with console.step("send"), console.bars() as bars:
            publish(folder, place, bars.update)
        shutil.rmtree(folder)
    attributes = read_attributes(place)
    schema = attributes.schema_
    return {
        "data": out,
        "fingerprint": attributes.fingerprint,
        "samples": {name: split.samples for name, split in schema.splits.items()},
        "fields": [field.name for field in schema.fields],
        "tasks": list(schema.task_names),
        "dropped": plan.dropped,
        "seconds": console.seconds,
    }


def _scratch(place: Location, folder: Path | None) -> Path:
    """Return where a data set for an object store is built: the same place in every attempt."""
    folder = folder if folder is not None else Path.home() / ".cache" / "replisome-builds"
    folder.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(str(place).encode()).hexdigest()[:12]
    return folder / f"{digest}-{str(place).rsplit('/', maxsplit=1)[-1]}"


def copy_dataset(source: str, target: str, console: Console) -> dict[str, Any]:
    """Copy a data set between a folder and an object store, verified byte for byte.

    Raises:
        InputError: the target exists, both or neither are in an object store, or a store can't be
            reached.
    """
    here, there = Location.parse(source), Location.parse(target)
    with console.step("copy"), console.bars() as bars:
        if here.folder is not None and there.folder is None:
            attributes = publish(here.folder, there, bars.update)
        elif here.folder is None and there.folder is not None:
            attributes = fetch(here, there.folder, bars.update)
        else:
            raise InputError(
                f"{source} and {target}: one is to be a folder, the other in an object store",
                remedy="copy folders with cp -r, and buckets with the store's own tools",
            )
    return {"data": target, "fingerprint": attributes.fingerprint, "seconds": console.seconds}


def _plan(
    spec: WindowsSpec | RowsSpec, source: Path, recipe: str, spec_path: Path, progress: Progress
) -> Plan:
    if isinstance(spec, RowsSpec):
        return plan_rows(spec, source, recipe=recipe, spec_path=spec_path, progress=progress)
    return plan_windows(spec, source, recipe=recipe, spec_path=spec_path, progress=progress)


def check_dataset(place: str, max_duplicates: float, console: Console) -> dict[str, Any]:
    """Check a data set from its bytes up; the result's ``faults`` is 0 if all is well."""
    with console.bars() as bars:
        findings = check(place, bars.update, max_duplicates)
    table = Table("check", "", "finding")
    for finding in findings:
        table.add_row(finding.check, "ok" if finding.ok else "FAULT", finding.detail)
    console.show(table)
    return {
        "data": place,
        "faults": sum(not finding.ok for finding in findings),
        "findings": [finding.__dict__ for finding in findings],
    }


def diff_datasets(first: str, second: str, console: Console) -> dict[str, Any]:
    """Show what differs between two data sets."""
    found = diff(ShardedDataset(first), ShardedDataset(second))
    if not found:
        console.show("equal: the fingerprints agree")
    table = Table("what", first, second)
    for difference in found:
        table.add_row(difference.what, difference.first, difference.second)
    if found:
        console.show(table)
    return {"equal": not found, "differences": [difference.__dict__ for difference in found]}
