from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from stomics_tools import _mixture
from stomics_tools._mixture import bic_curve, fit_tied_mixture


def blobs(n=600, k=4, d=3, spread=3.0, seed=0):
    """Blobs that overlap, of uneven size and with correlated columns."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, size=n, p=np.arange(1, k + 1) / np.arange(1, k + 1).sum())
    shape = rng.normal(size=(d, d))
    return (spread * rng.normal(size=(k, d))[labels] + rng.normal(size=(n, d))) @ shape * 10 + 100, labels


def test_a_run_of_em_equals_sklearns_from_the_same_start():
    x, labels = blobs(spread=1.5)
    x = (x - x.mean(axis=0)) / x.std()
    start = np.eye(4)[labels]
    ours = _mixture.expectation_maximisation(x, start, tol=1e-12, max_iter=5000)
    means = start.T @ x / start.sum(axis=0)[:, None]
    theirs = GaussianMixture(
        4,
        covariance_type="tied",
        weights_init=start.mean(axis=0),
        means_init=means,
        precisions_init=np.linalg.inv((x - means[labels]).T @ (x - means[labels]) / len(x)),
        tol=1e-12,
        max_iter=5000,
    ).fit(x)
    np.testing.assert_allclose(ours.means, theirs.means_, atol=1e-4)
    np.testing.assert_allclose(ours.covariance, theirs.covariances_, atol=1e-4)
    np.testing.assert_allclose(ours.weights, theirs.weights_, atol=1e-4)
    assert ours.log_likelihood == pytest.approx(theirs.score(x), abs=1e-7)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    assert ours.bic() == pytest.approx(theirs.bic(x), abs=1e-3)


def test_many_starts_are_at_least_as_good_as_those_of_sklearn():
    x, _ = blobs(n=500, k=7, d=5, spread=1.2, seed=3)
    theirs = [
        GaussianMixture(7, covariance_type="tied", random_state=s, reg_covar=0, max_iter=500).fit(x).score(x)
        for s in range(5)
    ]
    assert fit_tied_mixture(x, 7).log_likelihood > max(theirs) - 1e-3
    likelihoods = [fit_tied_mixture(x, 7, n_starts=n).log_likelihood for n in (1, 4, 20)]
    assert likelihoods[0] <= likelihoods[1] + 1e-3
    assert likelihoods[1] <= likelihoods[2] + 1e-3


@pytest.mark.parametrize(("shift", "scale"), [(0, 1e-6), (1e3, 1), (-5e5, 1e4)])
def test_units_do_not_matter(shift, scale):
    x, labels = blobs()
    fit, other = fit_tied_mixture(x, 4), fit_tied_mixture(x * scale + shift, 4)
    assert adjusted_rand_score(fit.predict(x), other.predict(x * scale + shift)) == 1
    assert other.log_likelihood == pytest.approx(fit.log_likelihood - 3 * np.log(scale), abs=1e-3)
    assert adjusted_rand_score(labels, fit.predict(x)) > 0.9


def test_starts_on_a_subsample_lead_to_the_fit_of_all_rows(monkeypatch):
    x, _ = blobs(n=3000)
    everything = fit_tied_mixture(x, 4)
    monkeypatch.setattr(_mixture, "SUBSAMPLE", 300)
    fit = fit_tied_mixture(x, 4)
    assert fit.n_rows == 3000
    assert fit.log_likelihood == pytest.approx(everything.log_likelihood, abs=1e-4)


def test_same_seed_same_result_without_global_state():
    x, _ = blobs(spread=0.5)
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    fits = [fit_tied_mixture(x, 5, seed=s, n_starts=2) for s in (0, 0, 1)]
    np.testing.assert_array_equal(fits[0].means, fits[1].means)
    assert not np.array_equal(fits[0].means, fits[2].means)
    np.testing.assert_array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_repeated_rows():
    """Fewer distinct rows than components, and blobs without any width."""
    x = np.repeat(np.array([[0.0, 0], [0, 1], [5, 5]]), 20, axis=0)
    labels = fit_tied_mixture(x, 3).predict(x)
    assert adjusted_rand_score(np.repeat(range(3), 20), labels) == 1
    assert len(np.unique(fit_tied_mixture(x, 5).predict(x))) <= 5


@pytest.mark.parametrize("k", [2, 4, 6])
def test_criterion_finds_the_number_of_blobs(k):
    rng = np.random.default_rng(k)
    labels = rng.integers(k, size=900)
    x = 6 * rng.normal(size=(k, 8))[labels] + rng.normal(size=(900, 8))
    for rows_per_observation in (1.0, 7.0):
        assert 2 + np.argmin(bic_curve(x, range(2, 10), rows_per_observation=rows_per_observation)) == k


def test_criterion_by_its_formula():
    x, _ = blobs()
    fit = fit_tied_mixture(x, 4)
    n_parameters = 4 * 3 + 6 + 3
    assert fit.bic() == pytest.approx(-2 * 600 * fit.log_likelihood + n_parameters * np.log(600))
    assert fit.bic(6.0) == pytest.approx(-2 * 100 * fit.log_likelihood + n_parameters * np.log(100))


def test_outliers_do_not_use_up_the_components(monkeypatch):
    """The likeliest mixture gives two far rows a component of their own; the one kept finds the three blobs."""
    rng = np.random.default_rng(0)
    labels = np.repeat(range(3), 100)
    x = 3 * np.eye(3)[labels] + rng.normal(size=(300, 3))
    x[[0, 1]] = [[10, 10, 10], [10, 10, 9]]
    fit = fit_tied_mixture(x, 3)
    assert adjusted_rand_score(labels, fit.predict(x)) > 0.9
    monkeypatch.setattr(_mixture, "_FEW_ROWS", 0)
    greedy = fit_tied_mixture(x, 3)
    assert greedy.log_likelihood > fit.log_likelihood
    assert np.bincount(greedy.predict(x)).min() == 2
