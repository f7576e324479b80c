"""How far a training is, as a checkpoint keeps it."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from trainer.progress import Progress, epochs_since_best

LOSSES = st.lists(st.one_of(st.none(), st.just(math.nan), st.floats(0, 10)), max_size=12)


def after(losses: list[float | None]) -> Progress:
    progress = Progress(network="net", micro_batch=4, stages=2, cut=(0, 3))
    for epoch, loss in enumerate(losses, start=1):
        progress = progress.model_copy(update={"step": epoch * 10}).after_epoch(epoch, loss)
    return progress


@given(LOSSES)
def test_the_best_epoch_is_the_first_with_the_lowest_finite_loss(
    losses: list[float | None],
) -> None:
    progress = after(losses)
    finite = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    if not finite:
        assert (progress.best_epoch, progress.best_step) == (None, None)
        return
    best = losses.index(min(finite)) + 1
    assert (progress.best_epoch, progress.best_step) == (best, best * 10)


@given(LOSSES, st.integers(1, 5))
def test_patience_counts_epochs_since_the_best(losses: list[float | None], patience: int) -> None:
    progress = after(losses)
    since = len(losses) - (progress.best_epoch or 0)
    assert epochs_since_best(progress.losses) == since
    assert progress.exhausted(patience) == (since >= patience)


@given(LOSSES)
def test_it_comes_back_from_json_as_it_was(losses: list[float | None]) -> None:
    progress = after(losses)
    assert Progress.model_validate_json(progress.model_dump_json()) == progress


def test_a_cut_stays_on_as_many_stages() -> None:
    progress = after([])
    assert progress.is_on(2, folded=False)
    assert not progress.is_on(3, folded=False)
    assert not progress.is_on(2, folded=True)
