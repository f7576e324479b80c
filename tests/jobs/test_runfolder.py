from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from jobs.configure import configure
from jobs.runfolder import create_run_folder


def test_a_run_has_its_own_folder_and_a_telling_name(tmp_path: Path) -> None:
    one = create_run_folder(tmp_path / "runs", "danq", None, "small")
    two = create_run_folder(tmp_path / "runs", "danq", None, "small")
    assert one.path != two.path
    assert one.path.parent == (tmp_path / "runs" / "danq").resolve()
    assert one.name.startswith("small-")
    assert {path.name for path in one.path.iterdir()} == {"figures", "log", "checkpoints"}


def test_a_name_that_is_taken_or_no_name_is_refused(tmp_path: Path) -> None:
    create_run_folder(tmp_path, "danq", "mine", "small")
    with pytest.raises(InputError, match="a run of that name exists"):
        create_run_folder(tmp_path, "danq", "mine", "small")
    for name in ("../up", "a b", ".hidden", ""):
        with pytest.raises(InputError, match="is not a name"):
            create_run_folder(tmp_path, "danq", name, "small")


def test_the_config_that_is_written_can_be_given_to_train(tmp_path: Path) -> None:
    flags = {"size": "small", "seed": 3, "optimizer": {"name": "sgd", "lr": 0.2}}
    config = configure("danq", None, flags)
    folder = create_run_folder(tmp_path, "danq", "mine", "small")
    folder.write_config(config)
    assert configure("danq", folder.path / "config.toml", {}) == config
