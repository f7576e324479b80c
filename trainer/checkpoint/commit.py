"""How files of many workers become one checkpoint: folders, renames, and who may do it."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import InputError
from trainer.checkpoint.format import FileRecord, flush, step_folder, write_flushed

_ATTEMPT = ".attempt"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_UNFINISHED = re.compile(r"\.step-\d+\.([A-Za-z0-9_-]+)\.(\d+)\.tmp")
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Workplace:
    """The temporary folder of one save, where all workers put their files.

    Attributes:
        folder: the temporary folder.
        target: what it is renamed to once it is whole.
    """

    folder: Path
    target: Path

    def hand_in(self, rank: int, files: Sequence[FileRecord]) -> None:
        """Say that a worker's files are written; they are flushed by then."""
        content = {"files": [file.model_dump(mode="json") for file in files]}
        write_flushed(self.folder / f"rank-{rank}.json", json.dumps(content).encode())

    def give_up(self, rank: int, files: Iterable[str], reason: str) -> None:
        """Remove a worker's files and say that the rest won't come."""
        for name in files:
            (self.folder / name).unlink(missing_ok=True)
        note = self.folder / f"rank-{rank}.failed"
        # The disk may be full, even for a line, or the folder gone: if not even an empty file can
        # be made, the leader finds out by waiting.
        try:
            write_flushed(note, reason.encode())
        except OSError:
            with contextlib.suppress(OSError):
                note.touch()

    def collect(
        self, workers: int, patience: float, stopped: Callable[[], bool]
    ) -> list[list[FileRecord]]:
        """Wait for the files of all workers.

        Args:
            workers: how many there are.
            patience: seconds to wait for them.
            stopped: whether to wait no longer.

        Returns:
            The files of each worker, by rank.

        Raises:
            TimeoutError: some did not come.
            RuntimeError: a worker gave up.
        """
        parts: dict[int, list[FileRecord]] = {}
        end = time.monotonic() + patience
        while True:
            late = time.monotonic() > end or stopped()
            for rank in range(workers):
                if rank not in parts:
                    part = self._handed_in(rank)
                    if part is not None:
                        parts[rank] = part
            if len(parts) == workers:
                return [parts[rank] for rank in range(workers)]
            if late:
                missing = [str(rank) for rank in range(workers) if rank not in parts]
                raise TimeoutError(
                    f"nothing came from worker(s) {', '.join(missing)}; is {self.target.parent} on "
                    "storage that all workers share?"
                )
            time.sleep(_POLL_SECONDS)

    def _handed_in(self, rank: int) -> list[FileRecord] | None:
        """Return a worker's files if they are there, of the sizes they have to be."""
        try:
            reason = (self.folder / f"rank-{rank}.failed").read_text()
        except FileNotFoundError:
            pass
        else:
            raise RuntimeError(f"worker {rank} gave up: {reason or 'no room to say why'}")
        try:
            content = json.loads((self.folder / f"rank-{rank}.json").read_bytes())
        except FileNotFoundError:
            return None
        files = [FileRecord.model_validate(file) for file in content["files"]]
        for file in files:
            size = (self.folder / file.name).stat().st_size
            if size != file.bytes:
                raise RuntimeError(f"{file.name} of worker {rank} has {size:,} bytes")
        return files

    def drop_notes(self) -> None:
        """Remove what workers wrote for the leader only."""
        for path in self.folder.glob("rank-*.json"):
            path.unlink()

    def clear(self) -> None:
        """Remove the folder, whatever is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(frozen=True)
class Attempt:
    """One start of a run's workers, on the folder of its checkpoints.

    A worker that was given up for lost may still write. So the leader of each attempt puts its
    name into the folder, and adds or removes nothing once another name is there.

    Attributes:
        folder: of the checkpoints.
        name: of letters, digits, - and _.

    Raises:
        InputError: the name has other characters.
    """

    folder: Path
    name: str

    def __post_init__(self) -> None:
        """Check the name, which becomes part of file names."""
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"attempt {self.name!r} can't be part of a file name",
                remedy="use letters, digits, - and _",
            )

    def workplace(self, step: int, number: int) -> Workplace:
        """Return the place of this attempt's save of that number."""
        name = step_folder(step)
        return Workplace(self.folder / f".{name}.{self.name}.{number}.tmp", self.folder / name)

    def begin(self) -> None:
        """Take over the folder, and put in order what killed attempts left."""
        write_flushed(self.folder / _ATTEMPT, self.name.encode())
        for path in self.folder.glob(".step-*.replaced"):
            target = path.with_name(path.name.removesuffix(".replaced").removeprefix("."))
            if target.exists():
                shutil.rmtree(path)
            else:
                path.rename(target)
        self.sweep(0)

    def sweep(self, number: int) -> None:
        """Remove unfinished saves: those of other attempts, and this one's before a number."""
        for path in self.folder.glob(".step-*"):
            match = _UNFINISHED.fullmatch(path.name)
            mine = match is not None and match[1] == self.name and int(match[2]) >= number
            if not mine:
                shutil.rmtree(path, ignore_errors=True)

    def publish(self, place: Workplace) -> None:
        """Make a save count; one of the same step is replaced.

        Raises:
            RuntimeError: another attempt has taken over the folder.
        """
        self._check_owner()
        before = place.target.with_name(f".{place.target.name}.replaced")
        if place.target.exists():
            shutil.rmtree(before, ignore_errors=True)
            place.target.rename(before)
        place.folder.rename(place.target)
        flush(self.folder)
        shutil.rmtree(before, ignore_errors=True)

    def remove(self, step: int) -> None:
        """Remove a checkpoint; at no time is half of one under its name.

        Raises:
            RuntimeError: another attempt has taken over the folder.
        """
        self._check_owner()
        path = self.folder / step_folder(step)
        aside = path.with_name(f".{path.name}.removed")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        shutil.rmtree(aside)

    def _check_owner(self) -> None:
        owner = (self.folder / _ATTEMPT).read_text()
        if owner != self.name:
            raise RuntimeError(
                f"attempt {owner!r} has taken over {self.folder}; {self.name!r} adds nothing to it"
            )
