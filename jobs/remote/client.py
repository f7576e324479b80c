"""Ray's Jobs API, as ``replisome`` uses it: with a token, and a log that does not tear off."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shlex
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_shards.errors import InputError
from jobs.remote.package import Package

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

COMMAND, LABEL = "replisome.command", "label."
"""Keys of a job's metadata."""

JOB_VARIABLE = "REPLISOME_JOB"
"""Environment variable that tells a command which job it is."""

_ENDED = ("SUCCEEDED", "FAILED", "STOPPED")
_STOP_SECONDS = 90  # that a command gets to save and leave before it is killed
_PAUSE = 1.0  # seconds until a log that tore off is taken up again
_AGENT = 60.0  # seconds that a cluster may take until it takes jobs
_LOST = 300.0  # seconds without an answer after which following ends


@dataclass(frozen=True)
class Submission:
    """A command for a cluster.

    Attributes:
        words: of the command, as after ``replisome``.
        package: files that travel.
        python: interpreter on the cluster that has replisome.
        environment: variables of the command.
        labels: for people.
        anew: submit it although the same was submitted before.
    """

    words: tuple[str, ...]
    package: Package
    python: str
    environment: Mapping[str, str]
    labels: Mapping[str, str]
    anew: bool

    @property
    def id(self) -> str:
        """Name of the job: the same for the same command on the same files."""
        content = "\0".join([self.package.digest, self.python, *self.words])
        return f"replisome-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    @property
    def entrypoint(self) -> str:
        """The command for a shell, every word quoted."""
        return " ".join(shlex.quote(word) for word in (self.python, "-m", "jobs", *self.words))


class Jobs:
    """The jobs of a cluster.

    Args:
        address: of the dashboard, ``http://host:8265``.

    Raises:
        InputError: nothing answers there, or the token is wrong.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        use_token()
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        try:
            self._client: JobSubmissionClient = JobSubmissionClient(address)
            self._client.list_jobs()
        except (ConnectionError, RuntimeError, AuthenticationError) as error:
            raise _explained(address, error) from None

    def submit(self, submission: Submission) -> str:
        """Send a command; returns the job's id.

        Raises:
            InputError: the same was submitted before.
        """
        known = {job.submission_id for job in self._client.list_jobs() if job.submission_id}
        name = submission.id
        if name in known:
            if not submission.anew:
                state = self._client.get_job_status(name).value.lower()
                raise InputError(
                    f"the same command on the same files was submitted before: {name}, {state}",
                    remedy="say --again to submit it all the same",
                )
            name = next(f"{name}-{n}" for n in range(2, 10_000) if f"{name}-{n}" not in known)
        metadata = {COMMAND: "replisome " + shlex.join(submission.words)}
        metadata |= {LABEL + key: value for key, value in submission.labels.items()}
        with tempfile.TemporaryDirectory(prefix="replisome-job-") as folder:
            submission.package.stage(Path(folder))
            travels = {"working_dir": folder} if submission.package.files else {}
            environment = {
                **submission.environment,
                JOB_VARIABLE: name,
                "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS),
            }
            self._send(
                entrypoint=submission.entrypoint,
                submission_id=name,
                runtime_env={**travels, "env_vars": environment},
                metadata=metadata,
            )
        return name

    def _send(self, **job: Any) -> None:
        """Submit a job; a cluster that has just started takes some seconds until it takes any."""
        deadline = time.monotonic() + _AGENT
        while True:
            try:
                self._client.submit_job(**job)
            except RuntimeError as error:
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                return

    def list(self) -> list[dict[str, Any]]:
        """Return the jobs that were submitted, the newest first, as plain values."""
        jobs = [_plain(job) for job in self._client.list_jobs() if job.submission_id]
        return sorted(jobs, key=lambda job: -(job["started"] or 0))

    def get(self, job: str) -> dict[str, Any]:
        """Return a job as plain values.

        Raises:
            InputError: there is none of that name.
        """
        try:
            return _plain(self._client.get_job_info(job))
        except RuntimeError:
            known = ", ".join(found["id"] for found in self.list()[:5]) or "none"
            raise InputError(
                f"there is no job {job!r} on {self.address}", remedy=f"the last ones: {known}"
            ) from None

    def log(self, job: str) -> str:
        """Return what a job has said so far."""
        self.get(job)
        return str(self._client.get_job_logs(job))

    def follow(self, job: str, write: Callable[[str], object]) -> dict[str, Any]:
        """Write a job's log as it comes, until the job has ended; return it then.

        Ray's stream may tear off while the job runs; it is taken up again where it ended.
        """
        log, answered = _Log(write), time.monotonic()
        while True:
            with contextlib.suppress(Exception):  # the stream ended, one way or another
                asyncio.run(self._tail(job, log))
            try:
                found = self.get(job)
                answered = time.monotonic()
            except (ConnectionError, RuntimeError):
                if time.monotonic() - answered > _LOST:
                    raise
                time.sleep(_PAUSE)
                continue
            if found["state"] in _ENDED:
                log.begin()
                log.take(self.log(job))
                return found
            time.sleep(_PAUSE)

    def wait(self, job: str) -> dict[str, Any]:
        """Wait until a job has ended; return it."""
        while (found := self.get(job))["state"] not in _ENDED:
            time.sleep(_PAUSE)
        return found

    def stop(self, job: str) -> bool:
        """Ask a job to save and leave; return whether it was at work."""
        self.get(job)
        return bool(self._client.stop_job(job))

    async def _tail(self, job: str, log: _Log) -> None:
        log.begin()
        lines: AsyncIterator[str] = self._client.tail_job_logs(job)
        async for text in lines:
            log.take(text)


class _Log:
    """Writes a text once, although it is told from its beginning again and again."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._written = self._seen = 0

    def begin(self) -> None:
        """Expect the text from its beginning."""
        self._seen = 0

    def take(self, text: str) -> None:
        """Take the next piece."""
        fresh = text[max(0, self._written - self._seen) :]
        self._seen += len(text)
        if self._seen > self._written:
            self._write(fresh)
            self._written = self._seen


def exit_status(job: Mapping[str, Any]) -> int:
    """Return the exit status of a job's command; 1 where it has none of its own."""
    if job["state"] == "SUCCEEDED":
        return 0
    if job["state"] == "STOPPED":
        return 130
    return int(job["exit"] or 1)


def use_token() -> None:
    """Have Ray authenticate if there is a token; Ray's client does not look for one by itself."""
    if "RAY_AUTH_MODE" in os.environ:
        return
    named = {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ)
    if named or (Path.home() / ".ray" / "auth_token").is_file():
        os.environ["RAY_AUTH_MODE"] = "token"


def read_labels(texts: Sequence[str]) -> dict[str, str]:
    """Read labels, KEY=VALUE each.

    Raises:
        InputError: one has no "=".
    """
    labels = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise InputError(f"--label {text!r} is not KEY=VALUE", remedy="say: --label team=x")
        labels[key] = value
    return labels


def _plain(job: Any) -> dict[str, Any]:
    metadata = dict(job.metadata or {})
    return {
        "id": job.submission_id,
        "state": str(getattr(job.status, "value", job.status)),
        "command": metadata.pop(COMMAND, job.entrypoint),
        "labels": {
            key.removeprefix(LABEL): value
            for key, value in metadata.items()
            if key.startswith(LABEL)
        },
        "started": None if job.start_time is None else job.start_time / 1000,
        "ended": None if not job.end_time else job.end_time / 1000,
        "exit": job.driver_exit_code,
        "message": job.message,
    }


def _explained(address: str, error: Exception) -> InputError:
    text = str(error)
    if "401" in text or "403" in text or "nauthori" in text or "orbidden" in text:
        return InputError(
            f"{address} does not accept the token" if "403" in text else f"{address} wants a token",
            remedy="set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH, to the cluster's token",
        )
    return InputError(
        f"no Ray dashboard answers at {address}: {text.splitlines()[0][:200]}",
        remedy="name it as http://HOST:8265 with --address, or a profile's",
    )
