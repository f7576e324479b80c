"""The cut against brute force: all cuts, all choices of recomputing, simulated one by one."""

from __future__ import annotations

from itertools import combinations, pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.errors import InputError
from tests.trainer.planning.examples import UPKEEPS, conditions, layer, networks
from trainer.config import Recompute
from trainer.grid import Grid
from trainer.planning import search
from trainer.planning.conditions import Conditions
from trainer.planning.costs import LayerCost
from trainer.planning.cut import check_cut
from trainer.planning.hardware import NO_OVERHEAD, Link, Overhead
from trainer.planning.memory import Upkeep
from trainer.planning.pipeline import Durations, simulate
from trainer.planning.problem import Problem
from trainer.planning.programme import propose, smallest_need
from trainer.planning.search import assess_cut, best_cut
from trainer.planning.streams import parts_of

LINKS = st.sampled_from([Link(0.0, 1e12), Link(0.5, 4.0)])


def possible(costs: list[LayerCost], parts: int) -> list[tuple[int, ...]]:
    cuts = [(0, *rest) for rest in combinations(range(1, len(costs)), parts - 1)]
    return [
        cut
        for cut in cuts
        if all(any(c.parameters for c in costs[a:b]) for a, b in pairwise([*cut, len(costs)]))
    ]


def need(
    costs: list[LayerCost], under: Conditions, cut: tuple[int, ...], stage: int, again: bool
) -> float:
    """The memory of a 1F1B stage, written out anew from the words of the documentation."""
    bounds = [*cut, len(costs)]
    layers = costs[bounds[stage] : bounds[stage + 1]]
    received = costs[bounds[stage] - 1].output_bytes if stage else 0
    sent = layers[-1].output_bytes if stage < len(cut) - 1 else 0
    counts = [cost.parameters for cost in layers]
    upkeep = under.upkeep
    state = max(sum(counts) / upkeep.replicas, *counts) if upkeep.zero else sum(counts)
    own = sum(cost.parameter_bytes for cost in layers) + 4 * sum(counts)
    own += 4 * upkeep.state * state + 4 * upkeep.ema * sum(counts)
    activations = sum(cost.activation_bytes for cost in layers)
    alive = min(under.micro_batches, len(cut) - stage)
    passing = alive * (2 * received + sent + (0 if again else activations)) + received + sent
    passing += activations if again else 0
    return own + max(passing, 4 * sum(counts) if upkeep.replicas > 1 else 0)


def step(
    problem: Problem, costs: list[LayerCost], cut: tuple[int, ...], again: tuple[bool, ...]
) -> float:
    """The simulated step of a 1F1B cut."""
    bounds, under = [*cut, len(costs)], problem.conditions
    forward = [sum(c.forward for c in costs[a:b]) for a, b in pairwise(bounds)]
    backward = [sum(c.backward for c in costs[a:b]) for a, b in pairwise(bounds)]
    weights = [sum(c.parameters for c in costs[a:b]) for a, b in pairwise(bounds)]
    largest = [max(c.parameters for c in costs[a:b]) for a, b in pairwise(bounds)]
    upkeep = under.upkeep
    kept = [
        max(w / upkeep.replicas, most) if upkeep.zero else w
        for w, most in zip(weights, largest, strict=True)
    ]
    own = under.overhead
    durations = Durations(
        [f + own.each_pass for f in forward],
        [b + f * r + own.each_pass for f, b, r in zip(forward, backward, again, strict=True)],
        [
            link.seconds(costs[start - 1].output_bytes)
            for link, start in zip(under.links, cut[1:], strict=True)
        ],
        [float(under.reduce_seconds(s, np.array(float(w)))) for s, w in enumerate(weights)],
        [under.update * k + own.each_step for k in kept],
    )
    return simulate(problem.streams, durations).seconds


@given(
    network=networks(4),
    micro_batches=st.integers(1, 5),
    link=LINKS,
    upkeep=UPKEEPS,
    recompute=st.sampled_from(["auto", "on", "off"]),
    memory=st.sampled_from([None, 100.0, 200.0, 400.0]),
    overhead=st.sampled_from([NO_OVERHEAD, Overhead(0.25, 1.5)]),
)
@settings(max_examples=60, deadline=None)
def test_no_other_cut_or_choice_of_recomputing_is_faster(
    network: tuple[list[LayerCost], int],
    micro_batches: int,
    link: Link,
    upkeep: Upkeep,
    recompute: Recompute,
    memory: float | None,
    overhead: Overhead,
) -> None:
    costs, stages = network
    under = conditions(
        stages, micro_batches, link=link, upkeep=upkeep, recompute=recompute, memory=memory,
        update=0.125, overhead=overhead,
    )  # fmt: skip
    cuts = possible(costs, stages)
    problem = Problem.of(costs, under)
    limit = float("inf") if memory is None else memory
    choices = {"auto": (False, True), "on": (True,), "off": (False,)}[recompute]
    fitting = {
        (cut, again): step(problem, costs, cut, again)
        for cut in cuts
        for again in product(choices, repeat=stages)
        if all(need(costs, under, cut, s, again[s]) <= limit for s in range(stages))
    }
    if not fitting:
        smallest = min(
            max(min(need(costs, under, cut, s, a) for a in choices) for s in range(stages))
            for cut in cuts
        )
        assert smallest_need(problem) == pytest.approx(smallest)
        with pytest.raises(InputError, match="no cut fits"):
            best_cut(problem)
        return
    found = best_cut(problem)
    check_cut(found.first, [cost.parameters for cost in costs], under.grid)
    assert found.timeline.seconds == pytest.approx(min(fitting.values()))
    assert fitting[found.first, found.recompute] == pytest.approx(found.timeline.seconds)
    needs = [need(costs, under, found.first, s, found.recompute[s]) for s in range(stages)]
    assert found.bytes == tuple(int(size) for size in needs)


@given(
    case=st.booleans().flatmap(
        lambda folded: st.tuples(st.just(folded), networks(3, 2 if folded else 1))
    ),
    extra=st.integers(0, 3),
    link=LINKS,
    memory=st.sampled_from([None, 150.0, 300.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_lower_bound_is_one(
    case: tuple[bool, tuple[list[LayerCost], int]],
    extra: int,
    link: Link,
    memory: float | None,
) -> None:
    folded, (costs, stages) = case
    parts = stages * 2 if folded else stages
    under = conditions(
        stages,
        extra + (parts if folded else 1),
        folded=folded,
        link=link,
        memory=memory,
        update=0.5,
    )
    problem = Problem.of(costs, under)
    cuts = search.all_cuts(len(costs), parts)
    recompute = problem.needs(cuts).recompute
    for cut, again, bound in zip(
        cuts, recompute, problem.lower_bounds(cuts, recompute), strict=True
    ):
        assert problem.timeline(cut, again).seconds >= bound - 1e-9


@given(
    network=networks(4),
    micro_batches=st.integers(1, 5),
    link=LINKS,
    memory=st.sampled_from([None, 150.0, 300.0]),
)
@settings(max_examples=60, deadline=None)
def test_the_programme_finds_the_least_value(
    network: tuple[list[LayerCost], int], micro_batches: int, link: Link, memory: float | None
) -> None:
    costs, stages = network
    under = conditions(stages, micro_batches, link=link, memory=memory)
    limit = float("inf") if memory is None else memory
    values = []
    for cut in possible(costs, stages):
        bounds, times = [*cut, len(costs)], []
        for stage, (start, stop) in enumerate(pairwise(bounds)):
            plain = need(costs, under, cut, stage, False) <= limit
            if not plain and need(costs, under, cut, stage, True) > limit:
                break
            passes = sum(c.seconds + (0 if plain else c.forward) for c in costs[start:stop])
            cuts = [at for at in (start, stop) if 0 < at < len(costs)]
            passes += sum(2 * link.seconds(costs[at - 1].output_bytes) for at in cuts)
            times.append(passes)
        if len(times) == stages:
            values.append(sum(times) + (micro_batches - 1) * max(times))
    proposals = propose(Problem.of(costs, under))
    if not values:
        assert proposals == []
        return
    assert proposals[0].value == pytest.approx(min(values))
    exact, proposed = best_cut(Problem.of(costs, under)), best_cut(Problem.of(costs, under), 0)
    assert proposed.timeline.seconds >= exact.timeline.seconds - 1e-9


@given(network=networks(3, 2), memory=st.sampled_from([None, 200.0, 400.0]))
@settings(max_examples=40, deadline=None)
def test_the_programme_finds_the_fastest_slowest_pair(
    network: tuple[list[LayerCost], int], memory: float | None
) -> None:
    costs, stages = network
    parts = 2 * stages
    cuts = possible(costs, parts)
    problem = Problem.of(costs, conditions(stages, parts + 1, folded=True, memory=memory))
    bounds = np.array([[*cut, len(costs)] for cut in cuts])
    needs = problem.needs(bounds)
    fits = (needs.bytes <= problem.limit).all(-1)
    least = []
    for cut, recompute in zip(bounds[fits], needs.recompute[fits], strict=True):
        times = []
        for stage in range(stages):
            own = [costs[cut[p] : cut[p + 1]] for p in parts_of(stage, stages, "dualpipev")]
            layers = [cost for part in own for cost in part]
            times.append(sum(c.seconds + c.forward * recompute[stage] for c in layers))
        least.append(max(times))
    proposals = propose(problem)
    assert smallest_need(problem) == pytest.approx(needs.least.max(-1).min())
    assert [proposal.value for proposal in proposals] == pytest.approx(
        [min(least)] if least else []
    )
    if least:
        check_cut(proposals[0].first, [c.parameters for c in costs], Grid(stages, 1, folded=True))


def test_of_equally_fast_cuts_the_one_that_sends_least_wins() -> None:
    costs = [layer(1, output=900), layer(0, parameters=0, output=10), layer(1)]
    found = best_cut(Problem.of(costs, conditions(2, 4, link=Link(0.0, float("inf")))))
    assert found.first == (0, 2)


def test_a_slow_link_moves_the_cut_to_where_little_crosses() -> None:
    costs = [layer(1, output=100), layer(1, output=1), layer(2)]
    assert best_cut(Problem.of(costs, conditions(2, 4))).first == (0, 2)
    costs = [layer(1, output=1), layer(1, output=100), layer(2)]
    slow = conditions(2, 4, link=Link(0.0, 10.0))
    assert best_cut(Problem.of(costs, slow)).first == (0, 1)


def test_only_the_stage_that_would_not_fit_computes_again() -> None:
    # Stage 0 keeps two micro-batches, stage 1 one.
    costs = [layer(3, activations=100), layer(3, activations=100)]
    problem = Problem.of(costs, conditions(2, 4, memory=200.0))
    found = best_cut(problem)
    assert found.recompute == (True, False)
    assert found.bytes[0] <= 200
    free = best_cut(Problem.of(costs, conditions(2, 4)))
    assert free.recompute == (False, False)
    assert free.timeline.seconds < found.timeline.seconds
    with pytest.raises(InputError, match=r'try more stages, .*grid.recompute = "auto"'):
        best_cut(Problem.of(costs, conditions(2, 4, memory=200.0, recompute="off")))


def test_what_does_not_fit_is_refused_with_the_smallest_need_and_remedies() -> None:
    costs = [layer(parameters=10**9), layer(parameters=10**9)]
    upkeep = Upkeep(state=2, ema=False, replicas=2, zero=False)
    under = conditions(2, 4, memory=8e9, upkeep=upkeep)
    with pytest.raises(InputError, match=r"may take 8 GB, .* needs 20 GB at least") as error:
        best_cut(Problem.of(costs, under))
    assert "grid.zero = 1" in str(error.value)
    with pytest.raises(InputError, match=r"the cut \[0, 1\] does not fit"):
        assess_cut(Problem.of(costs, under), (0, 1))


def test_a_long_network_is_cut_without_trying_all_cuts() -> None:
    costs = [layer(1 + (i * 7) % 5, output=i % 3) for i in range(60)]
    total = sum(cost.seconds for cost in costs)
    found = best_cut(Problem.of(costs, conditions(8, 16)))
    ideal = total / 8 * (16 + 7)
    assert ideal <= found.timeline.seconds <= 1.1 * ideal
    folded = best_cut(Problem.of(costs, conditions(4, 16, folded=True)))
    assert total / 4 * 16 <= folded.timeline.seconds <= 1.15 * total / 4 * (16 + 3)
