"""Planning refuses what can't become a data set, before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_shards.build.description import read_description
from data_shards.build.windows_plan import plan_windows
from data_shards.errors import InputError


@pytest.fixture
def raw(simulated: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(simulated, tmp_path / "raw"))


def replan(raw: Path, old: str = "", new: str = "") -> None:
    spec = raw / "danq.toml"
    text = spec.read_text()
    assert old in text
    spec.write_text(text.replace(old, new, 1) if old else text + new)
    plan_windows(read_description(spec), raw, recipe="danq", spec_path=spec)


@pytest.mark.parametrize(
    ("old", "new", "problem", "remedy"),
    [
        ('"chr10"', '"chr99"', "splits.valid: no contig 'chr99' in genome.fa", "the FASTA has"),
        ('"chr11"', '"chr10"', "contig 'chr10' is in both splits.valid", "one split"),
        ('"genome.fa"', '"other.fa"', "no such file", "exists"),
        ('"motif_a.narrowPeak"', '"other.bed"', "no such file", "exists"),
        ('"a_before_b.bed"', '"a_before_b.bed"\nmin_score = 1.0', "without one", "min_score"),
        ('"a_before_b.bed"', '"a_before_b.bed"\nanchor = "start"', "without a strand", "midpoint"),
        ('"a_before_b.bed"', '"a_before_b.bed"\nmin_length = 999', "none of its", "min_length"),
        ("length = 300", "length = 300000", "split 'train' has no window", "smaller"),
    ],
)
def test_what_cannot_become_a_data_set_is_refused(
    raw: Path, old: str, new: str, problem: str, remedy: str
) -> None:
    with pytest.raises(InputError) as caught:
        replan(raw, old, new)
    assert problem in str(caught.value)
    assert caught.value.path is not None
    assert remedy in (caught.value.remedy or "")


def test_holding_out_everything_is_refused(raw: Path) -> None:
    rest = ", ".join(f'"chr{i}"' for i in range(1, 9))
    with pytest.raises(InputError, match="no contig is left for training"):
        replan(raw, '"chr9"', f'"chr9", {rest}')


def test_excluded_contigs_have_no_windows(raw: Path) -> None:
    spec = raw / "danq.toml"
    spec.write_text(spec.read_text().replace("[windows]", 'exclude = ["chr3"]\n\n[windows]'))
    plan = plan_windows(read_description(spec), raw, recipe="danq", spec_path=spec)
    assert plan.schema.samples == 11 * 800
    assert "chr3" not in plan.schema.splits["train"].contigs


def test_rules_are_told_in_words(raw: Path) -> None:
    spec = raw / "danq.toml"
    plan = plan_windows(read_description(spec), raw, recipe="danq", spec_path=spec)
    assert plan.schema.tasks[0].rule == "intervals cover 100 or more of the central 200 bp"
    assert plan.schema.tasks[3].given == ("motif_a", "motif_b")
