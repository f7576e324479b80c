"""What each layer of a network costs, and where measured costs are kept."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from data_shards.errors import CorruptDataError

_FORMAT = 1


@dataclass(frozen=True)
class LayerCost:
    """What one layer costs for one micro-batch.

    Attributes:
        name: of the layer.
        forward: seconds of a forward pass.
        backward: seconds of a backward pass, gradients added to those that are there.
        parameters: trainable weights.
        parameter_bytes: size of all weights, frozen ones and buffers included.
        output_bytes: size of what it hands on, which crosses a cut after it.
        activation_bytes: size of what autograd keeps from its forward to its backward pass, without
            weights, and without inputs that the layer before keeps as its output.
    """

    name: str
    forward: float
    backward: float
    parameters: int
    parameter_bytes: int
    output_bytes: int
    activation_bytes: int

    @property
    def seconds(self) -> float:
        """Forward plus backward."""
        return self.forward + self.backward

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def interpolate(measured: Mapping[int, Sequence[LayerCost]], size: int) -> list[LayerCost]:
    """Estimate the costs for a micro-batch between measured ones: linear between neighbours.

    Args:
        measured: from micro-batch size to the costs of all layers.
        size: samples; within the measured range.

    Raises:
        ValueError: the size is outside of the measured range.
    """
    if size in measured:
        return list(measured[size])
    sizes = sorted(measured)
    for low, high in pairwise(sizes):
        if low < size < high:
            share = (size - low) / (high - low)
            return [
                _between(a, b, share) for a, b in zip(measured[low], measured[high], strict=True)
            ]
    raise ValueError(f"micro-batch {size} is not within the measured sizes {sizes}")


def _between(low: LayerCost, high: LayerCost, share: float) -> LayerCost:
    def mean(a: float, b: float) -> float:
        return a + share * (b - a)

    return LayerCost(
        low.name,
        mean(low.forward, high.forward),
        mean(low.backward, high.backward),
        low.parameters,
        low.parameter_bytes,
        round(mean(low.output_bytes, high.output_bytes)),
        round(mean(low.activation_bytes, high.activation_bytes)),
    )


@dataclass(frozen=True)
class CostCache:
    """A folder with one JSON file for each list of layers, micro-batch, device and precision.

    Attributes:
        folder: is made when something is written.
    """

    folder: Path

    @classmethod
    def of_user(cls) -> CostCache:
        """Return the cache beside the data cache of this node: "costs" in REPLISOME_CACHE.

        REPLISOME_CACHE is a folder, by default ~/.cache/replisome
        (``data_shards.store.cache.ShardCache``).
        """
        folder = Path(os.environ.get("REPLISOME_CACHE") or Path.home() / ".cache" / "replisome")
        return cls(folder / "costs")

    def path(self, key: str) -> Path:
        """Return the file of a key."""
        return self.folder / f"{key}.json"

    def read(self, key: str) -> list[LayerCost] | None:
        """Return what is kept under a key, None if nothing is.

        Raises:
            CorruptDataError: the file is damaged.
        """
        path = self.path(key)
        try:
            content = json.loads(path.read_bytes())
            if content["format"] != _FORMAT or content["key"] != key:
                raise ValueError("of another format or key")
            return [_cost(values) for values in content["costs"]]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise CorruptDataError(f"{path}: not a file of layer costs ({error})") from error

    def write(self, key: str, costs: Sequence[LayerCost], about: dict[str, Any]) -> None:
        """Keep costs; whoever reads meanwhile sees the old file or the new one.

        Args:
            key: see :func:`trainer.planning.cached.cost_key`.
            costs: of all layers.
            about: for people who look into the file.

        Raises:
            OSError: the folder can't be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        content = {
            "format": _FORMAT,
            "key": key,
            "about": about,
            "costs": [cost.plain() for cost in costs],
        }
        handle, name = tempfile.mkstemp(dir=self.folder, prefix=f"{key}.", suffix=".partial")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w") as stream:
                json.dump(content, stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(self.path(key))
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _cost(values: dict[str, Any]) -> LayerCost:
    cost = LayerCost(**values)
    numbers = list(cost.plain().values())[1:]
    if not all(
        isinstance(number, (int, float)) and 0 <= number < float("inf") for number in numbers
    ):
        raise ValueError(f"a number of layer {cost.name!r} is missing or negative")
    return cost
