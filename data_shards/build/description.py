"""The description of a data set, of whichever kind it is."""

from __future__ import annotations

from pathlib import Path

from data_shards.build.rows_spec import RowsSpec
from data_shards.build.windows_spec import WindowsSpec
from data_shards.documents import parse, read_toml
from data_shards.errors import InputError


def read_description(path: Path) -> WindowsSpec | RowsSpec:
    """Read and check a description; its ``kind`` is "windows" (the default) or "rows".

    Raises:
        InputError: the file is missing, is no TOML, or a key or value is wrong.
    """
    remedy = "describe the data set in it (docs/data.md shows how), or name another with --spec"
    values = read_toml(path, remedy=remedy)
    kind = values.get("kind", "windows")
    if kind == "rows":
        return parse(RowsSpec, values, path)
    if kind == "windows":
        return parse(WindowsSpec, values, path)
    raise InputError(f"kind = {kind!r}", path=path, remedy='write kind = "windows" or "rows"')
