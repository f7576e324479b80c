"""Runs the contenders of a group against each other: a process each, a slice each a round."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.reading.task import Contender, Task

ROOT = Path(__file__).resolve().parents[2]
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

# glibc gives freed memory back, and faults it in anew, or keeps it, as the heap happens to lie:
# the same gather then takes one time or three. Everybody is told to keep it.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}


@dataclass
class Outcome:
    """What came out for one contender.

    Attributes:
        name: of the contender.
        how: what it does.
        ours: it is data_shards.
        form: how it gives sequences.
        threads: "one" (pinned to a core) or "many".
        versions: of the packages that gave it.
        excluded: why there are no numbers.
        slices: for each round units, seconds of CPU and seconds by the clock.
    """

    name: str
    how: str
    ours: bool
    form: str
    threads: str
    versions: dict[str, str] = field(default_factory=dict)
    excluded: str | None = None
    slices: list[dict[str, float]] = field(default_factory=list)

    def content(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


class ContenderError(Exception):
    """A contender gave no answer; says why."""


class Host:
    """The process of one contender.

    Args:
        python: interpreter of its environment.
        task: what is asked.
        contender: who is asked.
        core: that a contender with one thread is pinned to.
    """

    def __init__(self, python: Path, task: Task, contender: Contender, core: int) -> None:
        environment = {**os.environ, **_KEEP_MEMORY, "PYTHONDONTWRITEBYTECODE": "1"}
        if contender.threads == "one":
            environment |= dict.fromkeys(_ONE_THREAD, "1")
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        arguments = (task.group, contender.name, str(task.folder), task.sizes.name, str(core))
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmarks.reading.worker", *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            bufsize=1,
        )

    def ask(self, request: dict[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request, wait for the reply.

        Raises:
            ContenderError: the process says why it can't, has died, or is silent for too long.
        """
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            stdin.write(json.dumps(request) + "\n")
        except BrokenPipeError:
            raise ContenderError(self._last_words()) from None
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            if not selector.select(timeout):
                self.close()
                raise ContenderError(f"no answer in {timeout:.0f} s")
        line = stdout.readline()
        if not line:
            raise ContenderError(self._last_words())
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise ContenderError(reply["error"])
        return reply

    def close(self) -> None:
        """End the process: in order if it can (shared memory is left behind otherwise)."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            if stream is not None and not stream.closed:
                stream.close()

    def _last_words(self) -> str:
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line.strip() for line in self._errors if line.strip()]
        return f"exit status {code}: {lines[-1] if lines else 'no message'}"


@dataclass(frozen=True)
class Plan:
    """How long everything goes on.

    Attributes:
        rounds: how many are counted.
        seconds: a slice.
        warm_up: seconds before the first round.
        timeout: seconds until a silent contender is given up.
    """

    rounds: int
    seconds: float
    warm_up: float
    timeout: float


def run(
    task: Task,
    entrants: list[tuple[Contender, Path | str]],
    plan: Plan,
    say: Callable[[str], None],
) -> list[Outcome]:
    """Check every contender, then let them read in turns.

    Args:
        task: what is asked.
        entrants: each with its interpreter, or with the reason why it has none.
        plan: how long.
        say: told the progress.
    """
    core = max(os.sched_getaffinity(0))
    outcomes, hosts = [], {}
    for contender, python in entrants:
        outcome = Outcome(
            contender.name, contender.how, contender.ours, contender.form, contender.threads
        )
        outcomes.append(outcome)
        if isinstance(python, str):
            outcome.excluded = python
            continue
        host = Host(python, task, contender, core)
        try:
            reply = host.ask({"do": "check"}, plan.timeout)
            outcome.versions = reply["versions"]
            if reply["fault"]:
                raise ContenderError(f"returns something else: {reply['fault']}")
            host.ask({"do": "slice", "round": 0, "seconds": plan.warm_up}, plan.timeout)
        except ContenderError as failure:
            outcome.excluded = str(failure)
            host.close()
        else:
            hosts[contender.name] = host
        say(f"{task.group}: {contender.name}: {outcome.excluded or 'right'}")
    try:
        _rounds(outcomes, hosts, plan, lambda text: say(f"{task.group}: {text}"))
    finally:
        for host in hosts.values():
            host.close()
    return outcomes


def _rounds(
    outcomes: list[Outcome], hosts: dict[str, Host], plan: Plan, say: Callable[[str], None]
) -> None:
    """Interleave: each round everybody in turn, every other round backwards."""
    for number in range(1, plan.rounds + 1):
        begin = time.perf_counter()
        for outcome in outcomes if number % 2 else reversed(outcomes):
            if outcome.excluded is not None:
                continue
            request = {"do": "slice", "round": number, "seconds": plan.seconds}
            try:
                outcome.slices.append(hosts[outcome.name].ask(request, plan.timeout))
            except ContenderError as failure:
                outcome.excluded = f"in round {number}: {failure}"
                outcome.slices.clear()
        say(f"round {number} of {plan.rounds}, {time.perf_counter() - begin:.0f} s")
