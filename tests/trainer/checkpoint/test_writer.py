"""Saving in the background: what counts, what doesn't, and what goes wrong without harm."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

import trainer.checkpoint.writer as module
from data_shards.errors import InputError
from tests.trainer.checkpoint.networks import (
    network,
    optimizer_of,
    saved,
    states_of,
    train,
    writer_of,
)
from trainer.checkpoint.commit import Attempt, Workplace
from trainer.checkpoint.format import saved_steps, step_folder
from trainer.checkpoint.reader import Checkpoint, find_latest
from trainer.checkpoint.snapshot import LayerState
from trainer.checkpoint.writer import CheckpointWriter


def trained(step: int) -> list[LayerState]:
    net = network(0)
    optimizer = optimizer_of("adamw", list(net.parameters()))
    train(net, optimizer, range(step))
    return states_of(net, optimizer)


STATES = trained(2)
"""Enough where it does not matter what is saved."""


def ended(writer: CheckpointWriter) -> list[str]:
    assert writer.wait(60)
    return writer.faults()


def hidden(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(".step"))


def is_whole(folder: Path, step: int) -> bool:
    Checkpoint.open(folder / step_folder(step)).verify()
    return True


@contextmanager
def held_back(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let no file be written before the event."""
    go, write = threading.Event(), module.save_file

    def wait_and_write(tensors: dict[str, Tensor], path: Path, names: object) -> None:
        go.wait()
        write(tensors, path, names)

    with monkeypatch.context() as patch:
        patch.setattr(module, "save_file", wait_and_write)
        try:
            yield go
        finally:
            go.set()


def refuse(monkeypatch: pytest.MonkeyPatch, error: Exception, which: str) -> None:
    """Let writing a file fail half way."""
    write = module.save_file

    def write_half(tensors: dict[str, Tensor], path: Path, names: object) -> None:
        if which in str(path):
            path.write_bytes(b"half")
            raise error
        write(tensors, path, names)

    monkeypatch.setattr(module, "save_file", write_half)


def test_training_goes_on_while_a_checkpoint_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(tmp_path)
    with held_back(monkeypatch) as go:
        writer.save(1, STATES)
        assert not writer.wait(0)
        assert saved_steps(tmp_path) == []
        go.set()
    assert ended(writer) == []
    assert is_whole(tmp_path, 1)
    assert hidden(tmp_path) == []


class Clock:
    """Time that passes when it is told to; counts how often it was looked at."""

    def __init__(self) -> None:
        self.now = 0.0
        self.looks = 0

    def perf_counter(self) -> float:
        self.looks += 1
        return self.now


def test_a_save_waits_for_the_one_before_and_tells_how_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, clock = writer_of(tmp_path), Clock()
    monkeypatch.setattr(module, "time", clock)
    there: list[list[int]] = []

    def save_again() -> None:
        writer.save(2, STATES)
        there.append(saved_steps(tmp_path))

    with held_back(monkeypatch) as go:
        writer.save(1, STATES)
        second = threading.Thread(target=save_again)
        second.start()
        while clock.looks < 4:  # twice to find nothing to wait for, once to begin; now it waits
            threading.Event().wait(0.001)
        assert second.is_alive()
        clock.now = 7.0
        go.set()
        second.join()
    assert 1 in there[0]
    assert ended(writer) == []
    first, last = writer.reports()
    assert (first.step, first.stalled, first.write) == (1, 0.0, 7.0)
    assert (last.step, last.stalled, last.write) == (2, 7.0, 0.0)
    written = (tmp_path / step_folder(1)).glob("layer-*")
    assert first.bytes == sum(path.stat().st_size for path in written)
    assert writer.reports() == []


def test_buffers_are_given_out_only_when_nobody_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = network(0)
    optimizer = optimizer_of("momentum", list(net.parameters()))
    writer = writer_of(tmp_path)

    def take(step: int) -> None:
        writer.save(step, states_of(net, optimizer, buffers=writer.buffers()), {"step": step})

    def go_on() -> None:
        train(net, optimizer, range(1))
        take(2)

    first = {key: value.clone() for key, value in net.state_dict().items()}
    with held_back(monkeypatch) as go:
        take(1)
        second = threading.Thread(target=go_on)
        second.start()
        second.join(0.1)
        assert second.is_alive()
        go.set()
        second.join()
    assert ended(writer) == []
    for step, weights in ((1, first), (2, net.state_dict())):
        checkpoint = Checkpoint.open(tmp_path / step_folder(step))
        with checkpoint.weights(5) as file:
            assert torch.equal(file.tensor("param/weight"), weights["5.weight"])
        assert checkpoint.progress == {"step": step}
    assert all(report.snapshot > 0 for report in writer.reports())


def test_all_workers_make_one_checkpoint(tmp_path: Path) -> None:
    writers = [writer_of(tmp_path, rank=rank, workers=3) for rank in range(3)]
    for rank in (2, 0, 1):
        writers[rank].save(7, STATES[2 * rank : 2 * rank + 2], {"rank": rank})
    assert [ended(writer) for writer in writers] == [[], [], []]
    assert is_whole(tmp_path, 7)
    assert Checkpoint.open(tmp_path / step_folder(7)).progress == {"rank": 0}
    assert hidden(tmp_path) == []


def test_all_files_are_on_the_disk_before_a_checkpoint_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: set[str] = set()
    at_publishing: set[str] = set()
    publish = Attempt.publish

    def record(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        flushed.add(path.name.removeprefix(".").removesuffix(".part"))

    def publish_and_look(self: Attempt, place: Workplace) -> None:
        at_publishing.update(flushed)
        flushed.clear()
        publish(self, place)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(Attempt, "publish", publish_and_look)
    writer = writer_of(tmp_path)
    writer.save(1, STATES)
    assert ended(writer) == []
    written = {path.name for path in (tmp_path / step_folder(1)).iterdir()}
    assert written | {"step-00000001.a.1.tmp"} <= at_publishing
    assert flushed == {tmp_path.name}


def test_a_worker_that_never_comes_is_named(tmp_path: Path) -> None:
    writer = writer_of(tmp_path, workers=3, patience=0.05)
    writer_of(tmp_path, rank=1, workers=3).save(7, STATES[:2])
    writer.save(7, STATES[2:])
    [fault] = ended(writer)
    assert "step 7 was not saved" in fault
    assert "worker(s) 2" in fault.replace("1, 2", "2")
    assert saved_steps(tmp_path) == []


def test_files_of_an_earlier_attempt_never_count(tmp_path: Path) -> None:
    earlier = writer_of(tmp_path, rank=1, workers=2, attempt="a")
    earlier.save(7, STATES[3:])
    assert ended(earlier) == []
    assert len(hidden(tmp_path)) == 1
    writer = writer_of(tmp_path, workers=2, attempt="b", patience=0.05)
    assert hidden(tmp_path) == []
    earlier.save(8, STATES[3:])
    assert ended(earlier) == []
    writer.save(8, STATES[:3])
    [fault] = ended(writer)
    assert "worker(s) 1" in fault
    assert saved_steps(tmp_path) == []


def test_a_layer_that_no_worker_wrote_is_a_fault_and_no_checkpoint(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    writer.save(1, STATES[:-1])
    [fault] = ended(writer)
    assert "no worker wrote the weights of layer 5 (head)" in fault
    assert saved_steps(tmp_path) == []
    assert hidden(tmp_path) == []


FULL = [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]
"""What a full disk looks like: of Python, and of safetensors 0.8."""


@pytest.mark.parametrize("error", FULL, ids=["OSError", "SafetensorError"])
def test_a_full_disk_is_told_and_the_next_save_tries_again(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(tmp_path, keep=1)
    writer.save(1, STATES)
    assert ended(writer) == []
    with monkeypatch.context() as patch:
        refuse(patch, error, "layer-03")
        writer.save(2, STATES)
        [fault] = ended(writer)
    assert "step 2 was not saved" in fault
    assert "No space left on device" in fault
    assert saved_steps(tmp_path) == [1]
    assert is_whole(tmp_path, 1)
    assert hidden(tmp_path) == []
    assert writer.faults() == []
    assert [report.saved for report in writer.reports()] == [True, False]
    writer.save(3, STATES)
    assert ended(writer) == []
    assert saved_steps(tmp_path) == [3]


@pytest.mark.parametrize("error", FULL, ids=["OSError", "SafetensorError"])
def test_a_full_disk_of_one_worker_is_known_to_the_leader_at_once(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writers = [writer_of(tmp_path, rank=rank, workers=2, patience=600) for rank in range(2)]
    with monkeypatch.context() as patch:
        refuse(patch, error, "layer-04")
        for rank, writer in enumerate(writers):
            writer.save(2, STATES[3 * rank : 3 * rank + 3])
        faults = [ended(writer) for writer in writers]
    assert "worker 1 gave up" in faults[0][0]
    assert all("No space left on device" in fault for [fault] in faults)
    assert saved_steps(tmp_path) == []
    for rank, writer in enumerate(writers):
        writer.save(3, STATES[3 * rank : 3 * rank + 3])
    assert [ended(writer) for writer in writers] == [[], []]
    assert is_whole(tmp_path, 3)
    assert hidden(tmp_path) == []


def test_a_disk_that_is_full_at_the_index_harms_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(tmp_path)
    writer.save(1, STATES)
    assert ended(writer) == []

    def refuse_index(folder: Path, index: object) -> None:
        raise FULL[0]

    monkeypatch.setattr(module, "write_index", refuse_index)
    writer.save(2, STATES)
    [fault] = ended(writer)
    assert "No space left" in fault
    assert saved_steps(tmp_path) == [1]
    assert hidden(tmp_path) == []


KILLED = """
import os, sys
from pathlib import Path
import trainer.checkpoint.writer as module
import trainer.checkpoint.commit as commit
from tests.trainer.checkpoint.networks import network, optimizer_of, states_of, writer_of
net = network(0)
writer = writer_of(Path(sys.argv[1]), attempt="killed", keep=1)
def die(*_, **__):
    os._exit(9)
where = sys.argv[2]
if where == "file":
    module.FileRecord = die
elif where == "index":
    module.write_index = die
elif where == "publish":
    commit.Attempt.publish = die
elif where == "replace":
    commit.flush = die
elif where == "remove":
    commit.shutil.rmtree = die
writer.save(int(sys.argv[3]), states_of(net, optimizer_of("sgd", list(net.parameters()))))
writer.close(60)
print(writer.faults())
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "step", "newest"),
    [("file", 5, 3), ("index", 5, 3), ("publish", 5, 3), ("replace", 5, 5), ("remove", 5, 5)],
)
def test_a_writer_killed_at_any_moment_leaves_a_good_checkpoint_and_no_half_one(
    where: str, step: int, newest: int, tmp_path: Path
) -> None:
    saved(tmp_path, step=3)
    command = [sys.executable, "-c", KILLED, str(tmp_path), where, str(step)]
    root = Path(__file__).resolve().parents[3]
    ran = subprocess.run(command, cwd=root, check=False, capture_output=True, text=True)
    assert ran.returncode == 9, ran.stdout + ran.stderr
    notes: list[str] = []
    found = find_latest(tmp_path, notes.append)
    assert found is not None
    assert (found.step, notes) == (newest, [])
    writer = writer_of(tmp_path, attempt="next", keep=1)
    writer.save(6, STATES)
    assert ended(writer) == []
    assert saved_steps(tmp_path) == [6]
    assert hidden(tmp_path) == []


def test_a_worker_given_up_for_lost_adds_and_removes_nothing(tmp_path: Path) -> None:
    lost = writer_of(tmp_path, attempt="lost", keep=1)
    lost.save(1, STATES)
    assert ended(lost) == []
    writer = writer_of(tmp_path, attempt="new", keep=1)
    lost.save(2, STATES)
    [fault] = ended(lost)
    assert "'new' has taken over" in fault
    assert saved_steps(tmp_path) == [1]
    assert hidden(tmp_path) == []
    writer.save(2, STATES)
    assert ended(writer) == []
    assert saved_steps(tmp_path) == [2]


def test_two_leaders_on_one_folder_at_once_leave_one_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = writer_of(tmp_path, attempt="a"), writer_of(tmp_path, attempt="b")
    with held_back(monkeypatch) as go:
        first.save(4, STATES, {"from": "a"})
        second.save(4, STATES, {"from": "b"})
        go.set()
    assert ended(second) == []
    assert ended(first) != []
    assert is_whole(tmp_path, 4)
    assert Checkpoint.open(tmp_path / step_folder(4)).progress == {"from": "b"}


def test_a_step_saved_again_replaces_what_was_there(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    for text in ("first", "second"):
        writer.save(4, STATES, {"text": text})
        assert ended(writer) == []
    assert Checkpoint.open(tmp_path / step_folder(4)).progress == {"text": "second"}
    assert is_whole(tmp_path, 4)
    assert hidden(tmp_path) == []


def test_a_checkpoint_that_was_about_to_be_replaced_comes_back(tmp_path: Path) -> None:
    folder = saved(tmp_path, step=4).folder
    folder.rename(tmp_path / f".{folder.name}.replaced")  # as a kill between two renames leaves it
    Attempt(tmp_path, "next").begin()
    assert saved_steps(tmp_path) == [4]
    assert is_whole(tmp_path, 4)
    assert hidden(tmp_path) == []


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    writer = writer_of(tmp_path, keep=2)
    best = 0
    for step in range(1, 7):
        best = step if step in (2, 3) else best
        writer.save(step, STATES, best={best} if best else ())
        assert ended(writer) == []
    assert saved_steps(tmp_path) == [3, 5, 6]


def test_the_best_of_before_stays_until_the_new_best_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(tmp_path, keep=1)
    writer.save(1, STATES, best={1})
    assert ended(writer) == []
    with monkeypatch.context() as patch:
        refuse(patch, FULL[0], "layer-00")
        writer.save(2, STATES, best={2})
        assert len(ended(writer)) == 1
    for step in (3, 4):
        writer.save(step, STATES, best={2})
        assert ended(writer) == []
    assert saved_steps(tmp_path) == [1, 4]
    writer.save(5, STATES, best={5})
    assert ended(writer) == []
    assert saved_steps(tmp_path) == [5]


def test_old_checkpoints_that_cannot_be_removed_are_a_fault_and_the_new_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = writer_of(tmp_path, keep=1)
    writer.save(1, STATES)
    assert ended(writer) == []

    def refuse_removal(self: Attempt, step: int) -> None:
        raise PermissionError(f"step {step} is held")

    monkeypatch.setattr(Attempt, "remove", refuse_removal)
    writer.save(2, STATES)
    assert ended(writer) == ["old checkpoints were not removed: step 1 is held"]
    assert saved_steps(tmp_path) == [1, 2]
    assert [report.saved for report in writer.reports()] == [True, True]


def test_closing_ends_a_wait_that_leads_nowhere(tmp_path: Path) -> None:
    writer = writer_of(tmp_path, workers=2, patience=600)
    writer.save(1, STATES)
    assert not writer.close(0.05)
    assert any("not written within 0.05 s" in fault for fault in ended(writer))
    assert saved_steps(tmp_path) == []
    assert hidden(tmp_path) == []


def test_closing_without_a_save_is_fine(tmp_path: Path) -> None:
    assert writer_of(tmp_path).close(0)


def test_progress_that_is_not_plain_is_refused_where_it_is_given(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    with pytest.raises(ValueError, match="plain JSON"):
        writer.save(1, STATES, {"loss": float("nan")})
    assert writer.close(0)


def test_names_that_cannot_be_file_names_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'\.\./x'"):
        writer_of(tmp_path, layers=["../x"])
    with pytest.raises(InputError, match=r"attempt 'a\.b'"):
        writer_of(tmp_path, attempt="a.b")
