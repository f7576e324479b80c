"""What of a folder travels with a job: few files, none of them secret.

Files that ``.gitignore`` names stay behind, as do version control, environments and caches. What
looks like a secret, and a package that is too large, are refused before anything is sent.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_shards.errors import InputError

LIMIT_MB = 64.0  # the Jobs API takes 100 MiB
_ALWAYS = (
    *(".git", ".hg", ".svn", ".venv", "venv", "node_modules"),
    *("__pycache__", "*.pyc", ".mypy_cache", ".ruff_cache", ".pytest_cache"),
    *("runs/", "mlruns/", "*.zarr/"),
)
_SECRET_NAMES = re.compile(
    r"(^|/)(\.env(\..+)?|\.netrc|\.pgpass|\.pypirc|id_(rsa|dsa|ecdsa|ed25519)|credentials(\.json)?"
    r"|auth_token|.*\.(pem|key|p12|pfx|keytab|kdbx))$"
)
_HARMLESS = re.compile(r"(^|/)\.env\.(example|sample|template)$")
_SECRET_TEXT = re.compile(
    rb"-----BEGIN ([A-Z ]+ )?PRIVATE KEY-----"
    rb"|\bAKIA[0-9A-Z]{16}\b"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}\b"
    rb"|\bxox[abpr]-[A-Za-z0-9-]{10,}"
    rb"|://[^/\s:@\"'<>{}$]+:[^/\s@\"'<>{}$]{6,}@"
)
_LOOK_BYTES = 1 << 20  # of each file that are searched for secrets
_SHOWN = 5


@dataclass(frozen=True)
class Package:
    """The files that travel.

    Attributes:
        root: their folder.
        files: relative paths, sorted.
        bytes: of all together.
        digest: of names and contents.
    """

    root: Path
    files: tuple[str, ...]
    bytes: int
    digest: str

    def stage(self, folder: Path) -> None:
        """Lay the files out in an empty folder, as links where the file system can."""
        for name in self.files:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link((self.root / name).resolve(), target)
            except OSError:
                shutil.copyfile(self.root / name, target)


def pack(root: Path, excludes: Sequence[str] = (), limit_mb: float = LIMIT_MB) -> Package:
    """Choose the files of a folder that travel with a job.

    Args:
        root: the folder.
        excludes: more patterns, as in ``.gitignore``.
        limit_mb: 1e6 bytes that they may have together.

    Raises:
        InputError: a file looks like a secret, or there is too much; names the files.
    """
    if not root.is_dir():
        raise InputError("no such folder", path=root, remedy="say --working-dir FOLDER")
    sizes = {name: (root / name).stat().st_size for name in _files(root, excludes)}
    total = sum(sizes.values())
    if total > limit_mb * 1e6:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:_SHOWN]
        shown = ", ".join(f"{name} ({sizes[name] / 1e6:.1f} MB)" for name in largest)
        raise InputError(
            f"{total / 1e6:.0f} MB would travel, and the limit is {limit_mb:g} MB; the largest: "
            f"{shown}",
            path=root,
            remedy="name what can stay in .gitignore or with --exclude; data belong on storage "
            "that the cluster sees",
        )
    digest = hashlib.sha256()
    for name in sorted(sizes):
        content = (root / name).read_bytes()
        _refuse_secrets(root, name, content)
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return Package(root, tuple(sorted(sizes)), total, digest.hexdigest())


def _files(root: Path, excludes: Sequence[str]) -> Iterator[str]:
    """Walk a folder, leaving out what is ignored."""
    from pathspec import GitIgnoreSpec

    always = GitIgnoreSpec.from_lines([*_ALWAYS, *excludes])
    specs: dict[str, GitIgnoreSpec] = {}

    def ignored(path: str, *, folder: bool) -> bool:
        name = f"{path}/" if folder else path
        if always.match_file(name):
            return True
        place = ""
        for part in ["", *path.split("/")[:-1]]:
            place = f"{place}{part}/" if part else ""
            spec = specs.get(place)
            if spec is not None and spec.match_file(name.removeprefix(place)):
                return True
        return False

    for current, folders, files in os.walk(root):
        here = Path(current).relative_to(root).as_posix()
        prefix = "" if here == "." else f"{here}/"
        rules = Path(current) / ".gitignore"
        if rules.is_file():
            specs[prefix] = GitIgnoreSpec.from_lines(rules.read_text().splitlines())
        folders[:] = sorted(f for f in folders if not ignored(prefix + f, folder=True))
        for file in sorted(files):
            path = prefix + file
            if not ignored(path, folder=False) and (root / path).is_file():
                yield path


def _refuse_secrets(root: Path, name: str, content: bytes) -> None:
    if _SECRET_NAMES.search(name) and not _HARMLESS.search(name):
        why = "its name is that of a secret"
    elif found := _SECRET_TEXT.search(content[:_LOOK_BYTES]):
        line = content[: found.start()].count(b"\n") + 1
        why = f"line {line} looks like a key or a password"
    else:
        return
    raise InputError(
        f"{name} would travel to the cluster, and {why}",
        path=root,
        remedy="name it in .gitignore or with --exclude; give secrets to the cluster's environment",
    )
