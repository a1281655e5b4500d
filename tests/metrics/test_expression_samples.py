from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from stomics_tools.metrics import _probabilistic, crps_gaussian, crps_samples, interval_coverage, interval_width


@pytest.fixture
def drawn():
    rng = np.random.default_rng(0)
    return rng.normal(size=(7, 3)), rng.normal(1, 2, size=(9, 7, 3))


@pytest.mark.parametrize("fair", [True, False])
def test_crps_of_samples_equals_all_pairs(drawn, fair):
    truth, samples = drawn
    truth[2, 1] = np.nan
    pairs = np.abs(samples[:, None] - samples[None]).sum(axis=(0, 1)) / (9 * 8 if fair else 81)
    expected = np.abs(samples - truth).mean(axis=0) - pairs / 2
    found = crps_samples(truth, samples, fair=fair)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.isnan(found[2, 1])


def test_blocks_change_nothing(drawn, monkeypatch):
    expected = crps_samples(*drawn)
    monkeypatch.setattr(_probabilistic, "_CHUNK", 2 * 9 * 3)
    np.testing.assert_allclose(crps_samples(*drawn), expected, rtol=1e-12)


def test_crps_of_a_point_is_its_absolute_error(drawn):
    truth, samples = drawn
    error = np.abs(truth - samples[0])
    np.testing.assert_allclose(crps_samples(truth, samples[:1], fair=False), error)
    np.testing.assert_allclose(crps_gaussian(truth, samples[0], 0.0), error)


def test_crps_of_a_gaussian_is_the_integral():
    truth, mean, sd = np.array([[0.3, -2.0], [4.0, np.nan]]), np.array([[0.0, 1.0], [1.0, 1.0]]), np.array([1.0, 0.5])
    found = crps_gaussian(truth, mean, sd)
    for i, g in [(0, 0), (0, 1), (1, 0)]:
        y, law = truth[i, g], norm(mean[i, g], sd[g])
        below, above = quad(lambda x: law.cdf(x) ** 2, -20, y)[0], quad(lambda x: law.sf(x) ** 2, y, 20)[0]  # noqa: B023
        assert found[i, g] == pytest.approx(below + above, abs=1e-6)
    assert np.isnan(found[1, 1])


def test_samples_of_a_gaussian_come_to_its_crps():
    rng = np.random.default_rng(1)
    truth, mean = rng.normal(0, 2, (50, 2)), rng.normal(size=(50, 2))
    many = mean + 1.5 * rng.normal(size=(4000, 50, 2))
    np.testing.assert_allclose(crps_samples(truth, many), crps_gaussian(truth, mean, 1.5), atol=0.15)
    few = np.mean([crps_samples(truth, many[i : i + 2]).mean() for i in range(0, 4000, 2)])
    assert few == pytest.approx(crps_gaussian(truth, mean, 1.5).mean(), abs=0.01)  # unbiased with two samples
    biased = np.mean([crps_samples(truth, many[i : i + 2], fair=False).mean() for i in range(0, 4000, 2)])
    assert biased > few + 0.3


def test_coverage_and_width_of_intervals():
    rng = np.random.default_rng(2)
    truth = rng.normal(size=(4000, 3))
    half = norm.ppf(0.9)
    lower, upper = np.full_like(truth, -half), np.full_like(truth, half)
    assert interval_coverage(truth, lower, upper) == pytest.approx(0.8, abs=0.01)
    assert interval_width(truth, lower, upper) == pytest.approx(2 * half)
    truth[:, 0] = np.nan
    lower[:, 0], upper[:, 0] = 50, 60
    assert interval_coverage(truth, lower, upper) == pytest.approx(0.8, abs=0.01)
    assert interval_width(truth, lower, upper) == pytest.approx(2 * half)
    assert interval_coverage([[1.0, 2.0]], [[1.0, 0.0]], [[1.0, 1.0]]) == 0.5  # ends are inside
    assert np.isnan(interval_coverage([[np.nan]], [[0.0]], [[1.0]]))


def test_bad_samples_and_intervals(drawn):
    truth, samples = drawn
    with pytest.raises(ValueError, match=r"`samples` has shape \(9, 7, 2\), `truth` has \(7, 3\)"):
        crps_samples(truth, samples[..., :2])
    with pytest.raises(ValueError, match="at least 2 samples, found 1"):
        crps_samples(truth, samples[:1])
    samples[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="`samples` holds 1 NaN"):
        crps_samples(truth, samples)
    with pytest.raises(ValueError, match="`lower` is above `upper` in 21 intervals"):
        interval_coverage(truth, truth + 1, truth)
    with pytest.raises(ValueError, match="`upper` has shape"):
        interval_width(truth, truth, truth[:, :1])
    with pytest.raises(ValueError, match="`sd` must be finite and not negative"):
        crps_gaussian(truth, truth, -1.0)
