"""``replisome data``: simulate, build, show and check data sets."""

from __future__ import annotations

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
    recipe_name: str, source: Path, spec_path: Path | None, out: Path, console: Console
) -> dict[str, Any]:
    """Build a data set from raw files; everything is checked before anything is written.

    Raises:
        InputError: for every fault of a file; names file and line.
    """
    recipe = get_recipe(recipe_name) if recipe_name else None
    refuse_existing(out)
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
    with console.step("build shards"), cluster(), console.bars() as bars:
        attributes = build(plan, out, command=command_line(), progress=bars.update)
    schema = attributes.schema_
    return {
        "data": str(out),
        "fingerprint": attributes.fingerprint,
        "samples": {name: split.samples for name, split in schema.splits.items()},
        "fields": [field.name for field in schema.fields],
        "tasks": list(schema.task_names),
        "dropped": plan.dropped,
        "seconds": console.seconds,
    }


def _plan(
    spec: WindowsSpec | RowsSpec, source: Path, recipe: str, spec_path: Path, progress: Progress
) -> Plan:
    if isinstance(spec, RowsSpec):
        return plan_rows(spec, source, recipe=recipe, spec_path=spec_path, progress=progress)
    return plan_windows(spec, source, recipe=recipe, spec_path=spec_path, progress=progress)


def check_dataset(place: str, console: Console) -> dict[str, Any]:
    """Check a data set from its bytes up; the result's ``faults`` is 0 if all is well."""
    with console.bars() as bars:
        findings = check(place, bars.update)
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
