"""Measured costs are kept by all that they depend on, and damaged files are measured again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data_shards.errors import CorruptDataError
from trainer.layers import ConvPool, KeyedDropout
from trainer.planning import cached
from trainer.planning.cached import cost_key, describe, measure_cached
from trainer.planning.costs import CostCache, LayerCost
from trainer.planning.measuring import measure, threads
from trainer.recipe import Layer

INPUTS = torch.zeros(5, 6)


def layers(outputs: int = 3, name: str = "linear") -> list[Layer]:
    return [Layer(name, lambda: nn.Linear(6, outputs))]


def key(**changes: Any) -> str:
    given = {
        "layers": layers(), "inputs": INPUTS, "seed": 0, "precision": "fp32", "repeats": 3,
    } | changes  # fmt: skip
    return cost_key(describe(**given))


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Counts the measurements."""
    count: list[int] = []

    def counted(*arguments: Any, **options: Any) -> list[LayerCost]:
        count.append(1)
        return measure(*arguments, **options)

    monkeypatch.setattr(cached, "measure", counted)
    return count


def test_the_same_layers_are_measured_once(tmp_path: Path, measured: list[int]) -> None:
    cache = CostCache(tmp_path / "costs")
    first = measure_cached(layers(), INPUTS, 0, cache=cache)
    assert measure_cached(layers(), INPUTS, 7, cache=cache) == first
    assert len(measured) == 1
    assert [path.suffix for path in cache.folder.iterdir()] == [".json"]
    measure_cached(layers(4), INPUTS, 0, cache=cache)
    measure_cached(layers(), INPUTS, 0, cache=None)
    assert len(measured) == 3


@pytest.mark.parametrize("content", ["", "{}", '{"format": 1, "key": "x", "costs": []}', "[1]"])
def test_a_damaged_file_is_measured_again_with_a_note(
    tmp_path: Path, measured: list[int], content: str
) -> None:
    cache = CostCache(tmp_path)
    notes: list[str] = []
    costs = measure_cached(layers(), INPUTS, 0, cache=cache)
    [path] = tmp_path.iterdir()
    path.write_text(content)
    with pytest.raises(CorruptDataError, match=path.name):
        cache.read(path.stem)
    again = measure_cached(layers(), INPUTS, 0, cache=cache, note=notes.append)
    assert len(measured) == 2
    assert "measured again" in notes[0]
    assert [cost.parameters for cost in again] == [cost.parameters for cost in costs]
    assert cache.read(path.stem) == again, "it is replaced"


def test_a_missing_number_is_damage(tmp_path: Path) -> None:
    cache = CostCache(tmp_path)
    cache.write("k", [LayerCost("x", 1.0, float("nan"), 5, 20, 8, 8)], {})
    with pytest.raises(CorruptDataError, match="layer 'x'"):
        cache.read("k")


def test_a_folder_that_can_not_be_written_costs_a_note_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    notes: list[str] = []
    cache = CostCache(tmp_path / "file" / "costs")
    assert measure_cached(layers(), INPUTS, 0, cache=cache, note=notes.append)
    assert "can't be kept" in notes[-1]


def test_the_key_is_of_all_that_costs_depend_on() -> None:
    keys = [
        key(),
        key(layers=layers(4)),
        key(layers=layers(name="other")),
        key(layers=[Layer("linear", lambda: nn.Linear(6, 3), constants=(1,))]),
        key(inputs=torch.zeros(6, 6)),
        key(inputs=INPUTS.double()),
        key(inputs=(INPUTS,) * 2),
        key(precision="bf16"),
        key(repeats=1),
    ]
    with threads(torch.get_num_threads() + 1):
        keys.append(key())
    assert len(set(keys)) == len(keys)
    assert key(seed=5) == keys[0]


def test_the_key_sees_settings_that_neither_repr_nor_weights_show() -> None:
    def pool(size: int) -> list[Layer]:
        return [Layer("conv", lambda: ConvPool(4, 8, 3, size))]

    def dropout(rate: float) -> list[Layer]:
        return [Layer("dropout", lambda: KeyedDropout(rate))]

    inputs = torch.zeros(2, 4, 30)
    assert key(layers=pool(2), inputs=inputs) != key(layers=pool(3), inputs=inputs)
    assert key(layers=dropout(0.1)) != key(layers=dropout(0.2))


def test_the_cache_lies_beside_the_data_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLISOME_CACHE", "/disk/cache")
    assert CostCache.of_user().folder == Path("/disk/cache/costs")
    monkeypatch.delenv("REPLISOME_CACHE")
    monkeypatch.setenv("HOME", "/home/someone")
    assert CostCache.of_user().folder == Path("/home/someone/.cache/replisome/costs")
