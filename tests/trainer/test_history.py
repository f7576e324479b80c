"""The loss of every step, as a file."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.errors import CorruptDataError
from trainer.history import LossHistory, read_losses


def test_losses_come_back_to_the_last_bit_in_order(tmp_path: Path) -> None:
    path = tmp_path / "losses" / "net.f64"
    history = LossHistory(path, 0)
    history.append([0.1, 1 / 3])
    history.append([2e-300])
    history.sync()
    assert read_losses(path) == (0.1, 1 / 3, 2e-300)
    assert path.read_bytes() == struct.pack("<3d", 0.1, 1 / 3, 2e-300)


@given(steps=st.integers(0, 6), written=st.integers(0, 6), torn=st.integers(0, 7))
def test_what_was_written_after_the_last_checkpoint_is_cut_off(
    steps: int, written: int, torn: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("history") / "net.f64"
    losses = [float(i) for i in range(written)]
    path.write_bytes(struct.pack(f"<{written}d", *losses) + b"x" * torn)
    if written < steps:
        with pytest.raises(CorruptDataError, match=f"has {written} of {steps} losses"):
            LossHistory(path, steps)
        return
    LossHistory(path, steps).append([9.0])
    assert read_losses(path) == (*losses[:steps], 9.0)
