"""Ray clusters for tests: with a token, on ports of their own, and gone afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

RAY = Path(sys.executable).with_name("ray")


@dataclass(frozen=True)
class RayHead:
    """A head that `ray start` started.

    Attributes:
        address: for `RAY_ADDRESS`.
        dashboard: for Ray's Jobs API.
        environment: with the token, for those who join.
        process: of `ray start`.
    """

    address: str
    dashboard: str
    environment: dict[str, str]
    process: subprocess.Popen[bytes]

    def status(self) -> str:
        """Return what `ray status` says; nothing until the head answers."""
        done = subprocess.run(
            [RAY, "status", "--address", self.address],
            env=self._server,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.stdout if done.returncode == 0 else ""

    def until(self, text: str) -> None:
        """Wait until the status has a text."""
        deadline = time.monotonic() + 180
        while text not in self.status():
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.3)

    def node(
        self, cpus: int, *words: str, before: str = ""
    ) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        """Add a node, for as long as a block runs.

        Args:
            cpus: that it has.
            words: more of `ray start`.
            before: shell commands in a mount namespace of the node's own; none for no namespace.
        """
        start = [str(RAY), "start", "--block", "--address", self.address, "--num-cpus", str(cpus)]
        start += ["--dashboard-agent-listen-port", "0", *words]
        if before:
            start = ["unshare", "-m", "sh", "-c", f"{before} && exec {shlex.join(start)}"]
        return running(start, self._server)

    @property
    def _server(self) -> dict[str, str]:
        return self.environment | {"RAY_AUTH_MODE": "token"}


@contextlib.contextmanager
def ray_head(cpus: int = 2) -> Iterator[RayHead]:
    """Start a head; the caller waits until it answers."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="rpl-", dir="/tmp") as scratch:
        environment = plain | {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": scratch,
            "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": scratch,  # a token in the real one is nobody's here
            "OMP_NUM_THREADS": "1",
        }
        port, dashboard = free_ports(2)
        command = [
            RAY, "start", "--head", "--block", "--num-cpus", str(cpus), "--port", str(port),
            "--dashboard-port", str(dashboard), "--dashboard-agent-listen-port", "0",
            "--temp-dir", scratch,
        ]  # fmt: skip
        with running(command, environment) as process:
            client = {k: v for k, v in environment.items() if k != "RAY_AUTH_MODE"}
            yield RayHead(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", client, process)


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], environment: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command in the background; end it, and all that it started, with the block."""
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment
    )
    try:
        yield process
    finally:
        processes = [psutil.Process(process.pid)]
        processes += processes[0].children(recursive=True)
        for one in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait(30)
        psutil.wait_procs(processes, timeout=30)


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
