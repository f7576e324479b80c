"""``replisome data``: simulate, build, show and check data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from data_shards.build.run import build, refuse_existing
from data_shards.build.windows_plan import plan_windows
from data_shards.build.windows_spec import read_spec
from data_shards.check import check
from data_shards.dataset import ShardedDataset
from data_shards.errors import InputError
from data_shards.sequence import decode
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
    recipe = get_recipe(recipe_name)
    refuse_existing(out)
    if not source.is_dir():
        raise InputError("no such folder", path=source, remedy="give the folder of the raw files")
    spec_path = spec_path if spec_path is not None else source / recipe.spec_name
    with console.step("read and check files"), console.bars() as bars:
        spec = read_spec(spec_path)
        plan = plan_windows(
            spec, source, recipe=recipe.name, spec_path=spec_path, progress=bars.update
        )
    with console.step("build shards"), cluster(), console.bars() as bars:
        attributes = build(plan, out, command=command_line(), progress=bars.update)
    schema = attributes.schema_
    return {
        "data": str(out),
        "fingerprint": attributes.fingerprint,
        "samples": {name: split.samples for name, split in schema.splits.items()},
        "tasks": list(schema.task_names),
        "seconds": console.seconds,
    }


def show_dataset(path: Path, console: Console) -> dict[str, Any]:
    """Show what is in a data set: sizes, class balance, origin, three samples."""
    data = ShardedDataset(path)
    schema, provenance = data.schema, data.attributes.provenance
    window = schema.window
    console.show(
        f"{path}: {schema.kind} for recipe {schema.recipe!r}, {schema.samples:,} samples of "
        f"{window.length} bp, labels by the central {window.center} bp, every {window.stride} bp, "
        f"strands {window.strands}\nreference: {len(schema.contigs)} contigs, "
        f"{schema.reference.total:,} bp\nfingerprint: {data.attributes.fingerprint}"
    )
    positives = data.positives()
    balance = Table("task", *schema.splits, title="positives", title_justify="left")
    for number, task in enumerate(schema.tasks):
        cells = [
            f"{positives[name][number]:,} ({positives[name][number] / split.samples:.2%})"
            for name, split in schema.splits.items()
        ]
        balance.add_row(task.name, *cells)
    sizes = [
        f"{split.samples:,} on {len(split.contigs)} contig(s)" for split in schema.splits.values()
    ]
    balance.add_section()
    balance.add_row("samples", *sizes)
    console.show(balance)
    for task in schema.tasks:
        given = f"; scored where {' and '.join(task.given)} are positive" if task.given else ""
        console.show(f"{task.name}: {task.rule}{given}")
    samples = _samples(data)
    rows = Table(
        "sample",
        "locus",
        "strand",
        "split",
        "sequence",
        "positive tasks",
        title="samples",
        title_justify="left",
    )
    for sample in samples:
        rows.add_row(*(str(value) for value in sample.values()))
    console.show(rows)
    origin = Table(
        "source file", "bytes", "sha256", title=f"built {provenance.created}", title_justify="left"
    )
    for source in provenance.sources:
        origin.add_row(source.name, f"{source.bytes:,}", source.sha256[:16])
    console.show(origin)
    console.show(f"by: {provenance.command}")
    return {
        "data": str(path),
        "fingerprint": data.attributes.fingerprint,
        "schema": schema.model_dump(mode="json", by_alias=True),
        "positives": {name: counts.tolist() for name, counts in positives.items()},
        "provenance": provenance.model_dump(mode="json"),
        "samples": samples,
    }


def _samples(data: ShardedDataset) -> list[dict[str, Any]]:
    """Return the first sample of each split in words."""
    schema, loci = data.schema, data.loci
    found = []
    for name, split in schema.splits.items():
        row = split.start
        start = int(loci.start[row])
        sequence = decode(data.gather("sequence", np.array([row]))[0])
        labels = data.labels(np.array([row]))[0]
        positive = [t for t, bit in zip(schema.task_names, labels, strict=True) if bit]
        contig = schema.contigs[int(loci.contig[row])].name
        found.append(
            {
                "sample": row,
                "locus": f"{contig}:{start:,}-{start + schema.window.length:,}",
                "strand": "+" if loci.strand[row] > 0 else "-",
                "split": name,
                "sequence": f"{sequence[:12]}...{sequence[-12:]}",
                "positive": ", ".join(positive) or "none",
            }
        )
    return found


def check_dataset(path: Path, console: Console) -> dict[str, Any]:
    """Check a data set from its bytes up; the result's ``faults`` is 0 if all is well."""
    with console.bars() as bars:
        findings = check(path, bars.update)
    table = Table("check", "", "finding")
    for finding in findings:
        table.add_row(finding.check, "ok" if finding.ok else "FAULT", finding.detail)
    console.show(table)
    return {
        "data": str(path),
        "faults": sum(not finding.ok for finding in findings),
        "findings": [finding.__dict__ for finding in findings],
    }
