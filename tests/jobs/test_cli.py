"""The command: exit status, --json, help, and every kind of bad input with its message."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app

COMMANDS = (
    (),
    ("data",),
    ("data", "simulate"),
    ("data", "build"),
    ("data", "show"),
    ("data", "check"),
    ("recipes",),
    ("recipes", "list"),
    ("recipes", "show"),
    ("train",),
    ("plan",),
    ("export",),
    ("evaluate",),
    ("predict",),
    ("demo",),
    ("ui",),
)
LEAVES = [command for command in COMMANDS if command and command not in (("data",), ("recipes",))]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def said(result: Result) -> str:
    """What the command said, on one line: the terminal may have broken it anywhere."""
    return " ".join((result.stderr + result.stdout).split())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_explains_itself(command: tuple[str, ...]) -> None:
    result = call(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout


@pytest.mark.parametrize("command", LEAVES, ids=" ".join)
def test_every_command_teaches_by_example_and_takes_json(command: tuple[str, ...]) -> None:
    text = call(*command, "--help").stdout
    assert "Example" in text
    assert f"replisome {' '.join(command)}" in text
    assert "--json" in text


def test_a_wrong_option_exits_with_2() -> None:
    assert call("train", "danq", "--dat", "x").exit_code == 2
    assert call("no-such-command").exit_code == 2


def test_the_installed_command_starts_and_ends_with_the_right_status(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("replisome")
    done = subprocess.run(
        [command, "data", "show", tmp_path / "x.zarr", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no such data set" in done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["ok"], answer["status"]) == (False, 2)
    assert "no such data set" in answer["error"]


@pytest.mark.parametrize("command", [("recipes", "list"), ("recipes", "show", "danq")])
def test_recipes_are_told_to_people_and_to_programs(command: tuple[str, ...]) -> None:
    assert "DanQ" in call(*command).stdout
    result = call(*command, "--json")
    assert len(result.stdout.splitlines()) == 1
    assert json.loads(result.stdout)["ok"]
    assert "DanQ" in result.stderr


def test_show_and_check_tell_what_is_in_a_data_set(danq_data: Path) -> None:
    text = said(call("data", "show", danq_data))
    for word in ("motif_a", "9,600 samples", "chr9:0-300", "narrowPeak", "fingerprint"):
        assert word in text
    shown = json.loads(call("data", "show", danq_data, "--json").stdout)
    assert shown["schema"]["samples"] == 9600
    assert len(shown["samples"]) == 3
    checked = call("data", "check", danq_data, "--json")
    assert checked.exit_code == 0
    assert json.loads(checked.stdout)["faults"] == 0


def test_check_exits_with_1_on_a_fault(danq_data: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(danq_data, tmp_path / "x.zarr"))
    (out / "labels" / "c" / "0" / "0").unlink()
    result = call("data", "check", out, "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["faults"] == 1
    assert "the shard is missing" in said(result)


def test_simulate_refuses_a_folder_that_holds_something(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("x")
    result = call("data", "simulate", "danq", "--out", tmp_path)
    assert result.exit_code == 2
    assert "the output folder is not empty" in said(result)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


# Bad input to `data build`: spoil the simulated files one way at a time -----------------------


def replace(name: str, old: str, new: str) -> Callable[[Path], None]:
    def spoil(raw: Path) -> None:
        text = (raw / name).read_text()
        assert old in text
        (raw / name).write_text(text.replace(old, new, 1))

    return spoil


def set_line(name: str, number: int, line: str) -> Callable[[Path], None]:
    def spoil(raw: Path) -> None:
        lines = (raw / name).read_text().splitlines()
        lines[number - 1] = line
        (raw / name).write_text("\n".join(lines) + "\n")

    return spoil


def empty(name: str) -> Callable[[Path], None]:
    return lambda raw: (raw / name).write_text("") and None


def truncated_gzip(raw: Path) -> None:
    packed = gzip.compress((raw / "genome.fa").read_bytes())
    (raw / "genome.fa").write_bytes(packed[: len(packed) // 2])


def swap_contigs(raw: Path) -> None:
    text = (raw / "genome.fa").read_text()
    text = (
        text.replace(">chr2\n", ">tmp\n").replace(">chr5\n", ">chr2\n").replace(">tmp\n", ">chr5\n")
    )
    (raw / "genome.fa").write_text(text)


BED = "a_before_b.bed"
BAD_INPUT = {
    "contig not in the FASTA": (
        set_line(BED, 7, "chrZZ\t50\t250"),
        f"{BED}, line 7: contig 'chrZZ' is not in the reference",
        "the FASTA has chr1, chr2",
    ),
    "chr prefix": (
        set_line(BED, 3, "1\t50\t250"),
        f"{BED}, line 3: contig '1' is not in the reference",
        'interval_contigs = "add-chr"',
    ),
    "past the end": (
        set_line(BED, 2, "chr1\t239900\t240001"),
        f"{BED}, line 2: end 240001 is past the end of contig 'chr1' (240,000 bp)",
        "another assembly",
    ),
    "start >= end": (
        set_line(BED, 5, "chr1\t700\t700"),
        f"{BED}, line 5: start 700 is not below end 700",
        "half-open",
    ),
    "non-IUPAC letter": (
        set_line("genome.fa", 4, "ACGT*ACGT" + "A" * 51),
        "genome.fa, line 4: '*' in column 5 is not an IUPAC DNA letter",
        "only IUPAC DNA letters",
    ),
    "empty BED": (empty(BED), f"{BED}: the file is empty", "has records"),
    "empty FASTA": (empty("genome.fa"), "genome.fa: the file is empty", "has records"),
    "truncated gzip": (
        truncated_gzip,
        "genome.fa: the gzip data stop in the middle",
        "truncated: copy or download it again",
    ),
    "unsorted contigs": (
        swap_contigs,
        "genome.fa, line 8003: contigs are not sorted: 'chr3' comes after 'chr5'",
        "sort the FASTA",
    ),
    "duplicated contigs": (
        replace("genome.fa", ">chr2\n", ">chr1\n"),
        "genome.fa, line 4002: contig 'chr1' is there twice (first on line 1)",
        "remove or rename",
    ),
    "split contig that does not exist": (
        replace("danq.toml", '"chr12"', '"chr13"'),
        "danq.toml: splits.test: no contig 'chr13' in genome.fa",
        "the FASTA has: chr1",
    ),
    "unknown key": (
        replace("danq.toml", "stride", "strides"),
        "danq.toml: unknown key 'windows.strides'",
        "did you mean 'stride'?",
    ),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_to_a_build_is_refused_with_file_line_and_remedy(
    case: str, simulated: Path, tmp_path: Path
) -> None:
    spoil, problem, remedy = BAD_INPUT[case]
    raw = Path(shutil.copytree(simulated, tmp_path / "raw"))
    spoil(raw)
    before = sorted(path.name for path in raw.iterdir())
    result = call("data", "build", "danq", "--from", raw, "--out", tmp_path / "x.zarr", "--json")
    assert result.exit_code == 2
    answer = json.loads(result.stdout.splitlines()[-1])
    assert answer["error"].startswith(str(raw)), "the message begins with the file"
    assert problem in answer["error"]
    assert remedy in answer["error"]
    assert problem.split(":")[0] in said(result)
    assert sorted(path.name for path in raw.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["raw"], "nothing is left in place"


def test_a_build_refuses_an_output_that_exists_or_has_no_folder(
    simulated: Path, tmp_path: Path
) -> None:
    out = tmp_path / "x.zarr"
    out.mkdir()
    result = call("data", "build", "danq", "--from", simulated, "--out", out)
    assert result.exit_code == 2
    assert "x.zarr: the output path exists remedy: give another --out" in said(result)
    result = call("data", "build", "danq", "--from", simulated, "--out", tmp_path / "no" / "x.zarr")
    assert result.exit_code == 2
    assert "the output's folder does not exist" in said(result)


def test_a_build_without_description_or_folder_is_refused(tmp_path: Path) -> None:
    result = call("data", "build", "danq", "--from", tmp_path, "--out", tmp_path / "x.zarr")
    assert result.exit_code == 2
    assert "danq.toml: no such file" in said(result)
    result = call("data", "build", "danq", "--from", tmp_path / "no", "--out", tmp_path / "x.zarr")
    assert result.exit_code == 2
    assert "no such folder" in said(result)


# Bad input to `train`: refused before Ray starts or a run is created --------------------------

BAD_TRAINING = {
    "fewer samples than one batch": (
        ("--batch-size", "6401"),
        "the training split has 6,400 samples, fewer than one batch of 6,401",
        "--batch-size 6400 or less",
    ),
    "stages more than layers": (
        ("--stages", "5"),
        "5 stages, but only 4 of the network's 7 layers have weights",
        "use --stages 4 or fewer",
    ),
    "stages more than the ablation's layers": (
        ("--stages", "4"),
        "4 stages, but only 3 of the network's 5 layers have weights",
        "use --stages 3 or fewer",
    ),
    "batch that does not divide": (
        ("--replicas", "3"),
        "batch size 100 does not divide over 3 replica(s)",
        "99 or 102",
    ),
    "unknown size": (("--size", "tiny"), "recipe 'danq' has no size 'tiny'", "paper, small"),
    "learning rate": (("--lr", "0"), "optimizer.lr = 0.0", "correct the value"),
    "missing file": (("--config", "no.toml"), "no.toml: no such file", "config.toml is one"),
}


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_bad_input_to_training_is_refused_before_anything_starts(
    case: str, danq_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    flags, problem, remedy = BAD_TRAINING[case]
    result = call("train", "danq", "--data", danq_data, "--size", "small", *flags)
    assert result.exit_code == 2, said(result)
    assert problem in said(result)
    assert remedy in said(result)
    assert list(tmp_path.iterdir()) == [], "no runs folder was made"


def test_an_unknown_key_of_the_config_file_is_named_with_the_nearest(
    danq_data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "run.toml"
    config.write_text("[optimizer]\nlearning_rate = 0.1\nmomentun = 0.9\n")
    result = call("train", "danq", "--data", danq_data, "--config", config)
    assert result.exit_code == 2
    assert "run.toml: unknown key 'optimizer." in said(result)
    config.write_text('recipe = "other"\n')
    result = call("train", "danq", "--data", danq_data, "--config", config)
    assert "the file is for recipe 'other'" in said(result)


def test_a_gpu_that_was_asked_for_and_is_absent_is_an_error(
    danq_data: Path, tmp_path: Path, ray_cluster: None
) -> None:
    result = call(
        "train", "danq", "--data", danq_data, "--size", "small", "--device", "gpu",
        "--runs", tmp_path / "runs",
    )  # fmt: skip
    assert result.exit_code == 2
    assert "--device gpu: 1 workers need a GPU each, and there are 0" in said(result)
    assert not (tmp_path / "runs").exists()


def test_ui_without_runs_and_on_a_taken_port_is_refused(tmp_path: Path) -> None:
    import socket

    result = call("ui", "--runs", tmp_path)
    assert result.exit_code == 2
    assert "no runs are here" in said(result)
    (tmp_path / "mlflow.db").write_text("")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = call("ui", "--runs", tmp_path, "--port", str(port))
    assert result.exit_code == 2
    assert f"port {port} of 127.0.0.1 can't be used" in said(result)
