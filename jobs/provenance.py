"""What a run must log to be repeated: versions of the libraries, and the commit of this code."""

from __future__ import annotations

import platform
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = (
    "replisome", "torch", "deepspeed", "ray", "zarr", "numpy", "torchmetrics", "scikit-learn",
    "mlflow",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that decide results."""
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}


def git_commit() -> str | None:
    """Return the commit of this code, with "+changes" if files differ; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def command_line() -> str:
    """Return the command as typed."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], check=True, capture_output=True, text=True, timeout=10
    )
    return done.stdout.strip()
