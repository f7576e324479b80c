"""Normalisation against scikit-learn, preprocessCore's rules and naive numpy; blocks; refusals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from data_shards.build.normalise import (
    Blocks,
    Fitted,
    Log1p,
    MinMax,
    Quantile,
    Step,
    ZScore,
    apply,
    fit,
)
from data_shards.documents import parse
from data_shards.errors import InputError

Floats = npt.NDArray[np.float64]
PROPERTY = settings(deadline=None, max_examples=80)
NAN = math.nan


def whole(values: Floats) -> Blocks:
    return lambda: [values]


def cut(values: Floats, size: int) -> Blocks:
    return lambda: (values[i : i + size] for i in range(0, len(values), size))


def matrices(missing: bool = True, low: float = -1e3, high: float = 1e3) -> st.SearchStrategy[Any]:
    """Between 2 and 12 samples of 2 to 6 features, each sample and feature with two values or more.

    Multiples of 1/8, so that ties happen and sums have no rounding.
    """
    values = st.integers(int(low * 8), int(high * 8)).map(lambda i: i / 8)
    shapes = st.tuples(st.integers(2, 12), st.integers(2, 6))
    full = shapes.flatmap(lambda shape: hnp.arrays(np.float64, shape, elements=values))
    return full.flatmap(_with_gaps) if missing else full


def _with_gaps(values: Floats) -> st.SearchStrategy[Floats]:
    def gaps(mask: npt.NDArray[np.bool_]) -> Floats:
        out = np.where(mask, NAN, values)
        out[:2], out[:, :2] = values[:2], values[:, :2]
        return out

    return hnp.arrays(np.bool_, values.shape).map(gaps)


def test_log1p_is_numpys() -> None:
    values = np.array([[0, 1, 1e6], [NAN, -0.5, 3]])
    fitted = fit(whole(values), ["log1p"])
    assert fitted == Fitted(features=3, steps=(Log1p(),))
    assert np.array_equal(
        apply(fitted, values), np.log1p(values).astype(np.float32), equal_nan=True
    )


@PROPERTY
@given(matrices(), matrices())
def test_zscore_is_scikit_learns(train: Floats, other: Floats) -> None:
    fitted = fit(whole(train), ["zscore"])
    oracle = StandardScaler().fit(train)
    (step,) = fitted.steps
    assert isinstance(step, ZScore)
    assert np.allclose(step.mean, oracle.mean_, rtol=1e-12, atol=1e-12)
    assert np.allclose(np.square(step.sd), oracle.var_, rtol=1e-10, atol=1e-12)
    found, expected = apply(fitted, train), oracle.transform(train)
    assert np.allclose(found, expected, atol=1e-5, equal_nan=True)
    assert found.dtype == np.float32
    if other.shape[1] == train.shape[1]:
        varying = np.delete(np.arange(train.shape[1]), step.constant)
        assert np.allclose(
            apply(fitted, other)[:, varying],
            oracle.transform(other)[:, varying],
            rtol=1e-5,
            atol=1e-4,
            equal_nan=True,
        )


@PROPERTY
@given(matrices(), matrices(), st.booleans())
def test_minmax_is_scikit_learns(train: Floats, other: Floats, clip: bool) -> None:
    fitted = fit(whole(train), ["minmax"], clip=clip)
    oracle = MinMaxScaler(clip=clip).fit(train)
    (step,) = fitted.steps
    assert isinstance(step, MinMax)
    assert np.array_equal(step.low, oracle.data_min_)
    assert np.array_equal(step.high, oracle.data_max_)
    assert np.allclose(apply(fitted, train), oracle.transform(train), atol=1e-6, equal_nan=True)
    if other.shape[1] == train.shape[1]:
        varying = np.delete(np.arange(train.shape[1]), step.constant)
        assert np.allclose(
            apply(fitted, other)[:, varying],
            oracle.transform(other)[:, varying],
            rtol=1e-5,
            atol=1e-5,
            equal_nan=True,
        )


def test_values_beyond_the_training_range_are_clipped_only_if_told() -> None:
    train, other = np.array([[0.0], [10.0]]), np.array([[-10.0], [20.0], [NAN]])
    free = apply(fit(whole(train), ["minmax"]), other)
    assert np.array_equal(free, [[-1], [2], [NAN]], equal_nan=True)
    clipped = apply(fit(whole(train), ["minmax"], clip=True), other)
    assert np.array_equal(clipped, [[0], [1], [NAN]], equal_nan=True)


@pytest.mark.parametrize("name", ["zscore", "minmax"])
def test_features_without_variance_are_named_and_stay_zero(name: Step) -> None:
    train = np.array([[0.1, 1, 5, NAN], [0.1, 2, NAN, 7.7], [0.1, 4, 5, 7.7]])
    fitted = fit(cut(train, 1), [name])
    (step,) = fitted.steps
    assert isinstance(step, ZScore | MinMax)
    assert step.constant == (0, 2, 3)
    out = apply(fitted, np.array([[0.1, 1, 5, 7.7], [9, 9, NAN, 9]]))
    assert out[:, [0, 2, 3]].tolist()[0] == [0, 0, 0]
    assert np.array_equal(out[1, [0, 2, 3]], [0, NAN, 0], equal_nan=True)
    assert not np.signbit(out[:, [0, 2, 3]]).any()


# ---- quantile normalisation


def test_quantile_normalisation_of_the_textbook_example() -> None:
    # Wikipedia's, with samples as rows; the tie of the second one gets (4.67 + 5.67) / 2.
    values = np.array([[5.0, 2, 3, 4], [4, 1, 4, 2], [3, 4, 6, 8]])
    fitted = fit(whole(values), ["quantile"])
    (step,) = fitted.steps
    assert isinstance(step, Quantile)
    assert np.allclose(step.reference, [2, 3, 14 / 3, 17 / 3])
    expected = [[17 / 3, 2, 3, 14 / 3], [31 / 6, 2, 31 / 6, 3], [2, 3, 14 / 3, 17 / 3]]
    assert np.allclose(apply(fitted, values), expected)


def test_an_odd_number_of_equal_values_gets_the_middle_reference() -> None:
    # preprocessCore takes the reference at the mean rank, not the mean over the ranks.
    train = np.array([[0.0, 1, 10, 100], [0, 1, 10, 100]])
    fitted = fit(whole(train), ["quantile"])
    out = apply(fitted, np.array([[7.0, 7, 7, 9], [3, 3, 3, 3]]))
    assert out.tolist() == [[1, 1, 1, 100], [5.5, 5.5, 5.5, 5.5]]


def c_rank(sample: Floats) -> list[float]:
    """get_ranks of preprocessCore's qnorm.c: ranks from 1, equal values share their mean."""
    below = [(sample < x).sum() for x in sample]
    equal = [(sample == x).sum() for x in sample]
    return [float(b + (e + 1) / 2) for b, e in zip(below, equal, strict=True)]


def c_at(table: Floats, place: float) -> float:
    """The value at a place from 1, between two places by interpolation; rounding as in qnorm.c."""
    floor = math.floor(place + 4 * np.finfo(float).eps)
    share = place - floor
    if abs(share) <= 4 * np.finfo(float).eps:
        return float(table[floor - 1])
    return float((1 - share) * table[floor - 1] + share * table[floor])


def c_quantiles(train: Floats, values: Floats) -> Floats:
    """determine_target and using_target of preprocessCore's qnorm.c, value by value."""
    features = train.shape[1]
    reference = np.zeros(features)
    for sample in train:
        known = np.sort(sample[~np.isnan(sample)])
        for i in range(features):
            place = 1 + (len(known) - 1) * (i / (features - 1))
            reference[i] += c_at(known, place) / len(train)
    out = np.full(values.shape, NAN)
    for row, sample in enumerate(values):
        at = np.flatnonzero(~np.isnan(sample))
        for column, rank in zip(at, c_rank(sample[at]), strict=True):
            place = 1 + (features - 1) * ((rank - 1) / (len(at) - 1))
            out[row, column] = c_at(reference, place)
    return out


@PROPERTY
@given(matrices(), matrices(), st.integers(1, 5))
def test_quantile_normalisation_is_preprocess_cores(
    train: Floats, other: Floats, size: int
) -> None:
    fitted = fit(cut(train, size), ["quantile"])
    values = other if other.shape[1] == train.shape[1] else train
    assert np.allclose(
        apply(fitted, values), c_quantiles(train, values), rtol=1e-5, atol=1e-4, equal_nan=True
    )


@given(matrices(missing=False))
@PROPERTY
def test_complete_samples_without_ties_all_get_the_reference(train: Floats) -> None:
    train = train + np.arange(train.shape[1]) / 1000  # multiples of 1/8 never tie now
    out = np.sort(apply(fit(whole(train), ["quantile"]), train), axis=1)
    assert np.allclose(out, np.sort(train, axis=1).mean(axis=0), rtol=1e-5, atol=1e-3)


# ---- composition, blocks, storage

STEPS: list[list[Step]] = [
    ["zscore"],
    ["minmax"],
    ["quantile"],
    ["log1p", "zscore"],
    ["log1p", "quantile", "minmax"],
    ["quantile", "zscore"],
    ["zscore", "minmax"],
    ["minmax", "log1p"],
    [],
]


@PROPERTY
@given(matrices(low=0), st.integers(1, 12), st.sampled_from(STEPS))
def test_other_blocks_give_the_same_fit(train: Floats, size: int, steps: list[Step]) -> None:
    one, two = fit(whole(train), steps), fit(cut(train, size), steps)
    assert numbers(one) == pytest.approx(numbers(two), rel=1e-9, abs=1e-9)
    assert np.allclose(apply(one, train), apply(two, train), atol=1e-4, equal_nan=True)


def numbers(fitted: Fitted) -> list[float]:
    values = [v for step in fitted.steps for v in step.model_dump().values()]
    return [n for v in values if isinstance(v, tuple) for n in v]


@PROPERTY
@given(matrices(low=0), st.sampled_from(STEPS))
def test_each_step_is_fitted_on_what_the_earlier_ones_make(
    train: Floats, steps: Sequence[Step]
) -> None:
    values = train
    for step in steps:
        values = apply_exact(step, values)
    assert np.allclose(apply(fit(whole(train), steps), train), values, atol=2e-3, equal_nan=True)


def apply_exact(step: Step, values: Floats) -> Floats:
    """One step by plain numpy, in float64."""
    naive: dict[str, Callable[[Floats], Floats]] = {
        "log1p": np.log1p,
        "zscore": lambda x: _divide(x - np.nanmean(x, axis=0), np.nanstd(x, axis=0), x),
        "minmax": lambda x: _divide(
            x - np.nanmin(x, axis=0), np.nanmax(x, axis=0) - np.nanmin(x, axis=0), x
        ),
        "quantile": lambda x: c_quantiles(x, x),
    }
    return naive[step](values)


def _divide(values: Floats, scale: Floats, original: Floats) -> Floats:
    constant = np.nanmin(original, axis=0) == np.nanmax(original, axis=0)
    out = values / np.where(constant, 1, scale)
    out[:, constant] *= 0
    return out


@given(
    hnp.arrays(
        np.float64, (5, 3), elements=st.floats(-1e30, 1e30, allow_nan=False, allow_infinity=False)
    ),
    st.sampled_from([["zscore"], ["minmax"], ["quantile"], ["quantile", "minmax"]]),
)
@PROPERTY
def test_what_is_stored_as_json_comes_back_exactly(train: Floats, steps: list[Step]) -> None:
    fitted = fit(whole(train), steps, clip="minmax" in steps)
    assert Fitted.model_validate_json(fitted.model_dump_json()) == fitted
    assert parse(Fitted, fitted.model_dump(), "x.json") == fitted


def test_blocks_are_read_once_for_each_step() -> None:
    calls = 0

    def blocks() -> Iterator[Floats]:
        nonlocal calls
        calls += 1
        yield np.zeros((0, 2))
        yield np.arange(6.0).reshape(3, 2)
        yield np.zeros((0, 2))

    fitted = fit(blocks, ["log1p", "zscore", "minmax"])
    assert calls == 1 + 3
    assert fitted.features == 2


def test_blocks_are_not_written_to() -> None:
    values = np.array([[1.0, 2], [3, NAN]])
    values.flags.writeable = False
    for steps in STEPS:
        if "quantile" not in steps:
            apply(fit(whole(values), steps), values)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int16, np.uint8])
def test_other_dtypes_are_read_as_numbers(dtype: Any) -> None:
    values = np.array([[1, 2], [3, 5], [4, 7]], dtype=dtype)
    exact = values.astype(np.float64)
    fitted = fit(whole(values), ["log1p", "zscore"])
    assert fitted == fit(whole(exact), ["log1p", "zscore"])
    assert np.array_equal(apply(fitted, values), apply(fitted, exact))


def test_moments_far_from_zero_are_exact() -> None:
    base = np.array([[4.0], [7], [13], [16]])
    (step,) = fit(cut(base + 1e9, 1), ["zscore"]).steps
    assert isinstance(step, ZScore)
    assert step.mean == (1e9 + 10,)
    assert step.sd[0] == pytest.approx(math.sqrt(22.5), rel=1e-9)


def test_real_expression_is_scaled_as_by_scikit_learn(shared_data: Path) -> None:
    with np.load(shared_data / "dgex" / "derived" / "gtex_467genes_520samples.npz") as data:
        values = data["X"].astype(np.float64)
    train, test = values[:400], values[400:]
    fitted = fit(cut(train, 64), ["zscore"])
    (step,) = fitted.steps
    assert isinstance(step, ZScore)
    varying = np.delete(np.arange(values.shape[1]), step.constant)
    oracle = StandardScaler().fit(train).transform(test)
    assert np.allclose(apply(fitted, test)[:, varying], oracle[:, varying], rtol=1e-6, atol=1e-6)
    assert len(step.constant) == 8  # not expressed in the first 400 samples
    found = apply(fit(cut(train, 64), ["quantile"]), test[:10])
    assert np.allclose(found, c_quantiles(train, test[:10]), rtol=1e-5, atol=1e-6)


def test_no_numpy_warning_is_raised() -> None:
    values = np.array([[1.0, NAN, 3, 1], [2, 5, NAN, 1], [9, 5, 7, NAN]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steps in STEPS:
            apply(fit(cut(values, 1), steps), values)


# ---- refusals


@pytest.mark.parametrize("steps", [["log1p"], ["zscore", "log1p"]])
def test_values_without_a_logarithm_are_refused(steps: list[Step]) -> None:
    good, bad = np.array([[0.0, 1], [0.5, 2]]), np.array([[0.0, 2], [3, -1]])
    if steps == ["log1p"]:
        with pytest.raises(
            InputError, match=r"sample 3, feature 1 .*: -1.0 is not above -1"
        ) as caught:
            fit(lambda: [good, bad], steps)
        assert "logarithms already" in (caught.value.remedy or "")
        with pytest.raises(InputError, match=r"sample 1, feature 1"):
            apply(fit(whole(good), steps), bad)
    else:
        with pytest.raises(InputError, match="is not above -1"):
            fit(lambda: [good, bad], steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("value", [math.inf, -math.inf])
def test_infinite_values_are_refused(steps: list[Step], value: float) -> None:
    good = np.array([[0.0, 1, 2], [0.5, 2, 8]])
    bad = np.array([[0, value, 3]])
    with pytest.raises(InputError, match=r"sample 0, feature 1 .* is not finite"):
        apply(fit(whole(good), steps), bad)
    if steps:
        with pytest.raises(InputError, match=r"sample 2, feature 1 .* is not finite"):
            fit(lambda: [good, bad], steps)


@pytest.mark.parametrize("name", ["zscore", "minmax"])
def test_a_feature_never_seen_in_training_is_refused(name: Step) -> None:
    with pytest.raises(InputError, match=r"2 features have no value .* first \[0, 2\]") as caught:
        fit(cut(np.array([[NAN, 1, NAN], [NAN, 2, NAN]]), 1), [name])
    assert "leave these features out" in (caught.value.remedy or "")


def test_a_sample_with_one_value_has_no_quantiles() -> None:
    train = np.array([[1.0, 2, 3], [NAN, NAN, 3]])
    with pytest.raises(InputError, match=r"sample 1 .* has 1 values"):
        fit(cut(train, 1), ["quantile"])
    with pytest.raises(InputError, match=r"sample 1 .* has 1 values"):
        apply(fit(whole(train[:1]), ["quantile"]), train)
    with pytest.raises(InputError, match=r"sample 0 .* has 1 values"):
        fit(whole(np.ones((3, 1))), ["quantile"])


@pytest.mark.parametrize("steps", [["zscore"], ["log1p"], []])
@pytest.mark.parametrize("blocks", [[], [np.zeros((0, 3))]])
def test_no_training_sample_is_refused(steps: list[Step], blocks: list[Floats]) -> None:
    if steps or not blocks:
        with pytest.raises(InputError, match="no training sample"):
            fit(lambda: blocks, steps)


def test_another_number_of_features_is_refused() -> None:
    train = np.arange(6.0).reshape(2, 3)
    with pytest.raises(InputError, match="4 features where 3 were fitted"):
        apply(fit(whole(train), ["zscore"]), np.zeros((1, 4)))
    with pytest.raises(InputError, match="4 features where 3 were fitted"):
        fit(lambda: [train, np.zeros((1, 4))], ["zscore"])


@pytest.mark.parametrize("bad", [np.zeros(3), np.zeros((1, 3, 1)), np.array([["a", "b", "c"]])])
def test_what_is_no_block_is_refused(bad: Any) -> None:
    fitted = fit(whole(np.arange(6.0).reshape(2, 3)), ["zscore"])
    with pytest.raises(ValueError, match="a block of"):
        apply(fitted, bad)


def test_clip_without_minmax_is_refused() -> None:
    with pytest.raises(InputError, match="clip is set without minmax"):
        fit(whole(np.ones((2, 2))), ["zscore"], clip=True)


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("zscore", [1e200, -1e200], "too large for a standard deviation"),
        ("minmax", [1.7e308, -1.7e308], "too far for float64"),
        ("quantile", [1e39, 2e39], "too large for float32"),
    ],
)
def test_huge_values_are_refused(name: Step, values: list[float], problem: str) -> None:
    train = np.array(values)[:, None] * np.ones((1, 2))
    with pytest.raises(InputError, match=problem):
        apply(fit(whole(train), [name]), train)


def test_a_value_that_overflows_a_step_is_refused_even_if_a_later_one_would_clip_it() -> None:
    train = np.array([[0.0], [1e-300], [2e-300]])
    fitted = fit(whole(train), ["minmax", "minmax"], clip=True)
    assert apply(fitted, train).ravel().tolist() == [0, 0.5, 1]
    free = fit(whole(train), ["minmax"])
    with pytest.raises(InputError, match=r"1e\+300 is too large for minmax"):
        apply(free, np.array([[1e300]]))
