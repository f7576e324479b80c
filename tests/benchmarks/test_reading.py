"""The reading benchmarks run, and say what they should."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.reading.contenders.registry import CONTENDERS
from benchmarks.reading.data import QUICK, raw
from benchmarks.reading.envs import ENVIRONMENTS
from benchmarks.reading.formats import FORMATS
from benchmarks.reading.groups import GROUPS, fault
from benchmarks.reading.rounds import Plan, run
from benchmarks.reading.table import ratios, render
from benchmarks.reading.task import Contender, Windows

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_quick_run_in_our_environment_has_a_number_for_every_reader(tmp_path: Path) -> None:
    groups = ["windows-1k", "rows", "cells", "tracks", "prefetch"]
    # Half of the readers: the rest differ from these in parameters only.
    names = ["data_shards", "a slice a window", "blocks", "Prefetch", "bases", "pysam"]
    flags = ["--quick", "--only-main", "--cache", str(tmp_path / "cache"), "--out", str(tmp_path)]
    chosen = ["--groups", *groups, "--contenders", *names]
    subprocess.run(
        [sys.executable, "-m", "benchmarks.reading.run", *flags, *chosen],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    for name in groups:
        result = json.loads((tmp_path / f"reading-{name}.json").read_text())
        group = result["group"]
        assert any(one["name"] == group["limit"] for one in group["outcomes"])
        assert any(one["ours"] for one in group["outcomes"])
        for one in group["outcomes"]:
            assert one["excluded"] is None, f"{name}, {one['name']}: {one['excluded']}"
            assert len(one["slices"]) == 2
            assert all(part["units"] > 0 and part["wall"] > 0 for part in one["slices"])
        assert group["title"] in (tmp_path / f"reading-{name}.md").read_text()


def slices(*rates: float) -> list[dict[str, float]]:
    return [{"units": rate * 2, "cpu": 2.0, "wall": 4.0} for rate in rates]


def test_a_ratio_is_taken_within_its_round() -> None:
    assert ratios(slices(1, 30), slices(10, 100), "cpu") == pytest.approx([0.1, 0.3])


def outcome(name: str, **changes: Any) -> dict[str, Any]:
    base = {"name": name, "how": "so", "ours": False, "form": "codes", "threads": "one"}
    return {**base, "versions": {"numpy": "2"}, "excluded": None, "slices": [], **changes}


def test_the_table_shows_ratios_and_the_reason_where_there_is_none() -> None:
    group = {
        "title": "Rows",
        "unit": "rows",
        "batch": 2,
        "clock": "cpu",
        "limit": "map",
        "outcomes": [
            outcome("map", slices=slices(10, 10, 10)),
            outcome("us", ours=True, slices=slices(9, 8, 7)),
            outcome("them", excluded="no answer in 300 s"),
        ],
    }
    machine = {"processor": "P", "cores": 2, "memory_gib": 4, "system": "S", "python": "3.11"}
    text = render(
        {
            "command": "c",
            "date": "d",
            "machine": machine,
            "input": "full",
            "rounds": 3,
            "seconds": 1.0,
            "load": 0.5,
            "group": group,
        }
    )
    assert "| map (limit) | numpy 2 | 1 | 10 | 5 | so |" in text
    assert "| **us** | numpy 2 | 0.80 [0.75 to 0.85] | 8 | 4 | so |" in text
    assert "| them | | no number | | | no answer in 300 s |" in text


def test_a_wrong_answer_is_found(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    generator.integers(0, 5, QUICK.genome, dtype=np.uint8).tofile(tmp_path / "genome.raw")
    task = GROUPS["windows-1k"].task(tmp_path, QUICK)
    query = GROUPS["windows-1k"].queries(task, 1)[0]
    assert isinstance(query, Windows)
    genome = raw(tmp_path, "genome")
    right = np.stack([genome[start : start + 1000] for start in query.flat])
    assert fault(task, query, (right,), "codes") is None
    assert "shape" in str(fault(task, query, (right[:, :-1],), "codes"))
    wrong = right.copy()
    wrong[3, 7] ^= 1
    assert fault(task, query, (wrong,), "codes") == "1 of 256,000 values differ from numpy's"
    letters = np.frombuffer(b"ACGTN", dtype=np.uint8)[right]
    assert fault(task, query, (letters,), "letters") is None
    shuffled = np.arange(255, -1, -1)
    assert fault(task, query, (right[shuffled], query.rows[shuffled]), "keyed") is None


def test_who_fails_is_in_the_result_with_the_reason(tmp_path: Path) -> None:
    task = GROUPS["rows"].task(tmp_path, QUICK)
    no_files = CONTENDERS["rows", "memory map"]
    unknown = replace(no_files, name="nobody")
    plan = Plan(rounds=1, seconds=0.01, warm_up=0.01, timeout=30)
    python = Path(sys.executable)
    entrants: list[tuple[Contender, Path | str]] = [
        (no_files, python),
        (unknown, python),
        (no_files, "can't be installed: why"),
    ]
    told: list[str] = []
    outcomes = run(task, entrants, plan, told.append)
    assert "FileNotFoundError" in str(outcomes[0].excluded)
    assert outcomes[1].excluded == "exit status 1: KeyError: ('rows', 'nobody')"
    assert outcomes[2].excluded == "can't be installed: why"
    assert not any(outcome.slices for outcome in outcomes)


def test_every_reader_has_its_group_environment_and_files() -> None:
    for (place, name), contender in CONTENDERS.items():
        assert name == contender.name
        assert contender.environment in {"main", *ENVIRONMENTS}
        for pattern in contender.formats:
            format_ = pattern.format(length=GROUPS[place].length)
            assert format_ in FORMATS or format_ == GROUPS[place].raw, format_
    for group in GROUPS.values():
        assert (group.name, group.limit) in CONTENDERS
