"""The format of a checkpoint on disk: what each file is called and what it holds.

A checkpoint is a folder named after the optimizer steps taken, ``step-00000120``::

    index.json                            what the checkpoint is; its files and their checksums
    index.json.sha256                     checksum of index.json, as ``sha256sum -c`` reads it
    layer-03-lstm.safetensors             weights of layer 3, which is called "lstm"
    layer-03-lstm.optimizer.safetensors   optimizer state of that layer, written by one worker
    layer-03-lstm.optimizer-0.safetensors or in parts: replica 0 wrote that of the parameters
    layer-03-lstm.optimizer-1.safetensors     it owns, and so did replica 1 (ZeRO-1)

Nothing depends on how the network was cut or how many replicas there were. No file holds code.

**Weights.** Each layer has this file, also a layer without weights. Its tensors are
``param/<name>`` (frozen ones too), ``buffer/<name>`` (persistent buffers, such as running
statistics) and ``ema/<name>`` (averaged parameters, where a run keeps them); ``<name>`` is the
tensor's name in the layer's own ``state_dict()``. Tensors have the dtype they are trained in:
float32 masters, int64 counters. A tensor that a layer knows by several names is written under the
first that ``named_parameters()`` or ``named_buffers()`` gives; the file's metadata leads from each
other name to it, as those that safetensors' ``save_model`` writes.

**Optimizer state.** Tensors are ``<state>/<name>``, such as ``exp_avg/lstm.weight_ih_l0``; states
are called as PyTorch's optimizers call them, and scalars (``step``) are tensors of shape () with
their dtype. A parameter without state (no step taken, none kept, frozen) has no entry, and a layer
without entries has no file. A parameter's state is in one file only. Learning rates and other
settings are not here: they are configuration and ``progress``.

**index.json** is one JSON object (UTF-8)::

    format    "replisome-checkpoint"
    version   1
    step      optimizer steps taken
    layers    names of all layers, in order
    files     a list of {name, layer, kind, bytes, crc32c, sha256}, for each file above:
              layer is the number of the layer, kind "weights" or "optimizer", crc32c
              (Castagnoli) a number, sha256 in hexadecimal
    progress  what the training loop wants back, plain JSON

**Completeness.** Workers write into ``.step-00000120.<attempt>.<number>.tmp`` beside it, each with
``rank-2.json`` last, which lists its files as ``files`` above (or ``rank-2.failed`` with the reason
why not). The leader waits for all of them, writes the index and renames the folder, all of it
flushed to the disk. So a folder named ``step-...`` is complete, and names that begin with a dot
don't count. ``.attempt`` names the attempt (one start of a run's workers) that may add checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from data_shards.documents import Document
from data_shards.errors import CorruptDataError, InputError

INDEX = "index.json"
INDEX_SUM = "index.json.sha256"

Kind = Literal["weights", "optimizer"]
_LAYER_NAME = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_STEP_FOLDER = re.compile(r"step-(\d{8,})")


class FileRecord(Document):
    """One file of a checkpoint, and what it must be byte for byte."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]+$")
    layer: int = Field(ge=0)
    kind: Kind
    bytes: int = Field(ge=0)
    crc32c: int = Field(ge=0, lt=2**32)
    sha256: str


class Index(Document):
    """The content of ``index.json``."""

    format: Literal["replisome-checkpoint"] = "replisome-checkpoint"
    version: Literal[1] = 1
    step: int = Field(ge=0)
    layers: tuple[str, ...]
    files: tuple[FileRecord, ...]
    progress: dict[str, Any]


def step_folder(step: int) -> str:
    """Return the name of the checkpoint after so many optimizer steps."""
    return f"step-{step:08d}"


def step_of(folder_name: str) -> int | None:
    """Return the step of a checkpoint from its folder's name; None if it is not one."""
    match = _STEP_FOLDER.fullmatch(folder_name)
    return int(match[1]) if match else None


def saved_steps(folder: Path) -> list[int]:
    """List the steps of the complete checkpoints in a folder, oldest first."""
    if not folder.is_dir():
        return []
    steps = (step_of(path.name) for path in folder.iterdir() if path.is_dir())
    return sorted(step for step in steps if step is not None)


def check_layer_name(name: str) -> None:
    """Refuse a layer's name that can't be part of a file name on every system.

    Raises:
        InputError: it has other characters than letters, digits, ``_``, ``-`` and single dots.
    """
    if not _LAYER_NAME.fullmatch(name):
        raise InputError(
            f"layer name {name!r} can't be part of a file name",
            remedy="name it with letters, digits, - and _",
        )


def weights_file(layer: int, name: str) -> str:
    """Return the name of the file with a layer's weights."""
    return f"layer-{layer:02d}-{name}.safetensors"


def optimizer_file(layer: int, name: str, part: int | None) -> str:
    """Return the name of the file with a layer's optimizer state, or a replica's part of it."""
    suffix = "" if part is None else f"-{part}"
    return f"layer-{layer:02d}-{name}.optimizer{suffix}.safetensors"


def plain_progress(progress: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a progress document, made sure to come back as it is.

    Raises:
        ValueError: it is not plain JSON: NaN, infinity, tuples, keys that are not text, objects.
    """
    try:
        copy: dict[str, Any] = json.loads(json.dumps(progress, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a checkpoint's progress must be plain JSON: {error}") from error
    if copy != progress:
        raise ValueError(
            "a checkpoint's progress would come back changed: use lists instead of tuples, and "
            "text as keys"
        )
    return copy


def write_index(folder: Path, index: Index) -> None:
    """Write ``index.json`` and its checksum, flushed to the disk."""
    content = (json.dumps(index.model_dump(mode="json"), indent=1) + "\n").encode()
    write_flushed(folder / INDEX, content)
    write_flushed(folder / INDEX_SUM, _sum_line(content))


def read_index(folder: Path) -> Index:
    """Read and verify ``index.json``.

    Raises:
        CorruptDataError: it is missing or changed.
        InputError: it is of another version of the format.
    """
    path = folder / INDEX
    try:
        content, line = path.read_bytes(), (folder / INDEX_SUM).read_bytes()
    except OSError as error:
        raise CorruptDataError(f"{error.filename}: can't be read: {error.strerror}") from error
    if line != _sum_line(content):
        raise CorruptDataError(f"{path}: its content is not what {INDEX_SUM} says")
    try:
        values = json.loads(content)
        if isinstance(values, dict) and values.get("version", 1) != 1:
            raise InputError(
                f"is of version {values['version']} of the format; this program reads version 1",
                path=path,
                remedy="use the version of replisome that wrote it",
            )
        return Index.model_validate(values)
    except InputError:
        raise
    except ValueError as error:
        raise CorruptDataError(f"{path}: not the index of a checkpoint: {error}") from error


def write_flushed(path: Path, content: bytes) -> None:
    """Write a small file so that it appears whole, flushed to the disk."""
    partial = path.with_name(f".{path.name}.part")
    with partial.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    partial.replace(path)


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def merge_parts(
    step: int,
    layers: Sequence[str],
    parts: Sequence[Sequence[FileRecord]],
    progress: Mapping[str, Any],
) -> Index:
    """Put together what all workers wrote, and make sure that it is a whole checkpoint.

    Args:
        step: optimizer steps taken.
        layers: names of all layers.
        parts: the files of each worker, by rank.
        progress: of the training loop.

    Raises:
        ValueError: two workers wrote one file, or nobody wrote the weights of a layer.
    """
    writers: dict[str, int] = {}
    for rank, part in enumerate(parts):
        for record in part:
            if record.name in writers:
                raise ValueError(
                    f"{record.name}: workers {writers[record.name]} and {rank} wrote it"
                )
            writers[record.name] = rank
    for number, name in enumerate(layers):
        if weights_file(number, name) not in writers:
            raise ValueError(f"no worker wrote the weights of layer {number} ({name})")
    files = sorted((record for part in parts for record in part), key=lambda record: record.name)
    return Index(step=step, layers=tuple(layers), files=tuple(files), progress=dict(progress))


def _sum_line(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {INDEX}\n".encode()
