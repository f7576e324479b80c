"""A PostgreSQL server of one's own, for tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PLACES = ("/usr/lib/postgresql", "/usr/pgsql", "/opt/homebrew/opt/postgresql")


def _binaries() -> Path:
    found = shutil.which("pg_ctl")
    if found is not None:
        return Path(found).resolve().parent
    for place in PLACES:
        for folder in sorted(Path(place).glob("*/bin"), reverse=True):
            if (folder / "pg_ctl").exists():
                return folder
    if os.environ.get("CI"):
        pytest.fail("CI tests with PostgreSQL; .ci/run installs it")
    pytest.skip("no PostgreSQL on this machine (Debian: apt install postgresql)")


class Server:
    """One database, reached by TCP with a password."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._bin = folder, _binaries()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"postgresql://postgres:s3cret-of-tests@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        """Make the files of the server."""
        secret = self._folder / "password"
        secret.write_text("s3cret-of-tests")
        if os.geteuid() == 0:  # it refuses to run as root
            shutil.chown(self._folder, "postgres")
            shutil.chown(secret, "postgres")
        self._run(
            "initdb", "-D", self._folder / "data", "-U", "postgres", "-A", "scram-sha-256",
            f"--pwfile={secret}", "--no-sync",
        )  # fmt: skip

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self._folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run(
            "pg_ctl", "-D", self._folder / "data", "-l", self._folder / "log", "-w",
            "-o", options, "start",
        )  # fmt: skip

    def stop(self) -> None:
        """Stop it at once, as a crash does."""
        self._run("pg_ctl", "-D", self._folder / "data", "-m", "immediate", "stop")

    def _run(self, program: str, *words: str | Path) -> None:
        command = [str(self._bin / program), *map(str, words)]
        if os.geteuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        # Its children keep what they inherit, so its output goes to a file and not to a pipe.
        with (self._folder / "said").open("a") as said:
            done = subprocess.run(command, check=False, stdout=said, stderr=said, cwd="/")
        assert done.returncode == 0, (self._folder / "said").read_text()[-2000:]


@contextmanager
def postgres() -> Iterator[Server]:
    """Start a server; it is gone at the end."""
    with tempfile.TemporaryDirectory(prefix="rpl-pg-", dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        server = Server(Path(folder))
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()
