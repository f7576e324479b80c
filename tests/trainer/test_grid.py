from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from data_shards.errors import InputError
from trainer.grid import (
    BatchLayout,
    EvaluationLayout,
    Grid,
    choose_micro_batches,
    lay_out,
    same_parts,
)

SIZES = st.integers(1, 6)


@given(SIZES, SIZES)
def test_ranks_fill_the_grid_with_the_stages_of_a_replica_side_by_side(
    stages: int, replicas: int
) -> None:
    grid = Grid(stages, replicas)
    places = [(grid.replica(rank), grid.stage(rank)) for rank in range(grid.workers)]
    assert places == [(r, s) for r in range(replicas) for s in range(stages)]
    assert places[grid.reporter] == (0, stages - 1)


@given(st.integers(1, 400), SIZES, SIZES, st.none() | st.integers(1, 8))
def test_a_layout_shares_out_the_whole_batch_or_names_the_nearest_that_it_could(
    batch_size: int, stages: int, replicas: int, micro_batches: int | None
) -> None:
    grid = Grid(stages, replicas)
    try:
        layout = lay_out(batch_size, grid, micro_batches)
    except InputError as error:
        assert batch_size % (replicas * (micro_batches or 1))
        nearest = [int(word) for word in (error.remedy or "").split() if word.isdigit()]
        for size in nearest:
            lay_out(size, grid, micro_batches)
        assert nearest
        return
    assert layout.micro_batch * layout.micro_batches * replicas == batch_size
    starts = [layout.first(7, replica) for replica in range(replicas)]
    assert starts == [7 * batch_size + r * layout.per_replica for r in range(replicas)]


@given(st.integers(1, 1000), st.integers(1, 8))
def test_chosen_micro_batches_divide_and_keep_a_size_worth_computing(
    share: int, stages: int
) -> None:
    count = choose_micro_batches(share, stages)
    assert share % count == 0
    assert count <= 4 * stages
    assert count <= stages or share // count >= 16


def test_one_stage_takes_its_share_at_once() -> None:
    assert choose_micro_batches(100, 1) == 1


@given(
    st.integers(1, 500),
    st.integers(1, 5),
    st.integers(1, 50),
    st.integers(1, 8),
    st.integers(8, 40),
)
def test_evaluation_places_hold_every_row_once_and_then_only_padding(
    rows: int, replicas: int, micro: int, at_least: int, at_most: int
) -> None:
    layout = EvaluationLayout(rows, replicas, micro, at_least, at_most)
    places: list[int] = []
    for replica in range(replicas):
        for number in range(layout.rounds):
            start, stop = layout.places(replica, number)
            assert at_least * micro <= stop - start <= at_most * micro
            places += range(start, stop)
    assert places == list(range(len(places)))
    padding = max(at_least, layout.rounds) * micro * replicas
    assert rows <= len(places) < rows + padding


@given(st.integers(1, 12), SIZES, SIZES, SIZES)
def test_on_another_grid_micro_batches_keep_their_size_or_it_is_no_grid_for_them(
    micro: int, parts: int, before: int, after: int
) -> None:
    batch_size = micro * parts * before
    layout = same_parts(batch_size, Grid(2, after), micro)
    if parts * before % after:
        assert layout is None
    else:
        assert layout is not None
        assert layout.micro_batch == micro
        assert layout.micro_batches * after == parts * before


@given(st.integers(1, 200), st.integers(1, 4), st.integers(1, 4))
def test_an_explicit_count_is_kept(batch_size: int, replicas: int, count: int) -> None:
    assume(batch_size % (replicas * count) == 0)
    assert lay_out(batch_size, Grid(2, replicas), count).micro_batches == count


def test_the_refusal_tells_the_arithmetic() -> None:
    with pytest.raises(InputError, match=r"100 does not divide over 3 replica\(s\) x 4") as caught:
        lay_out(100, Grid(2, 3), 4)
    assert "96 or 108" in (caught.value.remedy or "")


def test_layout_of_the_paper() -> None:
    assert lay_out(100, Grid(2, 1), None) == BatchLayout(100, 1, 5)
