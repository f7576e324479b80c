"""How much is measured."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Effort:
    """How long, how often, and where things are kept.

    Attributes:
        rounds: how many are counted.
        seconds: of a contender in a round, about.
        quick: small networks and few steps: shows that it works, says nothing about speed.
        networks: only these; empty for all that a benchmark has.
        cache: folder of data sets.
        envs: folder of the peers' environments.
        threads: cores to use; None for all that this process may use.
        device: for the benchmark that can use a GPU.
        peak: of the GPU, TFLOP/s; None looks it up.
    """

    rounds: int
    seconds: float
    quick: bool
    networks: tuple[str, ...]
    cache: Path
    envs: Path
    threads: int | None = None
    device: str = "cuda"
    peak: float | None = None

    @property
    def cores(self) -> int:
        """Cores that a benchmark uses."""
        return self.threads or len(os.sched_getaffinity(0))

    def chosen(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the networks to measure, of those a benchmark has."""
        return tuple(name for name in names if not self.networks or name in self.networks)

    def describe(self) -> str:
        """Write rounds and seconds."""
        small = "Small networks, to show that it works; the numbers mean nothing. "
        return f"{small if self.quick else ''}{self.rounds} rounds of {self.seconds:g} s"
