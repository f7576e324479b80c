"""What travels with a job: few files, none of them ignored, secret or large."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.errors import InputError
from jobs.remote.package import pack


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_ignored_files_environments_runs_and_data_sets_stay_behind(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "space.toml": "a",
            "sub/config.toml": "b",
            ".gitignore": "*.log\n/build/\n",
            "x.log": "",
            "sub/y.log": "",
            "build/z": "",
            "sub/build/kept": "",
            "sub/.gitignore": "!y.log\nlocal.toml\n",
            "sub/local.toml": "",
            ".git/config": "",
            ".venv/lib/big.py": "",
            "runs/danq/one/metrics.jsonl": "",
            "genome.zarr/zarr.json": "",
            "notes.txt": "",
        },
    )
    package = pack(tmp_path, excludes=["notes.*"])
    assert package.files == (
        ".gitignore",
        "space.toml",
        "sub/.gitignore",
        "sub/build/kept",
        "sub/config.toml",
    )
    package.stage(tmp_path / "staged")
    assert (tmp_path / "staged" / "sub" / "config.toml").read_text() == "b"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        (".env", "A=1"),
        ("deploy/.env.production", "A=1"),
        ("id_ed25519", "x"),
        ("tls/server.key", "x"),
        ("notes.md", "one\n-----BEGIN RSA PRIVATE KEY-----\nabc"),
        ("config.toml", "a = 1\nkey = 'AKIAABCDEFGHIJKLMNOP'"),
        ("config.toml", "a = 1\nstorage = 'postgresql://ann:hunter22@db/x'"),
    ],
)
def test_secrets_are_refused_by_name_or_by_line(tmp_path: Path, name: str, text: str) -> None:
    write(tmp_path, {name: text, "space.toml": "a"})
    with pytest.raises(InputError, match="would travel to the cluster") as caught:
        pack(tmp_path)
    assert name in str(caught.value)
    if "\n" in text:
        assert "line 2" in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_examples_and_addresses_without_passwords_are_no_secrets(tmp_path: Path) -> None:
    write(
        tmp_path,
        {".env.example": "A=", "c.toml": "u = 'postgresql://ann@db/x'\nv = 'http://a:8265/b@c'"},
    )
    assert len(pack(tmp_path).files) == 2


def test_too_much_is_refused_with_the_largest_files(tmp_path: Path) -> None:
    write(tmp_path, {"small": "x" * 1000, "large.bin": "x" * 800_000, "larger.bin": "x" * 900_000})
    with pytest.raises(InputError, match="the limit is 1 MB") as caught:
        pack(tmp_path, limit_mb=1.0)
    assert "larger.bin (0.9 MB), large.bin (0.8 MB)" in str(caught.value)


def test_the_digest_follows_names_and_contents(tmp_path: Path) -> None:
    write(tmp_path, {"a": "1", "b": "2"})
    first = pack(tmp_path).digest
    assert pack(tmp_path).digest == first
    write(tmp_path, {"b": "3"})
    second = pack(tmp_path).digest
    (tmp_path / "b").rename(tmp_path / "c")
    assert len({first, second, pack(tmp_path).digest}) == 3
