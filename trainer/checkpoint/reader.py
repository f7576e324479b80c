"""Checkpoints that are there: opened, verified, the newest good one found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
from safetensors import SafetensorError, safe_open
from torch import Tensor

from data_shards.errors import CorruptDataError, InputError
from trainer.checkpoint.format import (
    FileRecord,
    Index,
    Kind,
    read_index,
    saved_steps,
    step_folder,
)

_BLOCK = 1 << 22


class TensorFile:
    """An open safetensors file: names and shapes at once, content when asked for.

    Attributes:
        path: of the file.
        keys: of its tensors.
        aliases: from each further name of a tensor to the one it goes by.
    """

    def __init__(self, path: Path, handle: Any) -> None:
        self.path = path
        self.keys = tuple(handle.keys())
        self.aliases: dict[str, str] = handle.metadata() or {}
        self._handle = handle

    def shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of a tensor, without reading it."""
        return tuple(self._handle.get_slice(key).get_shape())

    def tensor(self, key: str) -> Tensor:
        """Return a tensor in host memory, mapped from the file: copy it, don't change it."""
        tensor: Tensor = self._handle.get_tensor(key)
        return tensor


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint. Its files are verified before they are read, each once.

    Attributes:
        folder: where it is.
        index: what it says of itself.
    """

    folder: Path
    index: Index
    _verified: set[str] = field(default_factory=set, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path) -> Checkpoint:
        """Open a checkpoint; only its index is read and verified.

        Raises:
            CorruptDataError: the index is missing or changed.
            InputError: it is of another version of the format.
        """
        return cls(folder, read_index(folder))

    @property
    def step(self) -> int:
        """Optimizer steps taken."""
        return self.index.step

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of all layers of the network."""
        return self.index.layers

    @property
    def progress(self) -> Mapping[str, Any]:
        """What the training loop wanted back."""
        return self.index.progress

    def check_layers(self, names: Sequence[str]) -> None:
        """Refuse to be loaded into a network with other layers.

        Raises:
            InputError: the layers' names differ; tells the first that does.
        """
        if tuple(names) == self.layers:
            return
        pairs = zip(self.layers, names, strict=False)
        first = next((n for n, (a, b) in enumerate(pairs) if a != b), None)
        if first is None:
            problem = f"holds {len(self.layers)} layers, the network has {len(names)}"
        else:
            problem = (
                f"holds another network: its layer {first} is {self.layers[first]!r}, "
                f"the network's is {names[first]!r}"
            )
        raise InputError(problem, path=self.folder, remedy="resume with the recipe and size it has")

    def files(self, layer: int, kind: Kind) -> list[FileRecord]:
        """Return the files of a layer."""
        return [file for file in self.index.files if file.layer == layer and file.kind == kind]

    def verify(self, layers: Sequence[int] | None = None) -> None:
        """Compare files with the index, byte for byte (crc32c); those found good are remembered.

        Args:
            layers: whose files; None means all.

        Raises:
            CorruptDataError: a file is missing, truncated or changed.
        """
        for file in self.index.files:
            if file.name not in self._verified and (layers is None or file.layer in layers):
                _verify(self.folder / file.name, file)
                self._verified.add(file.name)

    @contextmanager
    def read(self, file: FileRecord) -> Iterator[TensorFile]:
        """Open a file, after verifying it.

        Raises:
            CorruptDataError: it is missing, truncated or changed.
        """
        path = self.folder / file.name
        if file.name not in self._verified:
            _verify(path, file)
            self._verified.add(file.name)
        try:
            with safe_open(path, framework="pt") as handle:
                yield TensorFile(path, handle)
        except SafetensorError as error:
            raise CorruptDataError(f"{path}: not a safetensors file: {error}") from error

    @contextmanager
    def weights(self, layer: int) -> Iterator[TensorFile]:
        """Open the weights of a layer, after verifying them.

        Raises:
            CorruptDataError: they are missing, truncated or changed.
        """
        [file] = self.files(layer, "weights")
        with self.read(file) as tensors:
            yield tensors

    def check_averages(self) -> None:
        """Refuse to give averaged weights where there are none.

        Raises:
            InputError: no layer has any.
            CorruptDataError: a file is missing, truncated or changed.
        """
        for layer in range(len(self.layers)):
            with self.weights(layer) as file:
                if any(key.startswith("ema/") for key in file.keys):
                    return
        raise InputError(
            "has no averaged weights",
            path=self.folder,
            remedy="take the last weights, or train with optimizer.ema",
        )


def find_latest(folder: Path, notify: Callable[[str], None]) -> Checkpoint | None:
    """Find the newest checkpoint that is good, all its files verified.

    For one worker to call, and to tell the others which it is: they must all read the same, and
    what is damaged for one may look whole to another.

    Args:
        folder: of a run's checkpoints.
        notify: is told of each damaged one, with the file and what is wrong with it.

    Returns:
        The checkpoint, or None where there is none at all.

    Raises:
        CorruptDataError: there are checkpoints, but none is good.
        InputError: a checkpoint is of another version of the format.
    """
    steps = saved_steps(folder)
    for step in reversed(steps):
        try:
            checkpoint = Checkpoint.open(folder / step_folder(step))
            if checkpoint.step != step:
                raise CorruptDataError(f"{checkpoint.folder}: is the one of step {checkpoint.step}")
            checkpoint.verify()
        except CorruptDataError as error:
            notify(f"the checkpoint of step {step} is damaged and not used: {error}")
        else:
            return checkpoint
    if steps:
        raise CorruptDataError(
            f"{folder}: none of its {len(steps)} checkpoints is good; remove them to begin anew"
        )
    return None


def _verify(path: Path, file: FileRecord) -> None:
    try:
        size = path.stat().st_size
        if size != file.bytes:
            raise CorruptDataError(f"{path}: {size:,} bytes where the index has {file.bytes:,}")
        crc = 0
        with path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                crc = google_crc32c.extend(crc, block)
    except OSError as error:
        raise CorruptDataError(f"{path}: can't be read: {error.strerror}") from error
    if crc != file.crc32c:
        raise CorruptDataError(
            f"{path}: the content changed (crc32c {crc:08x}, was {file.crc32c:08x})"
        )
