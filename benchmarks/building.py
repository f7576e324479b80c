"""How fast data sets are built and opened, and what memory that takes.

    python benchmarks/building.py --out benchmarks/results/building.md
    python benchmarks/building.py --bases 3100000000 --workers 2 --tasks 4    # a whole genome

Writes shards of sequence, ours against zarr-python and (with --zarrs PYTHON, the interpreter of an
environment that has zarrs) zarrs: bytes a second of CPU and of wall clock, files synced to disk in
all. Builds a windows data set from a simulated genome and BED files with 1 and 2 workers. Opens it
in fresh processes, with the page cache dropped and not, and says how long the first batch took, and
what memory two readers on one node take together (PSS counts a shared page once).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import psutil

SHARD, SHARDS, REPEATS = 32 << 20, 12, 5
LIBRARIES = ("replisome", "zarr", "ray", "numpy", "pysam")

ZARRS = """
import json, os, sys, time
import numpy as np, zarr
if sys.argv[3] == "zarrs":
    zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
folder, shards, size = sys.argv[1], int(sys.argv[2]), 32 << 20
codes = np.random.default_rng(0).integers(0, 4, size, dtype=np.uint8)
array = zarr.create_array(folder, shape=(shards * size,), shards=(size,), chunks=(1 << 20,),
    dtype="uint8", compressors=None, filters=None, overwrite=True,
    config={"write_empty_chunks": True})
array[:size] = codes
wall, cpu = time.perf_counter(), time.process_time()
for number in range(shards):
    array[number * size : (number + 1) * size] = codes
    with open(os.path.join(folder, "c", str(number)), "rb") as stream:
        os.fsync(stream.fileno())
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""

READER = """
import json, os, sys, time
import numpy as np
from pathlib import Path
from data_shards.dataset import ShardedDataset
from data_shards.order import sample_order
path, mode = Path(sys.argv[1]), sys.argv[2]
if mode == "cold":
    for file in path.rglob("*"):
        if file.is_file():
            handle = os.open(file, os.O_RDONLY)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)
begin = time.perf_counter()
data = ShardedDataset(path)
order = sample_order(data.schema.split("train").samples, 0)
data.gather("sequence", order.ids(0, 256)), data.gather("labels", order.ids(0, 256))
first = time.perf_counter() - begin
if mode == "hold":
    int(data.reference[::4096].sum())  # every page of the genome
    print("ready", flush=True)
    sys.stdin.readline()
    total, mine = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split(" ", 1)[0] and not line.split(" ", 1)[0].endswith(":"):
            mine = str(path.resolve()) in line
        elif mine and line.startswith("Pss:"):
            total += int(line.split()[1]) << 10
    print(total, flush=True)
    sys.stdin.readline()  # stays until all have counted
else:
    print(json.dumps(first))
"""


def run(code: str, *arguments: str, python: str = sys.executable) -> Any:
    """Run a snippet in a fresh process; return the JSON it prints."""
    command = [python, "-c", code, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def write_rates(work: Path, zarrs: str | None) -> list[str]:
    """Compare writers of uncompressed shards of sequence."""
    from data_shards.store.manifest import checksums
    from data_shards.store.shards import create_array, write_shard

    codes = np.random.default_rng(0).integers(0, 4, SHARD, dtype=np.uint8)
    found: dict[str, list[tuple[float, float]]] = {}
    for repeat in range(REPEATS):
        folder = work / f"ours-{repeat}"
        folder.mkdir()
        import zarr

        zarr.open_group(str(folder), mode="a", zarr_format=3)
        create_array(folder, "x", (SHARDS + 1) * SHARD, (), "uint8", SHARD)
        write_shard(folder, "x", SHARDS * SHARD, codes)
        for name, check in (("write_shard", False), ("write_shard and checksums", True)):
            wall, cpu = time.perf_counter(), time.process_time()
            for number in range(SHARDS):
                path = write_shard(folder, "x", number * SHARD, codes)
                if check:
                    checksums(folder / path)
            took = (time.perf_counter() - wall, time.process_time() - cpu)
            found.setdefault(name, []).append(took)
        peers = {"zarr-python": sys.executable} | ({"zarrs": zarrs} if zarrs else {})
        for name, python in peers.items():
            took = tuple(
                run(ZARRS, str(work / f"{name}-{repeat}"), str(SHARDS), name, python=python)
            )
            found.setdefault(name, []).append(took)
        subprocess.run(["rm", "-rf", *map(str, work.iterdir())], check=True)
    lines = ["| writer | MB a CPU-second | MB a second |", "|---|---:|---:|"]
    for name, times in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        size = SHARDS * SHARD / 1e6
        lines.append(f"| {name} | {size / cpu:,.0f} | {size / wall:,.0f} |")
    return lines


def simulate(folder: Path, bases: int, tasks: int) -> None:
    """Write a genome of 24 contigs as FASTA, and a BED file of peaks for each task."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    block = np.frombuffer(b"ACGT", dtype=np.uint8)[rng.integers(0, 4, 6_000_000)]
    lines = np.concatenate([block.reshape(-1, 60), np.full((100_000, 1), 10, np.uint8)], axis=1)
    length = bases // 24 // 60 * 60
    with (folder / "genome.fa").open("wb") as fasta:
        for number in range(24):
            fasta.write(f">chr{number + 1}\n".encode())
            for first in range(0, length // 60, len(lines)):
                fasta.write(lines[: length // 60 - first].tobytes())
    spec = ['[reference]\nfasta = "genome.fa"\n[splits]\nvalid = ["chr7"]\ntest = ["chr8"]\n']
    for task in range(tasks):
        with (folder / f"t{task}.bed").open("w") as bed:
            for number in range(24):
                starts = np.sort(rng.integers(0, length - 500, max(1, length // 50_000)))
                bed.writelines(f"chr{number + 1}\t{s}\t{s + 500}\n" for s in starts.tolist())
        spec.append(f'[[tasks]]\nname = "t{task}"\nfile = "t{task}.bed"\n')
    (folder / "data.toml").write_text("".join(spec))


def warmed(workers: int) -> dict[int, tuple[int, int]]:
    """Let each Ray worker import what a build's tasks do: pid -> bytes before and after that."""
    import ray

    def warm() -> tuple[int, int, int]:
        process = psutil.Process()
        before = process.memory_info().rss
        import data_shards.build.run
        import data_shards.build.windows_plan  # noqa: F401

        time.sleep(2)  # so long that no worker gets two of these tasks
        return process.pid, before, process.memory_info().rss

    warm.__module__ = "__main__"  # sent by value: a worker that imports this file is warm already
    task = ray.remote(warm).options(num_cpus=1)
    found = ray.get([task.remote() for _ in range(workers)])
    return {pid: (before, after) for pid, before, after in found}


@contextmanager
def watched() -> Iterator[dict[int, int]]:
    """Sample the resident memory of Ray's workers while they build: pid -> at most, bytes."""
    seen: dict[int, int] = {}
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.05):
            for process in psutil.Process().children(recursive=True):
                try:
                    if "".join(process.cmdline()[:1]).startswith("ray::_build_shard"):
                        memory = process.memory_info().rss
                        seen[process.pid] = max(seen.get(process.pid, 0), memory)
                except psutil.Error:
                    continue

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


BUILD = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from benchmarks.building import build_once
print(json.dumps(build_once(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))))
"""


def build_once(raw: Path, out: Path, workers: int) -> dict[str, Any]:
    """Build on a private Ray of so many CPUs; times and memory."""
    # Ray of its own, as the command starts it: no token is left in the home folder.
    os.environ["RAY_AUTH_MODE"], os.environ["RAY_AUTH_TOKEN"] = "token", secrets.token_hex(32)
    import ray

    from data_shards.build.description import read_description
    from data_shards.build.run import build
    from data_shards.build.windows_plan import plan_windows
    from data_shards.build.windows_spec import WindowsSpec

    times: dict[str, float] = {}
    begin = time.perf_counter()
    spec = read_description(raw / "data.toml")
    assert isinstance(spec, WindowsSpec)
    plan = plan_windows(spec, raw, recipe="", spec_path=raw / "data.toml")
    times["read and check"] = time.perf_counter() - begin
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    starts = warmed(workers)
    begin = time.perf_counter()
    staged = [begin]

    def progress(what: str, done: int, total: int) -> None:
        if what == "staging" and done == total:
            staged[0] = time.perf_counter()

    with watched() as seen:
        schema = build(plan, out, command="benchmark", progress=progress).schema_
    if not set(seen) <= set(starts):
        raise SystemExit("a worker took part that was not measured before: run it again")
    times["stage"] = staged[0] - begin
    times["shards"] = time.perf_counter() - staged[0]
    ray.shutdown()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {
        "seconds": times,
        "samples": schema.samples,
        "tasks": len(schema.tasks),
        "bases": schema.reference.total,
        "growth": max(most - starts[pid][0] for pid, most in seen.items()),
        "growth when warm": max(most - starts[pid][1] for pid, most in seen.items()),
        "driver": peak,
    }


def builds(work: Path, bases: int, tasks: int, workers: list[int]) -> list[str]:
    """Build the same data set with several numbers of workers, and open it."""
    raw = work / "raw"
    simulate(raw, bases, tasks)
    lines = [
        f"{bases / 1e6:,.0f} Mb of FASTA, {tasks} BED files.",
        "",
        "| workers | read and check | stage | shards | Mb a second | labels a second "
        "| worker's growth | with its imports | driver's peak |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    root = str(Path(__file__).resolve().parents[1])
    for count in workers:
        out = work / "x.zarr"
        subprocess.run(["rm", "-rf", str(out)], check=True)
        found = run(BUILD, str(raw), str(out), str(count), root)
        took = found["seconds"]
        lines.append(
            f"| {count} | "
            + " | ".join(f"{took[step]:.1f} s" for step in ("read and check", "stage", "shards"))
            + f" | {found['bases'] / 1e6 / took['shards']:,.0f}"
            + f" | {found['samples'] * found['tasks'] / took['shards']:,.0f}"
            + f" | {found['growth when warm'] / 2**20:,.0f} MiB"
            + f" | {found['growth'] / 2**20:,.0f} MiB | {found['driver'] / 2**20:,.0f} MiB |"
        )
    return [*lines, "", *opening(work / "x.zarr")]


def opening(path: Path) -> list[str]:
    """Time the first batch in fresh processes; measure the memory of two readers."""
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    lines = [f"First batch (256 windows and their labels) of {size / 1e6:,.0f} MB, verified:", ""]
    for mode in ("cold", "warm"):
        seconds = statistics.median(run(READER, str(path), mode) for _ in range(3))
        lines.append(f"- {mode}: {seconds:.2f} s")
    command = [sys.executable, "-c", READER, str(path), "hold"]
    for count in (1, 2):
        readers = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for _ in range(count)
        ]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        shared = 0
        for reader in readers:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("\n")
            reader.stdin.flush()
            shared += int(reader.stdout.readline())
        for reader in readers:
            reader.communicate("\n")
        lines.append(f"- {count} reader(s): {shared / 1e6:,.0f} MB of mapped shards (PSS together)")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bases", type=int, default=300_000_000, help="of the simulated genome")
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--zarrs", help="interpreter of an environment that has zarrs")
    parser.add_argument("--no-write", action="store_true", help="leave out the writers")
    parser.add_argument("--work", type=Path, help="folder for files [default: a temporary one]")
    parser.add_argument("--out", type=Path, help="Markdown file for the result")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.work, prefix="building-") as folder:
        work = Path(folder)
        lines = [] if chosen.no_write else [*write_rates(work, chosen.zarrs), ""]
        lines += builds(work, chosen.bases, chosen.tasks, chosen.workers)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    said = [argument for argument in sys.argv[1:] if not argument.startswith("/")]
    head = [
        f"# python benchmarks/building.py {' '.join(said)}",
        "",
        f"{datetime.now(UTC):%Y-%m-%d}; {os.cpu_count()} cores ({platform.machine()}), "
        f"{memory:.0f} GiB; Python {platform.python_version()}, {versions}. Medians of "
        f"{REPEATS} (writers) and 3 (first batch); builds once.",
        "",
    ]
    text = "\n".join([*head, *lines]) + "\n"
    sys.stdout.write(text)
    if chosen.out is not None:
        chosen.out.write_text(text)


if __name__ == "__main__":
    main()
