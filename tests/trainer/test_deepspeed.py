"""What a worker imports, and what not."""

from __future__ import annotations

import subprocess
import sys

LOOK = """
import sys
import trainer.loop
assert "deepspeed" in sys.modules
assert "mlflow" not in sys.modules
import mlflow
assert mlflow.__version__
"""


def test_a_worker_does_not_import_mlflow_and_could() -> None:
    done = subprocess.run([sys.executable, "-c", LOOK], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
