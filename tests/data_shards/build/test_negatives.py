"""GC-matched negatives against a naive draw over all windows, and on the yeast genome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import bioframe
import numpy as np
import pandas as pd
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from data_shards.build import negatives
from data_shards.build.negatives import Negatives, gc_matched_negatives
from data_shards.contigs import Contigs, Naming
from data_shards.errors import InputError
from data_shards.hashing import key, mix
from data_shards.sequence import Codes, decode
from data_shards.sources.fasta import read_codes, scan_fasta, stage_fasta
from data_shards.sources.intervals import Intervals, read_intervals

CONTIGS = Contigs(("a", "b", "c"), (500, 350, 400))
ALL = {"all": (0, 1, 2)}
BY_SPLIT = {"train": (2, 0), "valid": (1,)}


def draws(seed: int, size: int) -> np.ndarray[Any, np.dtype[np.uint64]]:
    return mix(np.arange(size, dtype=np.uint64) ^ np.uint64(key(seed)))


def genome(seed: int, total: int, unknown: int = 20) -> Codes:
    """Bases whose GC content drifts, with an N in one of ``unknown``."""
    hashes = draws(seed, total)
    strong = (hashes % np.uint64(100)) < 50 + 30 * np.sin(np.arange(total) / 150)
    codes = np.where(strong, 1, 0) + np.where(hashes >> np.uint64(63), 1, 0) * np.where(
        strong, 1, 3
    )
    codes[(hashes >> np.uint64(8)) % np.uint64(unknown) == 0] = 4
    return codes.astype(np.uint8)


def spans(*rows: tuple[int, int, int]) -> Intervals:
    contig, start, end = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    zeros = np.zeros(len(rows))
    return Intervals(contig.astype(np.int32), start, end, zeros.astype(np.int8), zeros)


WITHIN = spans((0, 30, 200), (1, 0, 150), (1, 150, 340), (2, 0, 400))


def gc_bin(codes: Codes) -> int | None:
    text = decode(codes)
    known = len(text) - text.count("N")
    if known == 0:
        return None
    gc = Fraction(text.count("G") + text.count("C"), known)
    return min(int(gc / Fraction(2, 100)), 49)


def naive(
    reference: Codes,
    contig: Sequence[int],
    start: Sequence[int],
    length: int,
    *,
    allowed: Mapping[str, Sequence[int]],
    seed: int,
    per_positive: int = 1,
    excluded: Intervals | None = None,
    within: Intervals | None = None,
    max_unknown: float = 0.0,
    may_overlap: bool = False,
) -> dict[int, list[tuple[int, int]]] | None:
    """Windows drawn for each positive, or None if there are too few. One window at a time."""
    offsets = CONTIGS.offsets.tolist()
    taboo = [(c, s, s + length) for c, s in zip(contig, start, strict=True)]
    if excluded is not None:
        taboo += zip(excluded.contig, excluded.start, excluded.end, strict=True)
    inside = None if within is None else set(bases_of(within))

    def free(c: int, s: int) -> bool:
        codes = reference[offsets[c] + s : offsets[c] + s + length]
        return (
            (codes == 4).sum() <= max_unknown * length
            and not any(c == t and s < hi and lo < s + length for t, lo, hi in taboo)
            and (inside is None or all((c, s + i) in inside for i in range(length)))
        )

    def drawn(members: Sequence[int]) -> list[tuple[int, int]]:
        windows = [(c, s) for c in members for s in range(CONTIGS.lengths[c] - length + 1)]
        windows = [window for window in windows if free(*window)]
        places = np.array([offsets[c] + s for c, s in windows], dtype=np.uint64)
        order = np.argsort(mix(places ^ np.uint64(key(seed))))
        return [windows[i] for i in order]

    out: dict[int, list[tuple[int, int]]] = {}
    for members in allowed.values():
        wanted: dict[int | None, list[int]] = {}
        for row, (c, s) in enumerate(zip(contig, start, strict=True)):
            if c in members:
                one = gc_bin(reference[offsets[c] + s : offsets[c] + s + length])
                wanted.setdefault(one, []).extend([row] * per_positive)
        taken: list[tuple[int, int]] = []
        for c, s in drawn(members):
            one = gc_bin(reference[offsets[c] + s : offsets[c] + s + length])
            near = any(c == t and abs(s - u) < length for t, u in taken)
            if wanted.get(one) and (may_overlap or not near):
                taken.append((c, s))
                out.setdefault(wanted[one].pop(0), []).append((c, s))
        if any(wanted.values()):
            return None
    return out


def bases_of(intervals: Intervals) -> Iterator[tuple[int, int]]:
    for c, lo, hi in zip(intervals.contig, intervals.start, intervals.end, strict=True):
        yield from ((int(c), base) for base in range(lo, hi))


def grouped(found: Negatives) -> dict[int, list[tuple[int, int]]]:
    out: dict[int, list[tuple[int, int]]] = {}
    for row, c, s in zip(found.positive, found.contig, found.start, strict=True):
        out.setdefault(int(row), []).append((int(c), int(s)))
    return out


@given(
    seed=st.integers(0, 1000),
    positives=st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 330)), min_size=1, max_size=6, unique=True
    ),
    length=st.integers(5, 20),
    per_positive=st.integers(1, 3),
    max_unknown=st.sampled_from([0.0, 0.1, 0.5]),
    may_overlap=st.booleans(),
    by_split=st.booleans(),
    excluded=st.booleans(),
    within=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_negatives_are_those_of_a_naive_draw(
    seed: int,
    positives: list[tuple[int, int]],
    length: int,
    excluded: bool,
    within: bool,
    by_split: bool,
    **more: Any,
) -> None:
    reference = genome(seed, CONTIGS.total)
    contig, start = (list(column) for column in zip(*positives, strict=True))
    more |= {
        "allowed": BY_SPLIT if by_split else ALL,
        "seed": seed,
        "excluded": spans((0, 0, 60), (0, 50, 90), (2, 300, 301)) if excluded else None,
        "within": WITHIN if within else None,
    }
    expected = naive(reference, contig, start, length, **more)
    event("too few" if expected is None else "drawn")
    arrays = np.array(contig), np.array(start)
    if expected is None:
        with pytest.raises(InputError, match="GC bins lack candidates"):
            gc_matched_negatives(reference, CONTIGS, *arrays, length, **more)
    else:
        found = gc_matched_negatives(reference, CONTIGS, *arrays, length, **more)
        assert grouped(found) == expected
        assert found.positive.tolist() == sorted(found.positive.tolist())


def draw(**more: Any) -> Negatives:
    """Draw two negatives of 10 bp for each of six positives."""
    contig, start = np.array([0, 0, 1, 1, 2, 2]), np.array([5, 60, 0, 99, 30, 160])
    options = {"allowed": ALL, "seed": 1, "per_positive": 2, "max_unknown": 0.2} | more
    return gc_matched_negatives(genome(1, CONTIGS.total), CONTIGS, contig, start, 10, **options)


@pytest.mark.parametrize(("block", "spare"), [(1, 8), (7, 1), (64, 2), (1000, 1)])
def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch, block: int, spare: int) -> None:
    expected = grouped(draw())
    monkeypatch.setattr(negatives, "_BLOCK", block)
    monkeypatch.setattr(negatives, "_SPARE", spare * 2)
    assert grouped(draw()) == expected


def test_seeds_give_other_draws_and_the_same_seed_the_same() -> None:
    assert grouped(draw()) == grouped(draw()) != grouped(draw(seed=2))


def test_the_draw_never_changes_between_versions() -> None:
    assert draw().start.tolist() == [168, 7, 92, 116, 19, 369, 446, 39, 248, 63, 115, 308]


def test_the_order_of_splits_makes_no_difference() -> None:
    one = draw(allowed={"train": (0, 2), "valid": (1,)})
    assert grouped(one) == grouped(draw(allowed={"valid": [1], "train": [2, 0]}))


def test_the_draw_is_uniform_over_all_allowed_windows() -> None:
    contigs = Contigs(("a", "b"), (40_000, 60_000))
    reference = np.tile(np.array([0, 1], dtype=np.uint8), 50_000)
    found = gc_matched_negatives(
        reference,
        contigs,
        np.zeros(1000, dtype=np.int32),
        np.full(1000, 39_990, dtype=np.int64),
        10,
        allowed={"all": (0, 1)},
        seed=0,
        may_overlap=True,
    )
    place = contigs.offsets[found.contig] + found.start
    assert len(set(place.tolist())) == 1000
    assert np.abs(np.histogram(place, bins=10, range=(0, 100_000))[0] - 100).max() < 35


EVEN = np.tile(np.array([0, 1], dtype=np.uint8), 100)  # every window of 10 bp has half GC


def starts(count: int, **more: Any) -> list[int]:
    """Draw negatives of 10 bp for a positive at 100 to 110 of 200 bp, all of one GC bin."""
    found = gc_matched_negatives(
        EVEN,
        Contigs(("a",), (200,)),
        np.zeros(1, dtype=np.int32),
        np.full(1, 100, dtype=np.int64),
        10,
        allowed={"all": (0,)},
        seed=3,
        per_positive=count,
        **more,
    )
    return sorted(found.start.tolist())


def test_every_allowed_window_can_be_drawn_and_no_other() -> None:
    free = [*range(0, 91), *range(110, 191)]
    assert starts(len(free), may_overlap=True) == free
    with pytest.raises(InputError, match=f"there are {len(free):,} where {len(free) + 1:,}"):
        starts(len(free) + 1, may_overlap=True)
    excluded = spans((0, 0, 50), (0, 55, 56), (0, 70, 200))
    assert starts(5, may_overlap=True, excluded=excluded) == [56, 57, 58, 59, 60]
    touching = spans((0, 60, 70), (0, 40, 60), (0, 72, 81), (0, 195, 200))
    assert starts(21, may_overlap=True, within=touching) == [*range(40, 61)]
    assert starts(1, within=spans((0, 190, 200))) == [190]


def test_more_candidates_are_looked_at_where_many_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = starts(11)
    assert (np.diff(expected) >= 10).all()
    pools: list[int] = []
    accepted = negatives._accepted

    def counting(pool: Any, need: Any, rules: Any) -> Any:
        pools.append(len(pool.place))
        return accepted(pool, need, rules)

    monkeypatch.setattr(negatives, "_accepted", counting)
    monkeypatch.setattr(negatives, "_SPARE", 2)
    assert starts(11) == expected
    assert pools[0] == 22 and pools[-1] > 22


@pytest.mark.parametrize("unknown", [0.0, 0.05])
def test_negatives_of_yeast_match_their_positives(
    shared_data: Path, tmp_path: Path, unknown: float
) -> None:
    fasta = next((shared_data / "genomes").glob("*.fa*"))
    contigs = scan_fasta(fasta)
    reference = read_codes(stage_fasta(fasta, tmp_path), contigs, 0, contigs.total)
    naming = Naming("strip-chr")
    boxes = read_intervals(
        shared_data / "genomes" / "rhee2012-TATAboxes-cleaned.bed", contigs, naming
    )
    transcripts = read_intervals(
        shared_data / "genomes" / "Scer_polIItranscripts-adjustedTSS.bed.gz", contigs, naming
    )
    length = 100
    start = (boxes.start + boxes.end) // 2 - length // 2
    valid, test = contigs.index["IV"], contigs.index["VII"]
    rest = [i for i in range(len(contigs.names)) if i not in (valid, test)]
    allowed = {"train": rest, "valid": [valid], "test": [test]}
    found = gc_matched_negatives(
        reference,
        contigs,
        boxes.contig,
        start,
        length,
        allowed=allowed,
        seed=0,
        per_positive=2,
        excluded=transcripts,
        max_unknown=unknown,
    )
    windows = np.lib.stride_tricks.sliding_window_view(reference, length)
    kinds = []
    for contig, first in ((boxes.contig, start), (found.contig, found.start)):
        codes = windows[contigs.offsets[contig] + first]
        share = ((codes == 1) | (codes == 2)).sum(axis=1) / (codes < 4).sum(axis=1)
        kinds.append(np.histogram(share, bins=np.arange(51) / 50 - 1e-9)[0])
    assert np.array_equal(kinds[0] * 2, kinds[1])
    groups = [np.isin(boxes.contig[found.positive], members) for members in allowed.values()]
    for members, mine in zip(allowed.values(), groups, strict=True):
        assert np.isin(found.contig[mine], members).all() and mine.sum() >= 100
    drawn = bedframe(contigs, found.contig, found.start, found.start + length)
    for other in (
        bedframe(contigs, boxes.contig, start, start + length),
        bedframe(contigs, transcripts.contig, transcripts.start, transcripts.end),
    ):
        assert (bioframe.count_overlaps(drawn, other)["count"] == 0).all()
    assert (bioframe.count_overlaps(drawn, drawn)["count"] == 1).all()


def bedframe(contigs: Contigs, contig: Any, start: Any, end: Any) -> pd.DataFrame:
    return pd.DataFrame({"chrom": np.array(contigs.names)[contig], "start": start, "end": end})


@pytest.mark.parametrize(
    ("more", "problem", "remedy"),
    [
        ({"per_positive": 30}, "GC bins lack candidates for negatives of all: at GC 0", "overlap"),
        ({"within": spans((0, 0, 30))}, r"\d of \d GC bins lack candidates", "exclude less"),
        ({"per_positive": 0}, "0 negatives of 10 bp", "1 or more"),
        ({"max_unknown": 1.0}, "max_unknown is 1.0", "below 1"),
        ({"max_unknown": float("nan")}, "max_unknown is nan", "below 1"),
        (
            {"allowed": {"train": (0, 1)}},
            "2 positives are on contigs of no split, first 4 on 'c'",
            "",
        ),
        ({"allowed": {"x": (0, 1), "y": (1, 2)}}, "contig 'b' is in both x and y", ""),
    ],
)
def test_bad_settings_are_refused(more: dict[str, Any], problem: str, remedy: str) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        draw(**more)
    assert caught.value.remedy and remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("contig", "start", "problem"),
    [
        ([0, 0], [0, 481], r"positive 1 .* is at 481 to 501 of contig 'a', which has 500 bp"),
        ([0], [-1], "positive 0 .* is at -1 to 19"),
        ([0], [2**62], "positive 0 .* which has 500 bp"),
        ([0, 1], [0, 100], "positive 1 .* has no known base"),
        ([], [], "there is no positive"),
    ],
)
def test_bad_positives_are_refused(contig: list[int], start: list[int], problem: str) -> None:
    reference = genome(1, CONTIGS.total)
    reference[600:620] = 4
    arrays = np.array(contig, dtype=np.int32), np.array(start, dtype=np.int64)
    with pytest.raises(InputError, match=problem) as caught:
        gc_matched_negatives(reference, CONTIGS, *arrays, 20, allowed=ALL, seed=0)
    assert caught.value.remedy


def test_arrays_that_do_not_fit_are_refused() -> None:
    one = np.zeros(1, dtype=np.int64)
    with pytest.raises(ValueError, match="10 codes for contigs of 1250 bases"):
        gc_matched_negatives(genome(0, 10), CONTIGS, one, one, 5, allowed=ALL, seed=0)
    with pytest.raises(ValueError, match="none of 3"):
        gc_matched_negatives(genome(0, 1250), CONTIGS, one + 3, one, 5, allowed=ALL, seed=0)


def test_a_window_of_only_gc_is_in_the_last_bin() -> None:
    reference = np.repeat(np.array([1, 0], dtype=np.uint8), 100)
    contigs, one = Contigs(("a",), (200,)), np.zeros(1, dtype=np.int64)
    found = gc_matched_negatives(reference, contigs, one, one, 10, allowed={"a": (0,)}, seed=0)
    assert 10 <= found.start[0] <= 90
