from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from stomics_tools.model.var_st._residuals import N_QUANTILES, Residuals, weighted_quantiles

AT = np.arange(1, N_QUANTILES + 1) / (N_QUANTILES + 1)


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


def test_what_was_not_measured_does_not_count() -> None:
    values = np.array([np.nan, 3.0, np.nan, 1.0, 2.0])
    np.testing.assert_array_equal(
        weighted_quantiles(values, np.array([9.0, 1, 9, 1, 1]), np.array([0.1, 0.5, 0.9])), [1, 2, 3]
    )


def test_every_fold_weighs_the_same() -> None:
    fold = np.repeat([0, 1], [900, 100])
    residuals = np.where(fold == 0, 0.0, 1.0)[:, None] + np.random.default_rng(0).uniform(0, 0.1, size=(1000, 2))
    fitted = Residuals(2)
    fitted.fit(residuals, fold)
    shares = (fitted.quantiles < 0.5).double().mean(0)
    np.testing.assert_allclose(shares, 0.5, atol=2 / N_QUANTILES)


def test_bounds_of_normal_residuals() -> None:
    residuals = np.random.default_rng(0).normal(size=(40_000, 2)) * [1.0, 3.0]
    fitted = Residuals(2)
    fitted.fit(residuals, np.arange(40_000) % 4)
    for level in (0.5, 0.8, 0.95):
        lower, upper = fitted.bounds(level)
        half = norm.ppf(0.5 + level / 2) * np.array([1.0, 3.0])
        np.testing.assert_allclose(lower, -half, atol=0.1)
        np.testing.assert_allclose(upper, half, atol=0.1)


def test_wider_levels_hold_the_narrower() -> None:
    fitted = Residuals(3)
    fitted.fit(np.random.default_rng(0).normal(size=(60, 3)), np.arange(60) % 3)
    levels = [1e-6, 0.1, 0.5, 0.8, 0.9, 0.99, 0.999, 1.0]
    bounds = [fitted.bounds(level) for level in levels]
    for (low_a, up_a), (low_b, up_b) in zip(bounds[:-1], bounds[1:], strict=True):
        assert (low_b <= low_a).all()
        assert (up_a <= up_b).all()
    torch.testing.assert_close(bounds[0][0], fitted.quantiles[N_QUANTILES // 2], rtol=0, atol=1e-2)
    assert torch.equal(bounds[-1][0], fitted.quantiles[0])
    assert torch.equal(bounds[-1][1], fitted.quantiles[-1])


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_new_values_are_covered_at_the_level(level: float) -> None:
    rng = np.random.default_rng(1)
    n_new, covered = 200, []
    for _ in range(100):
        draws = rng.gamma(2.0, size=(500 + n_new, 1))  # skewed
        fitted = Residuals(1)
        fitted.fit(draws[:500], np.arange(500) % 5)
        lower, upper = (float(bound) for bound in fitted.bounds(level))
        covered.append(((draws[500:] >= lower) & (draws[500:] <= upper)).mean())
    # Each share varies as a binomial of the new values and of the 500 on which the bounds rest.
    sd = np.sqrt(level * (1 - level) * (1 / n_new + 1 / 500) / 100)
    assert abs(np.mean(covered) - level) < 4 * sd + 1 / 500


def test_unfitted_bounds_are_not_numbers_and_fitted_ones_are_saved() -> None:
    assert all(bound.isnan().all() for bound in Residuals(2).bounds(0.8))
    fitted = Residuals(2)
    fitted.fit(np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3)
    other = Residuals(2)
    other.load_state_dict(fitted.state_dict())
    for a, b in zip(fitted.bounds(0.8), other.bounds(0.8), strict=True):
        assert torch.equal(a, b)
