"""Small networks and conditions for the tests of planning."""

from __future__ import annotations

from hypothesis import strategies as st

from trainer.config import Recompute
from trainer.grid import Grid
from trainer.planning.conditions import Conditions
from trainer.planning.costs import LayerCost
from trainer.planning.hardware import NO_OVERHEAD, Link, Overhead
from trainer.planning.memory import Upkeep

COSTS = st.lists(
    st.builds(
        LayerCost,
        name=st.just("x"),
        forward=st.integers(0, 9).map(float),
        backward=st.integers(0, 9).map(float),
        parameters=st.sampled_from([0, 3, 5]),
        parameter_bytes=st.integers(0, 40),
        output_bytes=st.integers(0, 9),
        activation_bytes=st.integers(0, 60),
    ),
    min_size=3,
    max_size=7,
).filter(lambda costs: any(cost.parameters for cost in costs))


def networks(most_stages: int, parts: int = 1) -> st.SearchStrategy[tuple[list[LayerCost], int]]:
    """Layers, and a number of stages that they can be cut into."""
    return COSTS.filter(lambda costs: _training(costs) >= parts).flatmap(
        lambda costs: st.tuples(
            st.just(costs), st.integers(1, min(most_stages, _training(costs) // parts))
        )
    )


def _training(costs: list[LayerCost]) -> int:
    return sum(cost.parameters > 0 for cost in costs)


UPKEEPS = st.builds(
    Upkeep,
    state=st.integers(0, 2),
    ema=st.booleans(),
    replicas=st.integers(1, 3),
    zero=st.booleans(),
)


FAST = Link(0.0, 1e9)
PLAIN = Upkeep(state=1, ema=False, replicas=1, zero=False)


def layer(
    seconds: float = 1.0, parameters: int = 5, output: int = 0, activations: int = 0
) -> LayerCost:
    return LayerCost(
        "x", seconds / 3, seconds * 2 / 3, parameters, 4 * parameters, output, activations
    )


def conditions(
    stages: int,
    micro_batches: int,
    *,
    folded: bool = False,
    link: Link = FAST,
    upkeep: Upkeep = PLAIN,
    recompute: Recompute = "auto",
    memory: float | None = None,
    update: float = 0.0,
    overhead: Overhead = NO_OVERHEAD,
) -> Conditions:
    return Conditions(
        Grid(stages, upkeep.replicas, folded),
        micro_batches,
        (link,) * (stages - 1),
        (link,) * stages,
        upkeep,
        recompute,
        memory,
        update,
        overhead,
    )
