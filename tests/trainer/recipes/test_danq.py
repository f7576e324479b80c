"""DanQ: the published shape to the letter, and a simulator whose truth is as documented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from torch import nn

from data_shards.contigs import Naming
from data_shards.errors import InputError
from data_shards.sources.fasta import scan_fasta
from data_shards.sources.intervals import read_intervals
from trainer.recipe import Shape, build_layer, trainable
from trainer.recipes import get_recipe, recipe_names
from trainer.recipes.danq import (
    CENTER,
    NEAR,
    WINDOW,
    danq_layers,
    no_lstm_layers,
    simulate,
)


def test_the_published_network_has_its_published_number_of_weights() -> None:
    layers = danq_layers("paper", Shape(1000, 919))
    weights = [trainable(build_layer(layer, 0, i)) for i, layer in enumerate(layers)]
    assert sum(weights) == 46_926_479
    assert dict(zip((layer.name for layer in layers), weights, strict=True)) == {
        "onehot": 0,
        "conv": 320 * 26 * 4 + 320,
        "dropout1": 0,
        "lstm": 2 * 4 * 320 * (320 + 320 + 1),
        "dropout2": 0,
        "dense": 48_000 * 925 + 925,
        "tasks": 925 * 919 + 919,
    }


@pytest.mark.parametrize("make", [danq_layers, no_lstm_layers])
@pytest.mark.parametrize("shape", [Shape(300, 4), Shape(1000, 9), Shape(51, 1)])
def test_layers_fit_together_for_any_window(make: object, shape: Shape) -> None:
    layers = make("small", shape)  # type: ignore[operator]
    network = nn.Sequential(*(build_layer(layer, 0, i) for i, layer in enumerate(layers)))
    codes = torch.randint(0, 5, (3, shape.length), dtype=torch.uint8)
    assert network(codes).shape == (3, shape.tasks)


def test_the_ablation_differs_by_the_lstm_only() -> None:
    model = [layer.name for layer in danq_layers("small", Shape(300, 4))]
    ablation = [layer.name for layer in no_lstm_layers("small", Shape(300, 4))]
    assert [name for name in model if name not in ("lstm", "dropout2")] == ablation


def test_recipes_are_found_and_a_typo_gets_a_suggestion() -> None:
    assert "danq" in recipe_names()
    for name in recipe_names():
        assert get_recipe(name).name == name
    with pytest.raises(InputError, match="did you mean 'danq'"):
        get_recipe("dank")


# The simulator ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sites(simulated: Path) -> dict[int, dict[str, int]]:
    """Planted motifs: number of the window -> motif -> start in the window."""
    found: dict[int, dict[str, int]] = {n: {} for n in range(9600)}
    for line in (simulated / "planted.bed").read_text().splitlines():
        contig, start, end, motif = line.split("\t")
        assert int(end) - int(start) == 10
        window = (int(contig.removeprefix("chr")) - 1) * 800 + int(start) // WINDOW
        found[window][motif] = int(start) % WINDOW
    return found


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(
    simulated: Path, tmp_path: Path
) -> None:
    simulate(tmp_path / "again", 0)
    simulate(tmp_path / "other", 1)
    for path in simulated.iterdir():
        assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes()
    genome = (simulated / "genome.fa").read_bytes()
    assert genome != (tmp_path / "other" / "genome.fa").read_bytes()


def test_motifs_are_planted_independently_with_the_stated_probability(
    sites: dict[int, dict[str, int]],
) -> None:
    a = np.array(["A" in s for s in sites.values()])
    b = np.array(["B" in s for s in sites.values()])
    for there in (a, b):
        assert binomtest(int(there.sum()), len(there), 0.75).pvalue > 1e-3
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.04


def test_order_and_distance_are_coin_flips_independent_of_each_other(
    sites: dict[int, dict[str, int]],
) -> None:
    both = [s for s in sites.values() if len(s) == 2]
    first = np.array([s["A"] < s["B"] for s in both])
    gap = np.array([abs(s["A"] - s["B"]) - 10 for s in both])
    assert gap.min() >= 0
    assert gap.max() <= CENTER - 20
    for coin in (first, gap <= NEAR):
        assert binomtest(int(coin.sum()), len(coin), 0.5).pvalue > 1e-3
    assert abs(np.corrcoef(first, gap <= NEAR)[0, 1]) < 0.05


def test_motifs_lie_in_the_centre_of_their_window(sites: dict[int, dict[str, int]]) -> None:
    starts = [start for s in sites.values() for start in s.values()]
    assert min(starts) >= 50
    assert max(starts) <= 250 - 10


def test_planted_sites_are_drawn_from_the_written_motifs(
    simulated: Path, sites: dict[int, dict[str, int]]
) -> None:
    text = (simulated / "motifs.meme").read_text()
    genome = "".join(
        line for line in (simulated / "genome.fa").read_text().splitlines() if line[0] != ">"
    )
    for motif in "AB":
        rows = text.split(f"MOTIF {motif}\n")[1].splitlines()[1:11]
        expected = np.array([[float(p) for p in row.split()] for row in rows])
        counts = np.zeros((10, 4))
        for window, found in sites.items():
            if motif in found:
                start = window * WINDOW + found[motif]
                for i, base in enumerate(genome[start : start + 10]):
                    counts[i, "ACGT".index(base)] += 1
        assert np.abs(counts / counts.sum(1, keepdims=True) - expected).max() < 0.02


def test_all_files_are_valid_and_on_the_reference(simulated: Path) -> None:
    contigs = scan_fasta(simulated / "genome.fa")
    assert contigs.total == 12 * 800 * 300
    for name in (
        "motif_a.narrowPeak",
        "motif_b.narrowPeak",
        "a_before_b.bed",
        "a_before_b_near.bed",
    ):
        assert len(read_intervals(simulated / name, contigs, Naming())) > 1000
