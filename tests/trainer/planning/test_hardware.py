"""Which link lies between which workers."""

from __future__ import annotations

import numpy as np
import torch

from trainer.config import RunConfig
from trainer.grid import BatchLayout, Grid
from trainer.planning.conditions import Conditions
from trainer.planning.hardware import (
    CPU_LINK,
    GPU_NETWORK,
    Hardware,
    Link,
    default_links,
    device_memory,
)

WITHIN, NETWORK = Link(1e-6, 1e10), Link(1e-4, 1e9)


def nodes(count: int, per_node: int) -> Hardware:
    return Hardware(count, per_node, WITHIN, NETWORK)


def test_a_message_takes_latency_and_its_bytes() -> None:
    assert Link(0.5, 4.0).seconds(2.0) == 1.0
    assert NETWORK.shared(4) == Link(1e-4, 2.5e8)
    assert Link(1.0, 8.0, ring=Link(2.0, 4.0)).shared(2) == Link(1.0, 4.0, ring=Link(2.0, 2.0))


def test_stages_of_a_replica_on_one_node_talk_within_it() -> None:
    assert nodes(2, 4).pipeline_links(Grid(4, 2)) == (WITHIN,) * 3
    assert nodes(2, 4).pipeline_links(Grid(8, 1)) == (WITHIN,) * 3 + (NETWORK,) + (WITHIN,) * 3


def test_a_link_is_the_networks_if_it_is_in_any_replica() -> None:
    # Ranks 0-2 | 3-5 are replicas, nodes have 4 workers: the second replica lies on both.
    assert nodes(2, 4).pipeline_links(Grid(3, 2)) == (NETWORK, WITHIN)


def test_rings_that_leave_a_node_share_its_network() -> None:
    assert nodes(1, 4).reduce_links(Grid(2, 2)) == (WITHIN,) * 2
    assert nodes(2, 4).reduce_links(Grid(4, 2)) == (NETWORK.shared(4),) * 4
    assert nodes(2, 4).reduce_links(Grid(1, 8)) == (NETWORK,)


def test_averaging_takes_a_ring_s_time_where_a_link_has_one() -> None:
    config = RunConfig.model_validate({"recipe": "danq", "grid": {"stages": 1, "replicas": 2}})
    within = Link(1e-6, 1e10, ring=Link(0.5, 4.0))
    grid, weights = Grid(1, 2), np.array([3.0])
    under = Conditions.of(config, grid, BatchLayout(2, 2, 1), Hardware(1, 2, within, NETWORK))
    assert under.reduce_seconds(0, weights) == 2 * (12 / 2 / 4 + 0.5)


def test_defaults_are_of_the_device() -> None:
    assert default_links("cpu")[0] == CPU_LINK
    assert default_links("cuda")[1] == GPU_NETWORK
    whole, half = (device_memory(torch.device("cpu"), n) for n in (1, 2))
    assert whole == 2 * half > 1e8
