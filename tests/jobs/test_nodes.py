"""On which nodes workers go, and which nodes answer."""

from __future__ import annotations

import socket
from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from jobs.nodes import Node, answering, most_replicas, place
from trainer.grid import Grid

NEED = {"CPU": 1.0}


def some(counts: list[int]) -> list[Node]:
    return [Node(f"n{i}", {"CPU": float(count)}) for i, count in enumerate(counts)]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5), st.integers(1, 4), st.integers(1, 4))
def test_places_hold_all_workers_never_too_many_and_keep_a_nodes_ranks_in_a_row(
    counts: list[int], stages: int, replicas: int
) -> None:
    grid = Grid(stages, replicas)
    places = place(some(counts), NEED, grid)
    if places is None:
        assert sum(counts) < grid.workers
        return
    assert len(places) == grid.workers
    for i, count in enumerate(counts):
        assert places.count(f"n{i}") <= count
    assert len(list(groupby(places))) == len(set(places))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=5), st.integers(1, 3))
def test_stages_of_a_replica_sit_together_where_all_replicas_fit_so(
    multiples: list[int], stages: int
) -> None:
    replicas = sum(multiples)
    if replicas == 0:
        return
    grid = Grid(stages, replicas)
    places = place(some([stages * n for n in multiples]), NEED, grid)
    assert places is not None
    for replica in range(replicas):
        assert len(set(places[replica * stages : (replica + 1) * stages])) == 1


def test_a_node_without_the_resource_fits_nobody_and_replicas_may_span_nodes() -> None:
    found = [*some([3, 1]), Node("gpu", {"GPU": 4.0})]
    assert found[-1].fits(NEED) == 0
    assert most_replicas(found, NEED, 2) == 2
    assert most_replicas(found, NEED, 5) == 0


def test_a_node_answers_if_something_listens_there() -> None:
    with socket.socket() as listening, socket.socket() as closed:
        for each in (listening, closed):
            each.bind(("127.0.0.1", 0))
        listening.listen()
        there = Node("there", {}, "127.0.0.1", listening.getsockname()[1])
        gone = Node("gone", {}, "127.0.0.1", closed.getsockname()[1])
        assert answering([there, gone]) == {"there"}
        assert answering([]) == set()
