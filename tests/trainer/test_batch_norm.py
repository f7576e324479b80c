"""Running statistics take one update a step, however the batch is cut."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.batch_norm import StepStatistics

STEPS, MICRO_BATCHES, SAMPLES = 3, 4, 6


def network(momentum: float | None = 0.1) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv1d(4, 5, 3),
        nn.BatchNorm1d(5, momentum=momentum),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(40, 3),
        nn.BatchNorm1d(3, momentum=0.3, affine=False),
    )


def micro_batches(step: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(step)
    batch = torch.randn(MICRO_BATCHES * SAMPLES, 4, 10, generator=generator) * 3 + 1
    return list(batch.split(SAMPLES))


def take_step(module: nn.Module, batches: Sequence[Tensor], *, recompute: str = "") -> None:
    for batch in batches:
        inputs = batch.clone().requires_grad_()
        outputs: Tensor
        if recompute:
            outputs = checkpoint(module, inputs, use_reentrant=recompute == "reentrant")
        else:
            outputs = module(inputs)
        outputs.pow(3).sum().backward()  # type: ignore[no-untyped-call]


def train(module: nn.Module, steps: range = range(STEPS), *, recompute: str = "") -> nn.Module:
    statistics = StepStatistics(module)
    for step in steps:
        statistics.begin()
        take_step(module, micro_batches(step), recompute=recompute)
        statistics.end(None)
    return module


def buffers(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.named_buffers()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-6, atol=1e-7, msg=name)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in found)


@pytest.mark.parametrize("momentum", [0.1, 0.7, None])
def test_one_micro_batch_a_step_is_plain_batch_norm(momentum: float | None) -> None:
    ours, plain = network(momentum), network(momentum)
    statistics = StepStatistics(ours)
    for step in range(5):
        statistics.begin()
        take_step(ours, micro_batches(step)[:1])
        statistics.end(None)
        take_step(plain, micro_batches(step)[:1])
        assert_close(buffers(ours), buffers(plain))
    for mine, expected in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, expected.grad), "normalisation is torch's"


def test_several_micro_batches_fold_in_the_mean_of_their_statistics() -> None:
    module = train(network(), range(1))
    layer, conv = network()[1], network()[0]
    activations = [conv(batch).detach() for batch in micro_batches(0)]
    mean = torch.stack([x.mean((0, 2)) for x in activations]).mean(0)
    variance = torch.stack([x.var((0, 2)) for x in activations]).mean(0)
    torch.testing.assert_close(module[1].running_mean, 0.1 * mean)
    torch.testing.assert_close(module[1].running_var, 0.9 + 0.1 * variance)
    assert module[1].num_batches_tracked == 1
    # The linear layer sees normalised inputs; torch with momentum 1 tells its statistics.
    last = copy.deepcopy(network())
    layer, last[5].momentum = last[5], 1.0
    seen = []
    for batch in micro_batches(0):
        last(batch)
        seen.append(layer.running_mean.clone())
    torch.testing.assert_close(module[5].running_mean, 0.3 * torch.stack(seen).mean(0))


def test_without_a_momentum_the_statistics_are_the_mean_over_all_steps() -> None:
    module, plain = train(network(None)), network(None)
    for step in range(STEPS):
        take_step(plain, micro_batches(step))
    torch.testing.assert_close(module[1].running_mean, plain[1].running_mean)
    torch.testing.assert_close(module[1].running_var, plain[1].running_var)
    assert module[1].num_batches_tracked == STEPS


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("recompute", ["reentrant", "non-reentrant"])
def test_recomputing_activations_changes_no_bit(recompute: str, momentum: float | None) -> None:
    module = train(network(momentum), recompute=recompute)
    assert_same(buffers(module), buffers(train(network(momentum))))


@pytest.mark.parametrize("recompute", ["reentrant", "non-reentrant"])
def test_the_recomputation_really_runs_the_layers_twice(recompute: str) -> None:
    module = network()
    take_step(module, micro_batches(0), recompute=recompute)
    assert module[1].num_batches_tracked == 2 * MICRO_BATCHES


def test_the_order_of_micro_batches_and_recomputations_changes_no_bit() -> None:
    results = []
    for order in ((0, 1, 2, 3), (3, 1, 0, 2), (0, 1, 0, 2, 1, 3, 2, 3)):
        module = network()
        statistics = StepStatistics(module)
        statistics.begin()
        take_step(module, [micro_batches(0)[i] for i in order])
        statistics.end(None)
        results.append(buffers(module))
    assert_same(results[1], results[0])
    assert_same(results[2], results[0])


def test_going_on_from_saved_buffers_is_exact() -> None:
    begun = train(network(), range(2))
    resumed = network()
    resumed.load_state_dict(begun.state_dict())
    train(resumed, range(2, 4))
    assert_same(buffers(resumed), buffers(train(network(), range(4))))


def test_evaluation_between_steps_uses_the_folded_statistics_and_leaves_them() -> None:
    module = network()
    statistics = StepStatistics(module)
    for step in range(STEPS):
        statistics.begin()
        take_step(module, micro_batches(step))
        statistics.end(None)
        before = buffers(module)
        module.eval()
        plain = network().eval()
        plain.load_state_dict(module.state_dict())
        assert torch.equal(module(micro_batches(9)[0]), plain(micro_batches(9)[0]))
        module.train()
        assert_same(buffers(module), before)
    assert_same(buffers(module), buffers(train(network())))


def test_a_discarded_step_leaves_no_trace() -> None:
    module = train(network())
    before = buffers(module)
    statistics = StepStatistics(module)
    statistics.begin()
    take_step(module, [batch * torch.nan for batch in micro_batches(0)])
    assert module[1].running_mean.isnan().all()
    statistics.discard()
    assert_same(buffers(module), before)
    assert [module[1].momentum, module[5].momentum] == [0.1, 0.3]
    train(module, range(STEPS, STEPS + 1))
    assert_same(buffers(module), buffers(train(network(), range(STEPS + 1))))


def test_a_layer_in_evaluation_mode_keeps_its_statistics() -> None:
    module = train(network())
    before = buffers(module)
    module[1].eval()
    train(module)
    after = buffers(module)
    assert all(torch.equal(after[n], before[n]) for n in before if n.startswith("1."))
    assert not torch.equal(after["5.running_mean"], before["5.running_mean"])


def test_a_module_without_tracked_statistics_is_left_alone() -> None:
    module = nn.Sequential(
        nn.Linear(3, 3),
        nn.BatchNorm1d(3, track_running_stats=False),
        nn.InstanceNorm1d(3, track_running_stats=True),
    )
    statistics = StepStatistics(module)
    assert not statistics
    statistics.begin()
    statistics.end(None)
    statistics.discard()
    assert StepStatistics(network())


def test_steps_begin_and_end_in_turn() -> None:
    statistics = StepStatistics(network())
    with pytest.raises(RuntimeError, match="no step has begun"):
        statistics.end(None)
    statistics.begin()
    with pytest.raises(RuntimeError, match="neither ended nor discarded"):
        statistics.begin()


def train_replica(rank: int, replicas: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=replicas
    )
    module = network()
    statistics = StepStatistics(module)
    part = MICRO_BATCHES // replicas
    for step in range(STEPS):
        statistics.begin()
        take_step(module, micro_batches(step)[rank * part : (rank + 1) * part])
        statistics.end(dist.group.WORLD)
    torch.save(buffers(module), Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_replicas_have_the_statistics_of_one_process(tmp_path: Path) -> None:
    mp.spawn(train_replica, args=(2, str(tmp_path)), nprocs=2)
    expected = buffers(train(network()))
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert_same(found[0], found[1])
    for name, value in found[0].items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-7, msg=name)
