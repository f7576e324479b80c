"""The example on real files: it builds, and its labels are what counting by hand gives."""

from __future__ import annotations

import gzip
from collections import defaultdict
from pathlib import Path

import pytest

from data_shards.build.description import read_description
from data_shards.build.windows import label
from data_shards.build.windows_plan import WindowsPlan, plan_windows

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "yeast.toml"


@pytest.fixture(scope="module")
def plan(shared_data: Path) -> WindowsPlan:
    return plan_windows(read_description(EXAMPLE), shared_data, recipe="danq", spec_path=EXAMPLE)


def lines(path: Path) -> list[list[str]]:
    with gzip.open(path, "rt") as stream:
        return [line.rstrip("\n").split("\t") for line in stream]


def test_the_yeast_example_has_its_documented_size_and_splits(plan: WindowsPlan) -> None:
    schema = plan.schema
    assert schema.samples == 60_285
    assert {name: split.samples for name, split in schema.splits.items()} == {
        "train": 49_339,
        "valid": 5_450,
        "test": 5_496,
    }
    assert schema.splits["test"].contigs == ("III", "XIV")
    assert len(schema.tasks) == 8


def test_start_sites_and_fragments_are_labelled_as_counted_by_hand(
    plan: WindowsPlan, shared_data: Path
) -> None:
    starts = defaultdict(set)
    for contig, start, end, _, _, strand in lines(
        shared_data / "genomes" / "Scer_polIItranscripts-adjustedTSS.bed.gz"
    ):
        site = int(start) if strand == "+" else int(end) - 1
        starts[contig.removeprefix("chr")].add(site)
    fragments = defaultdict(list)
    for contig, start, end in lines(shared_data / "danq" / "yeast_500k_SRR1822137.bedpe.gz"):
        if int(end) - int(start) < 120:
            fragments[contig.removeprefix("chr")].append((int(start), int(end)))
    schema, contigs = plan.schema, plan.schema.reference
    rows = slice(schema.splits["test"].start, schema.splits["test"].stop)
    loci = plan.loci.rows(rows.start, rows.stop)
    tasks = plan.spec.tasks
    found = {
        task.name: label(loci, schema.window, task, intervals)
        for task, intervals in zip(tasks, plan.intervals, strict=True)
        if task.name in ("tss", "open_chromatin")
    }
    for row in range(0, len(loci), 37):
        contig = contigs.names[loci.contig[row]]
        first = int(loci.start[row]) + 400
        last = first + 200
        assert found["tss"][row] == any(first <= site < last for site in starts[contig])
        touching = sum(s < last and e > first for s, e in fragments[contig])
        assert found["open_chromatin"][row] == (touching >= 10)
