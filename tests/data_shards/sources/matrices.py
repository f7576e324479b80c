"""What the tests of matrix readers share: blocks put together, and files to read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from data_shards.sources.matrix import MatrixSource


def gather(source: MatrixSource, budget_bytes: int = 1 << 20) -> npt.NDArray[Any]:
    """Put all blocks together, samples x features, and check what every block promises."""
    whole = np.zeros((len(source.samples), len(source.features)), source.dtype)
    stop, axes = 0, set()
    for block in source.blocks(budget_bytes):
        values = block.values.toarray() if source.sparse else block.values
        assert block.start == stop
        assert values.dtype == source.dtype
        if values.dtype.kind == "f":
            assert block.missing == np.isnan(values).sum()
        stop = block.stop
        part = slice(block.start, block.stop)
        if block.axis == "samples":
            whole[part] = values
        else:
            whole[:, part] = values
        axes.add(block.axis)
    assert len(axes) == 1
    assert stop == whole.shape[0 if axes == {"samples"} else 1]
    return whole


def write_gctx(
    path: Path,
    matrix: npt.NDArray[Any],
    samples: list[str],
    features: list[str],
    chunks: tuple[int, int] | None = None,
    **metadata: dict[str, Any],
) -> Path:
    """Write a GCTX file after the published layout: the matrix is samples x features."""
    import h5py

    with h5py.File(path, "w") as file:
        file.attrs["version"] = "GCTX1.0"
        file.create_dataset("0/DATA/0/matrix", data=matrix, chunks=chunks)
        file["0/META/COL/id"] = np.array([name.encode() for name in samples], "S")
        file["0/META/ROW/id"] = np.array([name.encode() for name in features], "S")
        for side, columns in metadata.items():
            for name, values in columns.items():
                file[f"0/META/{side}/{name}"] = values
    return path
