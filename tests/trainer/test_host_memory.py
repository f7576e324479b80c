from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import resource
import numpy as np
from trainer.host_memory import keep_freed_memory
if {keep} and not keep_freed_memory():
    raise SystemExit(3)
def faults():
    for _ in range(20):
        np.empty(32 << 20, dtype=np.uint8)[::4096] = 1
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = faults()
print(faults() - first)
"""


def test_memory_that_was_freed_is_used_again_without_page_faults() -> None:
    faults = []
    for keep in (False, True):
        script = SCRIPT.format(keep=keep)
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=False
        )
        if done.returncode == 3:
            pytest.skip("the C library is not glibc")
        assert done.returncode == 0, done.stderr
        faults.append(int(done.stdout))
    assert faults[1] < 1_000 < faults[0]
