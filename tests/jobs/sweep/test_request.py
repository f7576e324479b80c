"""From a command line to a sweep that makes sense, or a message that says why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_shards.errors import InputError
from jobs.sweep.folder import SweepIdentity
from jobs.sweep.request import Wish, make_request, objectives, storage_again


def wish(data: Path, runs: Path, **changes: Any) -> Wish:
    plain: dict[str, Any] = {
        "recipe": "danq", "data": str(data), "config": None, "given": {"size": "small"},
        "space": None, "members": None, "objectives": (), "sampler": None, "pruner": None,
        "seed": None, "trials": 5, "seconds": None, "worker_seconds": None, "slots": 1,
        "retries": 1, "halve": False, "keep": "best", "storage": None, "runs": runs,
        "experiment": None, "name": "s", "resume": None,
    }  # fmt: skip
    return Wish(**{**plain, **changes})


def test_a_sweep_has_a_study_of_its_own_recipe_and_data(tiny_data: Path, tmp_path: Path) -> None:
    given = {"size": "small", "batch_size": 20}
    request = make_request(wish(tiny_data, tmp_path, given=given))
    fingerprint = request.data.attributes.fingerprint
    assert request.study == f"danq-{fingerprint[:12]}-s"
    assert request.storage == f"sqlite:///{tmp_path / 'danq' / 's' / 'study.db'}"
    assert request.config.baselines is False
    assert list(request.plan.space) == [
        "optimizer.lr",
        "batch_size",
        "optimizer.momentum",
        "optimizer.weight_decay",
    ]
    assert request.plan.space["batch_size"]["choices"] == [5, 10, 20, 40], "40 samples to train on"


def test_the_objective_says_which_epoch_is_best(tiny_data: Path, tmp_path: Path) -> None:
    given = {"size": "small", "batch_size": 20}
    request = make_request(wish(tiny_data, tmp_path, given=given, objectives=("auroc", "seconds")))
    assert request.config.monitor == "auroc"
    assert request.plan.pruner == "none"
    with pytest.raises(InputError, match="goes with a single objective"):
        make_request(
            wish(tiny_data, tmp_path, given=given, objectives=("loss", "aupr"), pruner="median")
        )
    with pytest.raises(InputError, match="--objective 'acc' is none"):
        objectives(["acc"])


def test_members_are_seeds_or_tables(tiny_data: Path, tmp_path: Path) -> None:
    given = {"size": "small", "batch_size": 20, "seed": 3}
    request = make_request(wish(tiny_data, tmp_path, given=given, members="seeds=3", trials=None))
    assert request.plan.members == ({"seed": 3}, {"seed": 4}, {"seed": 5})
    assert request.budget.trials == 3
    assert request.keep == "all"
    file = tmp_path / "members.toml"
    file.write_text('[[member]]\n"optimizer.lr" = 0.1\n[[member]]\n"optimizer.lr" = -1\n')
    with pytest.raises(InputError, match=r"members.toml, member 2: optimizer.lr = -1"):
        make_request(wish(tiny_data, tmp_path, given=given, members=str(file), name="t"))
    for text in ("seeds=0", "seeds=x"):
        with pytest.raises(InputError, match="no number of seeds"):
            make_request(wish(tiny_data, tmp_path, given=given, members=text, name="u"))


def test_what_is_missing_is_told_before_a_folder_is_made(tiny_data: Path, tmp_path: Path) -> None:
    given = {"size": "small", "batch_size": 20}
    with pytest.raises(InputError, match="nothing says when to stop"):
        make_request(wish(tiny_data, tmp_path, given=given, trials=None))
    with pytest.raises(InputError, match="a recipe and --data are needed"):
        make_request(wish(tiny_data, tmp_path, recipe=None))
    with pytest.raises(InputError, match="fewer than one batch"):
        make_request(wish(tiny_data, tmp_path))
    with pytest.raises(InputError, match="--slots 0 is none"):
        make_request(wish(tiny_data, tmp_path, slots=0))
    with pytest.raises(InputError, match="no sweep is called 'gone'"):
        make_request(wish(tiny_data, tmp_path, resume="gone"))
    assert not (tmp_path / "danq").exists()


def test_a_password_is_asked_for_again_and_another_database_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("REPLISOME_STORAGE", raising=False)
    url = "postgresql://ann:secret@db/x"
    identity = SweepIdentity.new("study", url)
    with pytest.raises(InputError, match="its password is not kept"):
        storage_again(None, identity)
    assert storage_again(url, identity) == url
    monkeypatch.setenv("REPLISOME_STORAGE", url)
    assert storage_again(None, identity) == url
    with pytest.raises(InputError, match="not in postgresql"):
        storage_again("postgresql://ann:secret@other/x", identity)
