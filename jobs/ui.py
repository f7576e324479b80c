"""``replisome ui``: the MLflow pages of a runs folder."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from data_shards.errors import InputError
from jobs.console import Console
from jobs.tracking import DATABASE, open_store

_START_TIMEOUT = 120.0  # seconds
_CLIENTS = {"s3": "boto3"}  # what MLflow needs to reach an object store


@dataclass(frozen=True)
class Service:
    """What is served, and to whom.

    Attributes:
        runs: the folder of all runs; the server's log, and its users, are in it.
        host: address to listen on.
        port: to listen on; 0 takes a free one.
        backend: address of the database; by default sqlite in the runs folder.
        artifacts: where files are, which clients send through the server; by default in the runs
            folder, where clients put them themselves.
        allowed: more names under which browsers may ask.
    """

    runs: Path
    host: str
    port: int
    backend: str | None = None
    artifacts: str | None = None
    allowed: tuple[str, ...] = ()

    @property
    def open_to_others(self) -> bool:
        """Whether other machines can reach it: then it wants a password."""
        return self.host not in ("127.0.0.1", "localhost", "::1")


def serve(service: Service, console: Console) -> None:
    """Serve MLflow on a runs folder until interrupted.

    Prints the address (with ``--json``: as stdout's last line) once the page answers.

    Raises:
        InputError: there are no runs, the port is taken, or a library for the artifacts is missing.
    """
    runs = service.runs
    scheme = (service.artifacts or "").partition("://")[0]
    if scheme in _CLIENTS and find_spec(_CLIENTS[scheme]) is None:
        raise InputError(
            f"--artifacts {service.artifacts} needs {_CLIENTS[scheme]}, which is not installed",
            remedy=f"pip install {_CLIENTS[scheme]}",
        )
    if service.backend is None and not (runs / DATABASE).is_file():
        raise InputError(
            "no runs are here", path=runs, remedy="train first, or say where: --runs DIR"
        )
    runs.mkdir(parents=True, exist_ok=True)
    service = replace(service, port=_free_port(service.host, service.port))
    if service.backend is None:
        open_store(runs)  # brings an older database up to date, alone
    log = runs / "mlflow-server.log"
    with log.open("w") as stream:  # stdout and stderr are ours, to talk to the user
        server = subprocess.Popen(
            _command(service), env=_environment(service), stdout=stream, stderr=stream
        )
    try:
        url = f"http://{service.host}:{service.port}"
        _wait(server, url, log)
        console.say(f"MLflow at {url} (stop with Ctrl-C)")
        if service.open_to_others:
            console.say(f"user admin; the password is in {_password_file(runs)}, or was given")
        if console.json:
            sys.stdout.write(json.dumps({"ok": True, "url": url, "pid": server.pid}) + "\n")
            sys.stdout.flush()
        server.wait()
    except KeyboardInterrupt:
        console.say("stopped")
    finally:
        _stop(server)


def _free_port(host: str, port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"port {port} of {host} can't be used: {error.strerror}",
                remedy="choose another with --port (0 takes a free one)",
            ) from None
        return int(probe.getsockname()[1])


def _command(service: Service) -> list[str]:
    beside = Path(sys.executable).with_name("mlflow")
    mlflow = str(beside) if beside.exists() else shutil.which("mlflow")
    if mlflow is None:
        raise FileNotFoundError("the mlflow command is not installed beside this Python")
    options = ["--host", service.host, "--port", str(service.port), "--workers", "1"]
    if service.open_to_others:
        options += ["--app-name", "basic-auth"]
    return [mlflow, "server", *options]


def _environment(service: Service) -> dict[str, str]:
    """Return what the server needs to know; a command line would show passwords to everybody."""
    runs = service.runs.resolve()
    backend = service.backend or f"sqlite:///{runs / DATABASE}"
    if backend.startswith("postgresql://"):
        backend = backend.replace("postgresql://", "postgresql+psycopg://", 1)
    names = {service.host, socket.gethostname(), "localhost", "127.0.0.1", *service.allowed}
    environment = os.environ | {
        "MLFLOW_BACKEND_STORE_URI": backend,
        # Background jobs serve features that need other services; they cost four processes.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(
            sorted({name for host in names for name in (host, f"{host}:{service.port}")})
        ),
    }
    if service.artifacts is None:
        environment["MLFLOW_DEFAULT_ARTIFACT_ROOT"] = (runs / "artifacts").as_uri()
    else:  # through the server: it alone has the key of the object store
        environment["MLFLOW_ARTIFACTS_DESTINATION"] = service.artifacts
    return environment | _accounts(runs) if service.open_to_others else environment


def _accounts(runs: Path) -> dict[str, str]:
    """Make what authentication needs: an administrator, whose password only the owner can read."""
    password = os.environ.get("MLFLOW_AUTH_ADMIN_PASSWORD") or _secret(_password_file(runs))
    settings = runs / "mlflow-auth.ini"
    settings.write_text(
        "[mlflow]\ndefault_permission = READ\nadmin_username = admin\n"
        f"database_uri = sqlite:///{runs / 'mlflow-auth.db'}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    return {
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": _secret(runs / ".mlflow-secret"),
    }


def _password_file(runs: Path) -> Path:
    return runs.resolve() / ".mlflow-admin-password"


def _secret(path: Path) -> str:
    """Read a secret, or make one that only the owner can read."""
    if not path.exists():
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_urlsafe(24))
    return path.read_text()


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
