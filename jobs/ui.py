"""``replisome ui``: the MLflow pages of a runs folder."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from data_shards.errors import InputError
from jobs.console import Console
from jobs.tracking import DATABASE, open_store

_START_TIMEOUT = 120.0  # seconds


def serve(runs: Path, host: str, port: int, console: Console) -> None:
    """Serve MLflow on a runs folder until interrupted.

    Prints the address (with ``--json``: as stdout's last line) once the page answers.

    Raises:
        InputError: there are no runs, or the port is taken.
    """
    if not (runs / DATABASE).is_file():
        raise InputError(
            "no runs are here", path=runs, remedy="train first, or say where: --runs DIR"
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"port {port} of {host} can't be used: {error.strerror}",
                remedy="choose another with --port (0 takes a free one)",
            ) from None
        port = probe.getsockname()[1]
    open_store(runs)  # brings an older database up to date, alone
    log = runs / "mlflow-server.log"
    with log.open("w") as stream:  # stdout and stderr are ours, to talk to the user
        server = subprocess.Popen(
            _command(runs, host, port), env=_environment(), stdout=stream, stderr=stream
        )
    try:
        url = f"http://{host}:{port}"
        _wait(server, url, log)
        console.say(f"MLflow at {url} (stop with Ctrl-C)")
        if console.json:
            sys.stdout.write(json.dumps({"ok": True, "url": url, "pid": server.pid}) + "\n")
            sys.stdout.flush()
        server.wait()
    except KeyboardInterrupt:
        console.say("stopped")
    finally:
        _stop(server)


def _command(runs: Path, host: str, port: int) -> list[str]:
    beside = Path(sys.executable).with_name("mlflow")
    mlflow = str(beside) if beside.exists() else shutil.which("mlflow")
    if mlflow is None:
        raise FileNotFoundError("the mlflow command is not installed beside this Python")
    return [
        mlflow, "server",
        "--backend-store-uri", f"sqlite:///{runs.resolve() / DATABASE}",
        "--default-artifact-root", (runs.resolve() / "artifacts").as_uri(),
        "--host", host,
        "--port", str(port),
        "--workers", "1",
    ]  # fmt: skip


def _environment() -> dict[str, str]:
    # MLflow's background jobs serve features that need other services; they cost four processes.
    return os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START_TIMEOUT
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise RuntimeError(
                f"the MLflow server ended with status {server.returncode}; its log is {log}"
            )
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(
        f"the MLflow server did not answer in {_START_TIMEOUT:.0f} s; its log: {log}"
    )


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
