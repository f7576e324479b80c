from __future__ import annotations

from pathlib import Path

import pytest

from trainer import system
from trainer.events import EventReader
from trainer.system import SystemSampler, file_name


def test_the_first_worker_of_a_node_samples_and_others_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "log").mkdir()
    monkeypatch.setattr(system, "_INTERVAL", 0.05)
    monkeypatch.setenv("NODE_RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with SystemSampler.on_first_worker_of_node(tmp_path):
        pass
    assert not list((tmp_path / "log").iterdir())
    monkeypatch.setenv("LOCAL_RANK", "0")
    with SystemSampler.on_first_worker_of_node(tmp_path) as sampler:
        sampler._thread.join(timeout=1.4)
    events = list(EventReader(tmp_path / "log" / file_name(0)).new())
    assert len(events) >= 2
    assert [event.step for event in events] == list(range(len(events)))
    assert 0 < events[0].values["system/system_memory_usage_percentage"] < 100
