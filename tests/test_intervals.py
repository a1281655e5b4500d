"""Intervals of new groups, against simulated truth and other implementations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import norm
from scipy.stats import t as student

from stomics_tools._intervals import (
    N_QUANTILES,
    GroupResiduals,
    LevelError,
    bounds,
    check_level,
    group_residuals,
    largest_level,
    weighted_quantiles,
)

AT = np.arange(1, N_QUANTILES + 1) / (N_QUANTILES + 1)
NOISE: dict[str, Callable[..., np.ndarray]] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy tails": lambda rng, size: rng.standard_t(3, size=size) / np.sqrt(3),
    "skewed": lambda rng, size: rng.exponential(size=size) - 1,
}


def coverage(
    n_groups: int, *levels: float, noise: str = "normal", between: float = 1.0, centred: bool = False, seed: int = 0
) -> list[float]:
    """Mean coverage of a new group over 1,000 repeats (genes), each with 40 spots of standard deviation 0.3 a group.

    `centred`: predictions are the mean of the groups of training, so that residuals of a group left out mirror those of
    the others; otherwise predictions are the mean of all groups that there are.
    """
    rng = np.random.default_rng(seed)
    n_spots, n_repeats = 40, 1000
    effect = between * rng.normal(size=(n_groups + 1, n_repeats))
    said, said_left_out = 0.0, 0.0
    if centred:
        said = effect[:-1].mean(axis=0)
        said_left_out = (effect[:-1].sum(axis=0) - effect[:-1]) / (n_groups - 1)
    group = np.repeat(np.arange(n_groups), n_spots)
    residuals = (effect[:-1] - said_left_out)[group] + 0.3 * NOISE[noise](rng, (len(group), n_repeats))
    found = group_residuals(residuals, group)
    new = effect[-1] - said + 0.3 * NOISE[noise](rng, (n_spots, n_repeats))
    ends = [bounds(found, level) for level in levels]
    return [float(((new >= lower) & (new <= upper)).mean()) for lower, upper in ends]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("n_groups", [3, 4, 5, 8])
def test_new_groups_are_covered_at_the_level(n_groups: int, centred: bool) -> None:
    half, most, nearly_all = coverage(n_groups, 0.5, 0.8, 0.9, centred=centred)
    assert 0.76 < most < 0.88
    assert half == pytest.approx(0.5, abs=0.05)
    assert nearly_all == pytest.approx(0.9, abs=0.04)


@pytest.mark.parametrize("noise", ["heavy tails", "skewed"])
@pytest.mark.parametrize("n_groups", [3, 5, 8])
def test_new_groups_are_covered_whatever_the_noise_within(n_groups: int, noise: str) -> None:
    for between in (1.0, 0.01):
        (found,) = coverage(n_groups, 0.8, noise=noise, between=between)
        assert 0.76 < found < 0.88


def test_what_two_groups_can_promise() -> None:
    (mirrored,), (independent,) = coverage(2, 0.8, centred=True), coverage(2, 0.8)
    assert mirrored == pytest.approx(0.8, abs=0.04)
    assert 0.8 < independent < 0.91


def test_bounds_are_quantiles_of_the_sum_of_both_parts() -> None:
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 150)
    effect = np.array([1.0, -2.0, 0.5, 0.3])
    residuals = (effect[group] + rng.gamma(2.0, size=600))[:, None]
    found = group_residuals(residuals, group)
    means = np.array([residuals[group == g].mean() for g in range(4)])
    assert found.between == pytest.approx(np.sqrt(np.mean(means**2)))
    draws = np.sqrt(15 / 16) * found.between * student.rvs(3, size=2_000_000, random_state=1)
    draws += rng.choice(residuals[:, 0] - means[group], size=len(draws))
    for level in (0.1, 0.5, 0.8, 0.9):
        expected = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
        np.testing.assert_allclose(np.concatenate(bounds(found, level)), expected, rtol=0.01, atol=0.02)


def test_many_normal_groups_give_normal_bounds() -> None:
    group = np.arange(40_000) % 400
    residuals = np.random.default_rng(0).normal(size=(40_000, 2)) * [1.0, 3.0]
    for level in (0.5, 0.8, 0.95):
        half = norm.ppf(0.5 + level / 2) * np.array([1.0, 3.0])
        lower, upper = bounds(group_residuals(residuals, group), level)
        np.testing.assert_allclose(lower, -half, rtol=0.03)
        np.testing.assert_allclose(upper, half, rtol=0.03)


def test_wider_levels_hold_the_narrower() -> None:
    found = group_residuals(np.random.default_rng(0).normal(size=(1200, 3)), np.arange(1200) % 5)
    ends = [bounds(found, level) for level in (1e-6, 0.1, 0.5, 0.8, 0.9, 0.99, 0.995)]
    for (low_a, up_a), (low_b, up_b) in zip(ends[:-1], ends[1:], strict=True):
        assert (low_b < low_a).all()
        assert (up_a < up_b).all()


@pytest.mark.parametrize(
    ("n_groups", "n_values", "largest"),
    [(2, 10_000, 0.849), (3, 10_000, 0.971), (4, 10_000, 0.994), (5, 10_000, 0.995), (8, 19, 0.9)],
)
def test_largest_level(n_groups: int, n_values: int, largest: float) -> None:
    found = largest_level(n_groups, n_values)
    assert found == pytest.approx(largest, abs=1e-3)
    if n_groups < 5:  # where the interval is 2.5 times as wide as with infinitely many groups
        tail = 1 - (1 - found) / 2
        assert np.sqrt(1 - 1 / n_groups**2) * student.ppf(tail, n_groups - 1) / norm.ppf(tail) == pytest.approx(2.5)
    check_level(found - 1e-6, n_groups, n_values)
    with pytest.raises(
        LevelError, match=rf"`level` is .*{n_groups} left-out groups .* at most {int(found * 100) / 100}"
    ):
        check_level(found + 1e-3, n_groups, n_values)


@pytest.mark.parametrize("level", [0.999, 1.0])
def test_levels_beyond_the_residuals_raise(level: float) -> None:
    found = group_residuals(np.random.default_rng(0).normal(size=(5000, 2)), np.arange(5000) % 10)
    with pytest.raises(LevelError, match=r"at most 0\.995"):
        bounds(found, level)
    for outside in (0.0, 1.1, -0.5, np.nan):
        with pytest.raises(ValueError, match="`level` must be in"):
            bounds(found, outside)


def test_genes_that_some_groups_lack() -> None:
    """A gene is judged by the groups and observations in which it was measured."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 50)
    residuals = rng.normal(size=4)[group][:, None] + rng.normal(size=(200, 3))
    residuals[group == 3, 1] = np.nan
    residuals[:, 2] = np.nan
    found = group_residuals(residuals, group)
    np.testing.assert_array_equal(found.n_groups, [4, 3, 0])
    np.testing.assert_array_equal(found.n_values, [200, 150, 0])
    alone = group_residuals(residuals[:150, 1:2], group[:150])
    lower, upper = bounds(found, 0.8)
    np.testing.assert_allclose((lower[1], upper[1]), np.concatenate(bounds(alone, 0.8)), rtol=1e-9)
    assert np.isnan(lower[2])
    assert np.isnan(upper[2])


def test_residuals_without_any_spread() -> None:
    found = group_residuals(np.zeros((30, 1)), np.arange(30) % 3)
    np.testing.assert_array_equal(np.concatenate(bounds(found, 0.8)), [0, 0])
    shifted = bounds(group_residuals(np.ones((30, 1)), np.arange(30) % 3), 0.8)
    np.testing.assert_allclose(
        np.concatenate(shifted), np.array([-1, 1]) * student.ppf(0.9, 2) * np.sqrt(8 / 9), rtol=1e-6
    )


def test_every_group_weighs_the_same() -> None:
    group = np.repeat([0, 1], [900, 100])
    rng = np.random.default_rng(0)
    residuals = np.where(group == 0, rng.normal(size=1000), 10 * rng.normal(size=1000))[:, None]
    residuals -= np.where(group == 0, residuals[:900].mean(), residuals[900:].mean())[:, None]
    found = group_residuals(residuals, group)
    # Half of the deviations come from the wide group of a tenth of the spots.
    share = (np.abs(found.within) > 3.5).mean()
    assert share == pytest.approx(norm.sf(0.35), abs=0.04)
    normal = group_residuals(residuals, group, normal=True)
    sd = np.sqrt((1 + 100) / 2)
    np.testing.assert_allclose(normal.within[:, 0], sd * norm.ppf(AT), rtol=0.1)
    assert isinstance(normal, GroupResiduals)


# ------------------------------------------------------------------ quantiles


@pytest.mark.parametrize("n", [1, 7, 333, 1001])
def test_equal_weights_give_the_usual_quantiles(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    expected = np.quantile(values, AT, method="inverted_cdf")
    np.testing.assert_array_equal(weighted_quantiles(values, np.full(n, 0.3), AT), expected)


@pytest.mark.parametrize("n", [100, 400, 1200])
def test_a_share_that_falls_on_a_value_takes_it_despite_rounding(n: int) -> None:
    values = np.random.default_rng(n).normal(size=n)
    rows = [-(-n * k // (N_QUANTILES + 1)) - 1 for k in range(1, N_QUANTILES + 1)]
    np.testing.assert_array_equal(weighted_quantiles(values, np.full(n, 1 / 3), AT), np.sort(values)[rows])


def test_whole_weights_are_repeats() -> None:
    rng = np.random.default_rng(0)
    values, weight = rng.normal(size=50), rng.integers(1, 6, size=50)
    expected = np.quantile(np.repeat(values, weight), AT, method="inverted_cdf")
    np.testing.assert_array_equal(weighted_quantiles(values, weight.astype(float), AT), expected)
