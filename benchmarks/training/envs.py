"""Where the peers run: virtual environments, made as those of the reading benchmarks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.reading.envs import UnavailableError
from benchmarks.reading.envs import interpreter as of_reading

_TORCH = "torch==2.13.0"
# torch comes first and alone: asked for together with the rest, pip may choose another build of it.
LIGHTNING = ((_TORCH,), ("pytorch-lightning==2.6.6", "numpy==2.4.6", _TORCH))


def interpreter(name: str, cache: Path, say: Callable[[str], None]) -> Path | str:
    """Return the Python of an environment, made where needed, or why there is none.

    Args:
        name: "main", "lightning" or one of the reading benchmarks' (Selene's is shared).
        cache: folder of the environments.
        say: told what takes long.
    """
    try:
        return _lightning(cache, say) if name == "lightning" else of_reading(name, cache, say)
    except UnavailableError as error:
        return f"can't be installed: {error}"


def _lightning(cache: Path, say: Callable[[str], None]) -> Path:
    folder = cache / "lightning"
    stamp, python = folder / "replisome-bench", folder / "bin" / "python"
    wanted = repr(LIGHTNING)
    if stamp.is_file() and stamp.read_text() == wanted:
        return python
    say(f"installing environment 'lightning' into {folder}")
    _run(sys.executable, "-m", "venv", "--clear", str(folder))
    for packages in LIGHTNING:
        _run(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *packages)
    stamp.write_text(wanted)
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise UnavailableError(f"{' '.join(command[-3:])}: {lines[-1] if lines else 'no message'}")
