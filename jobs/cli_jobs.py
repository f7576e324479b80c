"""``replisome submit`` and ``replisome jobs``: commands on a cluster, as Ray jobs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from data_shards.errors import InputError
from jobs.command import Json, run
from jobs.console import Console

if TYPE_CHECKING:
    from jobs.remote.client import Jobs
    from jobs.remote.profiles import Profile

jobs_app = typer.Typer(
    help="""The commands that were submitted to a cluster.

\b
  replisome jobs list --address http://head:8265
  replisome jobs logs JOB --follow
  replisome jobs stop JOB              its run is saved, and goes on with train --resume
""",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Address = Annotated[
    str | None,
    typer.Option(help="Ray's dashboard: http://HOST:8265. [default: RAY_API_SERVER_ADDRESS]"),
]
Cluster = Annotated[
    str | None, typer.Option(metavar="NAME", help="A cluster's profile, see docs/jobs.md.")
]
Profiles = Annotated[
    Path | None,
    typer.Option(help="File of the profiles. [default: ~/.config/replisome/clusters.toml]"),
]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Its id, as jobs list shows it.")]


def submit(
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND", help="As after replisome: train danq ...")
    ],
    address: Address = None,
    cluster: Cluster = None,
    profiles: Profiles = None,
    working_dir: Annotated[
        Path, typer.Option(help="Folder that travels: configuration files, not data.")
    ] = Path(),
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Leave out what matches, as in .gitignore; repeatable."),
    ] = None,
    limit_mb: Annotated[float, typer.Option(help="Megabytes that may travel.")] = 64.0,
    python: Annotated[
        str | None,
        typer.Option(help="Interpreter on the cluster that has replisome. [default: python]"),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="For jobs list; repeatable.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the log until the command has ended.")
    ] = True,
    again: Annotated[
        bool, typer.Option("--again", help="Submit it although the same was submitted before.")
    ] = False,
    json_: Json = False,
) -> None:
    """Run a command on a Ray cluster, follow its log, and end with its exit status.

    The working directory travels, less what .gitignore names; secrets and large files are refused.
    Ctrl-C leaves the job running and says how to follow or stop it.

    \b
    Examples:
      replisome submit --address http://head:8265 -- train danq --data /shared/x.zarr --stages 4
      replisome submit --cluster lab --no-wait --label team=chromatin -- sweep danq --data ...
    """
    from jobs.remote.client import Submission, exit_status, read_labels
    from jobs.remote.package import pack

    ended: dict[str, Any] = {}

    def work(console: Console) -> dict[str, Any]:
        profile = _profile(cluster, profiles)
        package = pack(working_dir, exclude or [], limit_mb)
        labels = read_labels(label or [])
        jobs = _connect(address, profile)
        words = [*command, *_runs(command, profile)]
        submission = Submission(
            tuple(words),
            package,
            python or (profile.python if profile else "python"),
            profile.variables() if profile else {},
            labels,
            again,
        )
        job = jobs.submit(submission)
        size = f"{len(package.files)} files, {package.bytes / 1e6:.1f} MB"
        console.say(f"submitted {job} to {jobs.address} ({size})")
        if not wait:
            return {"job": job, "address": jobs.address}
        ended.update(_follow(jobs, job, console))
        return {"job": job, "address": jobs.address, **_outcome(ended)}

    run(json_, work)
    if ended:
        raise typer.Exit(exit_status(ended))


def doctor(
    address: Address = None,
    cluster: Cluster = None,
    profiles: Profiles = None,
    runs: Annotated[
        Path, typer.Option(help="Folder of all runs, which all nodes must see.")
    ] = Path("runs"),
    data: Annotated[str | None, typer.Option(help="A data set that all nodes must see.")] = None,
    python: Annotated[
        str | None, typer.Option(help="With --address: interpreter on the cluster.")
    ] = None,
    json_: Json = False,
) -> None:
    """Look whether a cluster can train: versions, GPUs, network, storage, clocks, services.

    Without an address it looks at the cluster that RAY_ADDRESS names, or at this machine; with
    one, it looks from within the cluster, as a job. Exit status 1 where there is a fault.

    \b
    Examples:
      replisome doctor
      replisome doctor --cluster lab --runs /shared/runs --data /shared/x.zarr
    """
    from jobs.doctor import examine, report
    from jobs.remote.client import Submission, exit_status
    from jobs.remote.package import Package

    ended: dict[str, Any] = {}

    def remote(console: Console) -> dict[str, Any]:
        profile = _profile(cluster, profiles)
        jobs = _connect(address, profile)
        folder = profile.runs if profile and profile.runs else str(runs)
        words = ["doctor", "--runs", folder, *(["--data", data] if data else [])]
        interpreter = python or (profile.python if profile else "python")
        nothing = Package(Path(), (), 0, "")
        variables = profile.variables() if profile else {}
        job = jobs.submit(Submission(tuple(words), nothing, interpreter, variables, {}, anew=True))
        ended.update(_follow(jobs, job, console))
        return _outcome(ended)

    def work(console: Console) -> dict[str, Any]:
        if address is not None or cluster is not None:
            return remote(console)
        return report(examine(runs, data, console), console)

    run(json_, work)
    if ended:
        raise typer.Exit(exit_status(ended))


@jobs_app.command("list")
def list_(
    address: Address = None,
    cluster: Cluster = None,
    profiles: Profiles = None,
    label: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Only those with it; repeatable.")
    ] = None,
    json_: Json = False,
) -> None:
    """List the jobs, the newest first.

    Example: replisome jobs list --cluster lab --label team=chromatin
    """
    from jobs.remote.client import read_labels

    def work(console: Console) -> dict[str, Any]:
        wanted = read_labels(label or []).items()
        jobs = _connect(address, _profile(cluster, profiles)).list()
        found = [job for job in jobs if wanted <= job["labels"].items()]
        table = Table(box=None, pad_edge=False)
        for name in ("job", "state", "started", "command", "labels"):
            table.add_column(name)
        for job in found:
            started = job["started"]
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(started)) if started else ""
            labels = ", ".join(f"{key}={value}" for key, value in job["labels"].items())
            table.add_row(job["id"], job["state"].lower(), when, job["command"], labels)
        console.show(table)
        return {"jobs": found}

    run(json_, work)


@jobs_app.command()
def logs(
    job: JobName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends.")] = False,
    address: Address = None,
    cluster: Cluster = None,
    profiles: Profiles = None,
    json_: Json = False,
) -> None:
    """Show what a job has said.

    Example: replisome jobs logs JOB --follow
    """

    def work(console: Console) -> dict[str, Any]:
        jobs = _connect(address, _profile(cluster, profiles))
        if follow:
            return _outcome(_follow(jobs, job, console))
        text = jobs.log(job)
        _write(text, console)
        return {"job": job, "log": text}

    run(json_, work)


@jobs_app.command("wait")
def wait_(
    job: JobName,
    address: Address = None,
    cluster: Cluster = None,
    profiles: Profiles = None,
    json_: Json = False,
) -> None:
    """Wait until a job has ended; end with its exit status.

    Example: replisome jobs wait JOB
    """
    from jobs.remote.client import exit_status

    ended: dict[str, Any] = {}

    def work(console: Console) -> dict[str, Any]:
        ended.update(_connect(address, _profile(cluster, profiles)).wait(job))
        console.show(f"{job}: {ended['state'].lower()}")
        return _outcome(ended)

    run(json_, work)
    raise typer.Exit(exit_status(ended))


@jobs_app.command()
def stop(
    job: JobName,
    address: Address = None,
    cluster: Cluster = None,
    profiles: Profiles = None,
    json_: Json = False,
) -> None:
    """Stop a job: its run saves, is marked KILLED, and goes on with train --resume.

    Example: replisome jobs stop JOB
    """

    def work(console: Console) -> dict[str, Any]:
        jobs = _connect(address, _profile(cluster, profiles))
        if not jobs.stop(job):
            raise InputError(f"{job} is not at work", remedy="see: replisome jobs list")
        ended = jobs.wait(job)
        console.show(f"{job}: {ended['state'].lower()}")
        return _outcome(ended)

    run(json_, work)


def _profile(cluster: str | None, file: Path | None) -> Profile | None:
    from jobs.remote.profiles import read_profile

    return None if cluster is None else read_profile(cluster, file)


def _connect(address: str | None, profile: Profile | None) -> Jobs:
    from jobs.remote.client import Jobs
    from jobs.remote.profiles import address_of

    return Jobs(address_of(address, profile))


def _runs(command: list[str], profile: Profile | None) -> list[str]:
    """Return the flag that names the cluster's runs folder, where the command does not."""
    takes = command[:1] in (["train"], ["sweep"], ["evaluate"], ["predict"], ["export"])
    if profile is None or profile.runs is None or "--runs" in command or not takes:
        return []
    return ["--runs", profile.runs]


def _follow(jobs: Jobs, job: str, console: Console) -> dict[str, Any]:
    try:
        return jobs.follow(job, lambda text: _write(text, console))
    except KeyboardInterrupt:
        console.say(f"\n{job} runs on. Follow it: replisome jobs logs {job} --follow")
        console.say(f"Stop it: replisome jobs stop {job}  (with --address {jobs.address})")
        raise typer.Exit(0) from None


def _write(text: str, console: Console) -> None:
    """Pass a job's text on, as it is."""
    stream = sys.stderr if console.json else sys.stdout
    stream.write(text)
    stream.flush()


def _outcome(job: dict[str, Any]) -> dict[str, Any]:
    return {"job": job["id"], "state": job["state"].lower(), "exit": job["exit"]}
