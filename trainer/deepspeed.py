"""What the stages use of DeepSpeed, imported without MLflow. Comes before all else of DeepSpeed.

DeepSpeed 0.19.8 imports its autotuner whatever one uses of it, and the autotuner imports MLflow if
it is there: most of the second that DeepSpeed takes to import, in every worker, for nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _without(module: str) -> Iterator[None]:
    """Let a module that is not imported yet look as if it were not installed."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # how Python writes that down
    try:
        yield
    finally:
        del sys.modules[module]


with _without("mlflow"):
    from deepspeed.pipe import DualPipeVModule, LayerSpec, PipelineModule
    from deepspeed.runtime.pipe.topology import ProcessTopology

__all__ = ["DualPipeVModule", "LayerSpec", "PipelineModule", "ProcessTopology"]
