"""What workers get: wishes are met or refused, never silently changed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_shards.errors import InputError
from jobs.cluster import Cluster, share
from jobs.nodes import Node, place
from trainer.grid import Grid


def offer(cpus: int, gpus: int = 0, local: bool = True) -> Cluster:
    return Cluster(((cpus, gpus),), local)


def test_the_device_is_the_gpu_only_where_every_worker_has_one() -> None:
    assert share(offer(8, 4), Grid(2, 2), None).device == "gpu"
    assert share(offer(8, 0), Grid(2, 2), None).device == "cpu"
    assert share(offer(8, 4), Grid(2, 2), "cpu").device == "cpu"


def test_too_few_gpus_are_an_error_and_not_a_fallback() -> None:
    with pytest.raises(InputError, match="4 workers need a GPU each, and there are 2"):
        share(offer(8, 2), Grid(2, 2), None)
    with pytest.raises(InputError, match="--device gpu: 4 workers need a GPU each"):
        share(offer(8, 0), Grid(2, 2), "gpu")


def test_the_choice_is_always_told() -> None:
    assert "computing on CPU: 2 workers, 8 CPUs" in share(offer(8), Grid(2, 1), None).notes[0]


def test_cores_are_shared_out_and_overloading_is_told_or_refused() -> None:
    assert share(offer(8), Grid(2, 1), None).cpus == 4
    crowded = share(offer(2), Grid(2, 2), None)
    assert crowded.cpus == 0.5
    assert any("share 2 CPUs" in note for note in crowded.notes)
    with pytest.raises(InputError, match="4 workers need a CPU each, and the cluster has 2"):
        share(offer(2, local=False), Grid(2, 2), None)


def test_resources_are_rays() -> None:
    assert share(offer(8, 2), Grid(2, 1), "gpu").resources == {"CPU": 4.0, "GPU": 1.0}
    assert share(offer(8), Grid(2, 1), None).resources == {"CPU": 4.0}


@given(
    each=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=4),
    stages=st.integers(1, 3),
    replicas=st.integers(1, 3),
    gpu=st.booleans(),
)
def test_workers_get_no_more_than_fits_into_nodes_and_no_less(
    each: list[tuple[int, int]], stages: int, replicas: int, gpu: bool
) -> None:
    grid = Grid(stages, replicas)

    def placed(cpus: float) -> bool:
        need = {"CPU": cpus} | ({"GPU": 1.0} if gpu else {})
        nodes = [
            Node(str(number), {"CPU": float(cpu), "GPU": float(gpus)})
            for number, (cpu, gpus) in enumerate(each)
        ]
        return place(nodes, need, grid) is not None

    try:
        found = share(Cluster(tuple(each), local=False), grid, "gpu" if gpu else "cpu")
    except InputError:
        assert not placed(1.0)
        return
    assert placed(found.cpus)
    assert not placed(found.cpus + 1)
