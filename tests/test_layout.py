"""The house rules that a machine can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
RANK = {"data_shards": 1, "trainer": 2, "jobs": 3}
SOURCES = sorted(path for package in RANK for path in (ROOT / package).rglob("*.py"))


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_one_way_from_jobs_to_trainer_to_data_shards(path: Path) -> None:
    mine = RANK[path.relative_to(ROOT).parts[0]]
    upward = {name for name in imported_packages(path) if RANK.get(name, 0) > mine}
    assert not upward, f"{path.name} imports {upward}"


def test_data_shards_has_no_model_code_and_meets_torch_at_its_last_step_only() -> None:
    shards = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == "data_shards"]
    meeting = [path.name for path in shards if "torch" in imported_packages(path)]
    assert meeting == ["batches.py"]


def test_no_source_file_holds_two_ideas() -> None:
    long = {str(p): n for p in SOURCES if (n := p.read_text().count("\n")) > 400}
    assert not long


def test_every_source_file_of_the_packages_has_its_test_folder() -> None:
    for package in RANK:
        assert (ROOT / "tests" / package).is_dir()
