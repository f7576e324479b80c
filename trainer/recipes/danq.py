"""DanQ: a hybrid convolutional and recurrent network for the function of DNA.

Quang and Xie 2016, Nucleic Acids Research 44:e107, doi:10.1093/nar/gkw226. Convolution finds
motifs, a bidirectional LSTM reads their order and spacing, two dense layers call the tasks.

Deviations: dropout masks are keyed (see ``trainer.layers.KeyedDropout``), and the network reads one
strand a sample: a data set built with ``strands = "both"`` has both, as the published one has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tomli_w
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from data_shards.sequence import Codes, decode
from trainer.baselines import KmerLogisticRegression
from trainer.ensemble import average_members
from trainer.layers import BASES, BiLSTM, ConvPool, Dense, KeyedDropout, OneHot
from trainer.recipe import EstimatorBaseline, Layer, Network, Recipe, Shape

# What a sample is and how raw files become samples: a window of the reference and one bit a task,
# set where the task's intervals cover its centre. See data_shards.build.windows_spec.WindowsSpec.

# The layers -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Size:
    """Widths of the layers.

    Attributes:
        filters: convolution filters.
        hidden: LSTM units in each direction.
        dense: units of the first dense layer.
    """

    filters: int
    hidden: int
    dense: int


FILTER_WIDTH, POOL = 26, 13
SIZES = {"paper": Size(320, 320, 925), "small": Size(64, 32, 64)}


def danq_layers(size: str, shape: Shape) -> list[Layer]:
    """DanQ: codes (B, length) uint8 -> logits (B, tasks)."""
    width = SIZES[size]
    steps = (shape.length - FILTER_WIDTH + 1) // POOL
    return [
        *_motif_layers(width),
        Layer("lstm", lambda: BiLSTM(width.filters, width.hidden)),
        Layer("dropout2", lambda: KeyedDropout(0.5)),
        *_dense_layers(steps * 2 * width.hidden, width, shape),
    ]


def no_lstm_layers(size: str, shape: Shape) -> list[Layer]:
    """DanQ without its LSTM: the dense layers read the pooled filters directly."""
    width = SIZES[size]
    steps = (shape.length - FILTER_WIDTH + 1) // POOL
    return [*_motif_layers(width), *_dense_layers(steps * width.filters, width, shape)]


def _motif_layers(width: Size) -> list[Layer]:
    return [
        Layer("onehot", OneHot),
        Layer("conv", lambda: ConvPool(BASES, width.filters, FILTER_WIDTH, POOL)),
        Layer("dropout1", lambda: KeyedDropout(0.2)),
    ]


def _dense_layers(inputs: int, width: Size, shape: Shape) -> list[Layer]:
    return [
        Layer("dense", lambda: Dense(inputs, width.dense, relu=True)),
        Layer("tasks", lambda: Dense(width.dense, shape.tasks, relu=False)),
    ]


# The loss ---------------------------------------------------------------------------------------


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy, mean over samples and tasks."""
    return binary_cross_entropy_with_logits(logits, labels)


# Raw files with a planted truth -----------------------------------------------------------------

CONTIGS, WINDOWS_PER_CONTIG = 12, 800
WINDOW, CENTER = 300, 200
NEAR = 80  # bp between the motifs of a near pair, at most
MOTIF = 10  # bp of a motif
FLANK = (WINDOW - CENTER) // 2


@dataclass(frozen=True)
class Planted:
    """What is planted in each window; all arrays have shape (windows,).

    Attributes:
        a: bool, motif A is there.
        b: bool, motif B is there.
        first: bool, both are there, and A comes before B.
        near: bool, ``first``, and the gap between them is at most :data:`NEAR` bp.
        at_a: int64, where A starts in the window, if it is there.
        at_b: int64, where B starts in the window, if it is there.
    """

    a: npt.NDArray[np.bool_]
    b: npt.NDArray[np.bool_]
    first: npt.NDArray[np.bool_]
    near: npt.NDArray[np.bool_]
    at_a: npt.NDArray[np.int64]
    at_b: npt.NDArray[np.int64]


def simulate(folder: Path, seed: int) -> None:
    """Write a genome with a planted motif grammar as FASTA, narrowPeak and BED files.

    In the centre of each window, motif A is planted with probability .75 and motif B likewise. Of
    the windows with both, A comes first in half, and in half, independently, their gap is at most
    80 bp. So given both motifs, neither their presence nor any k-mer tells order or distance.

    Tasks: ``motif_a``, ``motif_b`` (peaks around the motifs); ``a_before_b``, ``a_before_b_near``
    (elements), scored only where both motifs are. ``motifs.meme`` and ``planted.bed`` hold the
    truth. Window = 300 bp, centre = 200 bp; 12 contigs of 800 windows.
    """
    rng = np.random.default_rng(seed)
    windows = CONTIGS * WINDOWS_PER_CONTIG
    planted = _plan(rng, windows)
    motifs = {"A": _motif(rng), "B": _motif(rng)}
    codes = rng.integers(0, BASES, (windows, WINDOW), dtype=np.uint8)
    _write_into(codes, planted.a, planted.at_a, _instances(rng, motifs["A"], windows))
    _write_into(codes, planted.b, planted.at_b, _instances(rng, motifs["B"], windows))
    folder.mkdir(parents=True, exist_ok=True)
    _write_fasta(folder / "genome.fa", codes)
    _write_peaks(folder / "motif_a.narrowPeak", planted.a, planted.at_a)
    _write_peaks(folder / "motif_b.narrowPeak", planted.b, planted.at_b)
    _write_elements(folder / "a_before_b.bed", planted.first, rng)
    _write_elements(folder / "a_before_b_near.bed", planted.near, rng)
    _write_truth(folder / "planted.bed", planted)
    _write_motifs(folder / "motifs.meme", motifs)
    (folder / SPEC_NAME).write_text(tomli_w.dumps(_spec()))


SPEC_NAME = "danq.toml"


def _plan(rng: np.random.Generator, windows: int) -> Planted:
    a, b = rng.random(windows) < 0.75, rng.random(windows) < 0.75
    first, near = rng.random(windows) < 0.5, rng.random(windows) < 0.5
    widest = CENTER - 2 * MOTIF
    gap = np.where(
        near, rng.integers(0, NEAR + 1, windows), rng.integers(NEAR + 1, widest + 1, windows)
    )
    left = FLANK + rng.integers(0, widest - gap + 1)
    right = left + MOTIF + gap
    both = a & b
    alone = FLANK + rng.integers(0, CENTER - MOTIF + 1, (2, windows))
    return Planted(
        a,
        b,
        both & first,
        both & first & near,
        np.where(both, np.where(first, left, right), alone[0]),
        np.where(both, np.where(first, right, left), alone[1]),
    )


def _motif(rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Draw a motif as base probabilities, shape (10, 4), about 1.6 bits a position."""
    probabilities = np.full((MOTIF, BASES), 0.02)
    probabilities[np.arange(MOTIF), rng.integers(0, BASES, MOTIF)] = 0.94
    return probabilities


def _instances(rng: np.random.Generator, motif: npt.NDArray[np.float64], count: int) -> Codes:
    """Draw sites from a motif: codes, shape (count, 10)."""
    draws = rng.random((count, MOTIF, 1))
    codes: Codes = (draws > motif.cumsum(axis=1)[None, :, :-1]).sum(axis=2).astype(np.uint8)
    return codes


def _write_into(
    codes: Codes, there: npt.NDArray[np.bool_], at: npt.NDArray[np.int64], sites: Codes
) -> None:
    rows = np.flatnonzero(there)
    columns = at[rows, None] + np.arange(MOTIF)
    codes[rows[:, None], columns] = sites[rows]


def _place(window: int) -> tuple[str, int]:
    """Return the contig of a window and where the window starts on it."""
    contig, number = divmod(window, WINDOWS_PER_CONTIG)
    return f"chr{contig + 1}", number * WINDOW


def _write_fasta(path: Path, codes: Codes) -> None:
    with path.open("w") as stream:
        for contig in range(CONTIGS):
            rows = slice(contig * WINDOWS_PER_CONTIG, (contig + 1) * WINDOWS_PER_CONTIG)
            sequence = decode(codes[rows].ravel())
            stream.write(f">chr{contig + 1}\n")
            stream.writelines(sequence[i : i + 60] + "\n" for i in range(0, len(sequence), 60))


def _write_peaks(path: Path, there: npt.NDArray[np.bool_], at: npt.NDArray[np.int64]) -> None:
    """Write 200-bp peaks around the motifs; each covers half of its own centre or more."""
    with path.open("w") as stream:
        for number, window in enumerate(np.flatnonzero(there).tolist()):
            contig, offset = _place(window)
            summit = offset + int(at[window]) + MOTIF // 2
            start = max(summit - CENTER // 2, 0)
            end = min(summit + CENTER // 2, WINDOWS_PER_CONTIG * WINDOW)
            line = (contig, start, end, f"peak{number}", 1000, ".", 1, -1, -1, summit - start)
            stream.write("\t".join(map(str, line)) + "\n")


def _write_elements(path: Path, there: npt.NDArray[np.bool_], rng: np.random.Generator) -> None:
    """Write elements as intervals over the window's centre, with ragged ends."""
    jitter = rng.integers(-20, 21, (len(there), 2)).tolist()
    with path.open("w") as stream:
        for window in np.flatnonzero(there).tolist():
            contig, offset = _place(window)
            start = offset + FLANK + jitter[window][0]
            stream.write(f"{contig}\t{start}\t{start + CENTER + jitter[window][1]}\n")


def _write_truth(path: Path, planted: Planted) -> None:
    with path.open("w") as stream:
        for window in range(len(planted.a)):
            contig, offset = _place(window)
            sites = [(planted.a, planted.at_a, "A"), (planted.b, planted.at_b, "B")]
            for start, name in sorted(
                (offset + int(at[window]), name) for there, at, name in sites if there[window]
            ):
                stream.write(f"{contig}\t{start}\t{start + MOTIF}\t{name}\n")


def _write_motifs(path: Path, motifs: Mapping[str, npt.NDArray[np.float64]]) -> None:
    lines = ["MEME version 4", "", "ALPHABET= ACGT", "", "strands: +", ""]
    for name, motif in motifs.items():
        lines += [f"MOTIF {name}", f"letter-probability matrix: alength= 4 w= {MOTIF}"]
        lines += [" ".join(f"{p:.4f}" for p in row) for row in motif] + [""]
    path.write_text("\n".join(lines))


def _spec() -> dict[str, Any]:
    """Return the description of the simulated data set (see ``WindowsSpec``)."""
    both = ["motif_a", "motif_b"]
    return {
        "reference": {"fasta": "genome.fa"},
        "windows": {"length": WINDOW, "center": CENTER, "stride": WINDOW},
        "splits": {"valid": ["chr9", "chr10"], "test": ["chr11", "chr12"]},
        "tasks": [
            {"name": "motif_a", "file": "motif_a.narrowPeak"},
            {"name": "motif_b", "file": "motif_b.narrowPeak"},
            {"name": "a_before_b", "file": "a_before_b.bed", "given": both},
            {"name": "a_before_b_near", "file": "a_before_b_near.bed", "given": both},
        ],
    }


# Default hyper-parameters -----------------------------------------------------------------------


def defaults(size: str) -> Mapping[str, Any]:
    """Return the paper's settings (RMSprop, batch 100, early stopping); small: half its epochs."""
    return {
        "batch_size": 100,
        "epochs": 60 if size == "paper" else 30,
        "patience": 5,
        "optimizer": {"name": "rmsprop", "lr": 1e-3},
    }


RECIPE = Recipe(
    name="danq",
    title="DanQ: functional annotation of DNA by convolution and a bidirectional LSTM",
    citation="Quang and Xie 2016, Nucleic Acids Research 44:e107, doi:10.1093/nar/gkw226",
    sample="a window of the reference (published: 1,000 bp), one bit a task for its central 200 bp",
    sizes={
        "paper": "320 filters, 2 x 320 LSTM units, 925 dense units, as published",
        "small": "64 filters, 2 x 32 LSTM units, 64 dense units: minutes on two CPU cores",
    },
    simulate=simulate,
    spec_name=SPEC_NAME,
    network=Network("danq", danq_layers),
    loss=loss,
    ablations=[Network("danq-no-lstm", no_lstm_layers)],
    estimators=[
        # k and C: the best validation AUROC among k = 4, 5, 6 and C = 1e-5 ... 1e-2 (docs/danq.md)
        EstimatorBaseline("6-mer-lr", lambda seed: KmerLogisticRegression(6, 1e-4, seed), 50_000),
    ],
    defaults=defaults,
    gather=average_members,
)
