"""Virtual environments for contenders that can't live in the project's own."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


class UnavailableError(Exception):
    """An environment can't be made; says why."""


@dataclass(frozen=True)
class Environment:
    """What is installed together.

    Attributes:
        steps: arguments of one ``pip install`` each, in order.
        python: commands to look for, first choice first; empty for the Python that runs this.
    """

    steps: tuple[tuple[str, ...], ...]
    python: tuple[str, ...] = ()


_TORCH = "torch==2.13.0"

ENVIRONMENTS: dict[str, Environment] = {
    # zarr-python as the project has it, with readers that don't pull anything heavy.
    "common": Environment(
        (
            (
                "numpy==2.4.6",
                "zarr==3.1.6",
                "zarrs==0.2.3",
                "tensorstore==0.1.86",
                "pyfaidx==0.9.2.2",
                "webdataset==1.0.2",
            ),
        )
    ),
    # Its pin of pyarrow is older than the project's.
    "genvarloader": Environment(((_TORCH,), ("genvarloader==0.43.1", _TORCH))),
    # Needs torchvision, which would bring another torch if torch were not held.
    "streaming": Environment(((_TORCH,), ("mosaicml-streaming==0.13.0", _TORCH))),
    # Declares torch <= 2.3.1, which can't be had beside ours; so its dependencies are given here,
    # and it is installed without them. It imports pkg_resources, which setuptools 81 dropped.
    "selene": Environment(
        (
            (_TORCH,),
            (
                "setuptools<81",
                "pyfaidx",
                "pandas",
                "pytabix",
                "scikit-learn",
                "scipy",
                "seaborn",
                "statsmodels",
                "plotly",
                "ruamel.yaml",
                "pyyaml",
                "six",
                "h5py",
                "click",
                "matplotlib",
            ),
            ("--no-deps", "selene-sdk==0.6.0"),
        )
    ),
    # The newest zarr-python and annbatch need Python 3.12.
    "next": Environment(
        (("zarr==3.4.2", "annbatch[zarrs]==0.3.1", "anndata==0.13.4"),),
        python=("python3.13", "python3.12"),
    ),
}


def interpreter(name: str, cache: Path, say: Callable[[str], None]) -> Path:
    """Return the Python of an environment, making it first where needed.

    Args:
        name: in ``ENVIRONMENTS``, or "main".
        cache: folder of the environments.
        say: told what takes long.

    Raises:
        UnavailableError: Python or a package can't be had.
    """
    if name == "main":
        return Path(sys.executable)
    environment = ENVIRONMENTS[name]
    wanted = hashlib.sha256(json.dumps(environment.steps).encode()).hexdigest()
    folder = cache / name
    stamp, python = folder / "replisome-bench", folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    base = _find(environment.python)
    say(f"installing environment {name!r} into {folder}")
    shutil.rmtree(folder, ignore_errors=True)
    _run([base, "-m", "venv", str(folder)])
    for step in environment.steps:
        _run([str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *step])
    stamp.write_text(wanted)
    return python


def _find(commands: tuple[str, ...]) -> str:
    """Find a Python on the path or among those that pyenv installed."""
    if not commands:
        return sys.executable
    for command in commands:
        places = [str(p) for p in sorted(Path.home().glob(f".pyenv/versions/*/bin/{command}"))]
        for place in [found, *places] if (found := shutil.which(command)) else places:
            # pyenv puts a command of every version on the path, also those that only say no.
            if subprocess.run([place, "-c", ""], check=False, capture_output=True).returncode == 0:
                return place
    raise UnavailableError(f"no {' or '.join(commands)} on this machine")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if "rror" in line] or lines or ["no message"]
        raise UnavailableError(f"{' '.join(command[-3:])}: {errors[-1].strip()}")
