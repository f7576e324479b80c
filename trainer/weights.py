"""Weights on disk, addressed by layer: whoever cut the network, anyone can read it whole.

A folder holds one safetensors file a layer, ``layer-03-lstm.safetensors``, and ``index.json`` with
the layers' names, sizes and checksums. It appears at once, by rename, when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch import nn

from data_shards.errors import CorruptDataError
from data_shards.store.manifest import checksums

INDEX = "index.json"


def layer_file(index: int, name: str) -> str:
    """Return the file name of a layer."""
    return f"layer-{index:02d}-{name}.safetensors"


def save_weights(
    folder: Path,
    names: Sequence[str],
    local: Sequence[tuple[int, nn.Module]],
    *,
    writer: bool,
    about: dict[str, object],
) -> None:
    """Save a network; every worker calls this, those of the first replica write their layers.

    Args:
        folder: where; must not exist. On storage that all workers share.
        names: of all layers of the network.
        local: (index, module) of this worker's layers.
        writer: whether this worker writes: one a stage.
        about: kept in the index, to say what the weights are.
    """
    temporary = folder.with_name(f".{folder.name}.tmp")
    leader = dist.get_rank() == 0
    if leader:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    dist.barrier()
    if writer:
        for index, module in local:
            tensors = {
                name: t.detach().cpu().contiguous() for name, t in module.state_dict().items()
            }
            save_file(tensors, temporary / layer_file(index, names[index]))
    dist.barrier()
    if leader:
        files = {}
        for index, name in enumerate(names):
            size, crc, sha = checksums(temporary / layer_file(index, name))
            files[layer_file(index, name)] = {"bytes": size, "crc32c": crc, "sha256": sha}
        text = json.dumps({"layers": list(names), "files": files, **about}, indent=2)
        with (temporary / INDEX).open("w") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.rename(folder)
    dist.barrier()


def load_weights(
    folder: Path, names: Sequence[str], local: Sequence[tuple[int, nn.Module]]
) -> None:
    """Load the weights of some layers of a network, after verifying their checksums.

    Args:
        folder: what :func:`save_weights` wrote.
        names: of all layers of the network.
        local: (index, module) of the layers to fill.

    Raises:
        CorruptDataError: a file is missing or changed, or belongs to another network.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError) as error:
        raise CorruptDataError(f"{folder / INDEX}: can't be read: {error}") from error
    if index["layers"] != list(names):
        raise CorruptDataError(
            f"{folder}: holds layers {index['layers']}, the network has {list(names)}"
        )
    for number, module in local:
        name = layer_file(number, names[number])
        path = folder / name
        if not path.is_file() or checksums(path)[1] != index["files"][name]["crc32c"]:
            raise CorruptDataError(f"{path}: missing or changed since it was written")
        module.load_state_dict(load_file(path), strict=True)
