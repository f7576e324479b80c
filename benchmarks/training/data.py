"""The data sets that are read: simulated, and built by the commands that users type."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from benchmarks.training.networks import GENES, TARGETS

SAMPLES = 2_000  # of the expression data set


def danq_short(cache: Path) -> Path:
    """DanQ's simulated data set: 300 bp, 4 tasks, 6,400 training samples."""
    return _made(cache / "danq-short.zarr", lambda out: _build(_raw(cache), out))


def danq_long(cache: Path) -> Path:
    """The same genome and intervals in windows of 1,000 bp, as published; 9,568 for training."""

    def make(out: Path) -> None:
        raw = _raw(cache)
        spec = _description(raw)
        spec["windows"] |= {"length": 1000, "stride": 200}
        (raw / "long.toml").write_text(tomli_w.dumps(spec))
        _build(raw, out, "--spec", str(raw / "long.toml"))

    return _made(cache / "danq-long.zarr", make)


def danq_brief(cache: Path) -> Path:
    """DanQ's simulated data set, cut short: 2,400 training samples, 24 batches of 100."""

    def make(out: Path) -> None:
        raw = _raw(cache)
        spec = _description(raw)
        spec["reference"]["exclude"] = [f"chr{number}" for number in range(6, 13)]
        spec["splits"] = {"valid": ["chr4"], "test": ["chr5"]}
        (raw / "brief.toml").write_text(tomli_w.dumps(spec))
        _build(raw, out, "--spec", str(raw / "brief.toml"))

    return _made(cache / "danq-brief.zarr", make)


def expression(cache: Path) -> Path:
    """Random numbers in the shapes of D-GEX: 943 genes and 4,760."""

    def make(out: Path) -> None:
        raw = cache / "expression"
        raw.mkdir(parents=True, exist_ok=True)
        generator = np.random.default_rng(0)
        for name, width in (("landmarks", GENES), ("targets", TARGETS)):
            numbers = generator.standard_normal((SAMPLES, width), dtype=np.float32)
            np.save(raw / f"{name}.npy", numbers)
        spec = {
            "kind": "rows",
            "samples": {"match": "position"},
            "arrays": [
                {"name": "landmarks", "file": "landmarks.npy"},
                {"name": "targets", "file": "targets.npy", "role": "target"},
            ],
            "splits": {"by": "random", "seed": 0},
        }
        (raw / "expression.toml").write_text(tomli_w.dumps(spec))
        _build(raw, out, "--spec", str(raw / "expression.toml"), recipe=None)

    return _made(cache / "expression.zarr", make)


def _raw(cache: Path) -> Path:
    """The raw files of the simulated genome."""
    return _made(
        cache / "danq-raw", lambda out: _replisome("data", "simulate", "danq", "--out", str(out))
    )


def _description(raw: Path) -> dict[str, Any]:
    return tomllib.loads((raw / "danq.toml").read_text())


def _build(raw: Path, out: Path, *flags: str, recipe: str | None = "danq") -> None:
    words = ["data", "build", *([recipe] if recipe else []), "--from", str(raw), "--out", str(out)]
    _replisome(*words, *flags)


def _made(place: Path, make: Callable[[Path], None]) -> Path:
    """Make it under another name first, so that what is there is whole."""
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        unfinished = place.with_name(f"unfinished-{place.name}")
        shutil.rmtree(unfinished, ignore_errors=True)
        make(unfinished)
        unfinished.rename(place)
    return place


def _replisome(*words: str) -> None:
    command = Path(sys.executable).with_name("replisome")
    done = subprocess.run([str(command), *words], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"replisome {' '.join(words)}: {done.stderr[-2000:]}")
