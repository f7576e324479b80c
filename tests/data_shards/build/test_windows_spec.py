"""A description of a data set is checked key by key, with a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_shards.build.description import read_description
from data_shards.errors import InputError

GOOD = """
[reference]
fasta = "g.fa"
[splits]
valid = ["b"]
test = ["c"]
[[tasks]]
name = "t"
file = "t.bed"
"""


def spec(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "danq.toml"
    path.write_text(text)
    return path


def test_deepsea_is_the_default_window(tmp_path: Path) -> None:
    window = read_description(spec(tmp_path, GOOD)).windows
    assert (window.length, window.center, window.stride, window.strands) == (1000, 200, 200, "+")


@pytest.mark.parametrize(
    ("text", "problem", "remedy"),
    [
        (GOOD.replace("fasta", "fastaa"), "unknown key 'reference.fastaa'", "'fasta'"),
        (GOOD + "min_overlaps = 3\n", "unknown key 'tasks.0.min_overlaps'", "'min_overlap'"),
        (GOOD.replace('fasta = "g.fa"', ""), "key 'reference.fasta' is missing", "add it"),
        (GOOD + "flank = -1\n", "tasks.0.flank = -1", "correct the value"),
        (GOOD + "[windows]\ncenter = 201\n", "equal flanks", "correct"),
        (GOOD + "min_overlap = 3\nmin_count = 2\n", "min_overlap or min_count, not both", ""),
        (GOOD + "min_overlap = 300\n", "exceeds the centre of 200 bp", ""),
        (GOOD + 'given = ["u"]\n', "given 'u' is no other task", ""),
        (GOOD + '[[tasks]]\nname = "t"\nfile = "u.bed"\n', "two tasks are called 't'", ""),
        (GOOD.replace('"t"\nfile', '"a b"\nfile'), "tasks.0.name = 'a b'", ""),
        ("[reference\n", "not valid TOML", "correct that line"),
    ],
)
def test_a_wrong_description_is_refused_with_key_and_remedy(
    tmp_path: Path, text: str, problem: str, remedy: str
) -> None:
    path = spec(tmp_path, text)
    with pytest.raises(InputError) as caught:
        read_description(path)
    assert problem in str(caught.value)
    assert caught.value.path == path
    assert remedy in (caught.value.remedy or "")


def test_a_missing_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file") as caught:
        read_description(tmp_path / "danq.toml")
    assert "--spec" in (caught.value.remedy or "")
