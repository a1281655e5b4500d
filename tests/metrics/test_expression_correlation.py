from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from stomics_tools.metrics import depth_out, noise_ceiling, pearson_per_gene, spearman_per_gene


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    truth = rng.gamma(2, size=(80, 5))
    prediction = truth + rng.normal(0, 2, truth.shape)
    truth[:30, 1] = np.nan
    truth[rng.random(80) < 0.2, 2] = np.nan
    return truth, prediction


@pytest.mark.parametrize(
    ("ours", "theirs"), [(pearson_per_gene, pearsonr), (spearman_per_gene, spearmanr)], ids=["pearson", "spearman"]
)
def test_correlations_equal_scipy(pair, ours, theirs):
    truth, prediction = np.round(pair[0], 1), np.round(pair[1], 1)  # with ties
    found = ours(truth, prediction)
    for gene in range(5):
        seen = ~np.isnan(truth[:, gene])
        assert found[gene] == pytest.approx(theirs(truth[seen, gene], prediction[seen, gene])[0], abs=1e-12)


def test_correlations_within_sections(pair):
    truth, prediction = pair
    sections = np.repeat(["a", "b"], 40)
    truth = truth + 100.0 * (sections == "b")[:, None]  # which pooled would drown everything
    truth[:40, 3] = 7.0
    a = pearson_per_gene(truth[:40], prediction[:40])
    b = pearson_per_gene(truth[40:], prediction[40:])
    assert np.isnan(a[3])
    expected = np.where(np.isnan(a), b, (a + b) / 2)
    np.testing.assert_allclose(pearson_per_gene(truth, prediction, sections=sections), expected)


def test_what_does_not_vary(pair):
    truth, prediction = pair
    truth[:, 0], truth[:, 4] = 0.1, np.nan
    prediction[:, 1] = 0.1
    prediction[:, 2] = 1e6 + 1e-8 * np.random.default_rng(1).normal(size=80)  # rounding
    r = pearson_per_gene(truth, prediction)
    assert np.isnan(r[[0, 4]]).all()
    assert r[1] == r[2] == 0
    assert r[3] > 0


def test_correlation_does_not_depend_on_scale(pair):
    truth, prediction = pair
    expected = pearson_per_gene(truth, prediction)
    np.testing.assert_allclose(pearson_per_gene(truth * 1e-9, prediction * 1e9), expected)


def test_depth_out_equals_polyfit(pair):
    truth, _ = pair
    log_depth = np.random.default_rng(2).normal(8, 1, 80)
    left = depth_out(truth, log_depth)
    for gene in range(5):
        seen = ~np.isnan(truth[:, gene])
        cubic = np.polyval(np.polyfit(log_depth[seen] - 8, truth[seen, gene], 3), log_depth[seen] - 8)
        np.testing.assert_allclose(left[seen, gene], truth[seen, gene] - cubic, atol=1e-9)
        assert np.isnan(left[~seen, gene]).all()
    sections = np.repeat([0, 1], 40)
    by_section = depth_out(truth, log_depth, sections=sections)
    np.testing.assert_allclose(by_section[:40], depth_out(truth[:40], log_depth[:40]))


def test_depth_alone_leaves_nothing():
    log_depth = np.random.default_rng(3).normal(8, 1, 60)
    prediction = np.stack([2 * log_depth, log_depth**3, np.full(60, 3.3)], axis=1)
    assert (depth_out(prediction, log_depth) == 0).all()
    assert (depth_out(prediction[:2], log_depth[:2]) == 0).all()  # fewer spots than coefficients


def simulated_counts(n_obs: int, *, seed: int):
    """Poisson counts of 40 genes with a signal, within many others that keep the totals equal."""
    rng = np.random.default_rng(seed)
    rates = np.exp(rng.normal(0, 0.5, (n_obs, 40))) * np.geomspace(0.5, 10, 40)
    others = np.full((n_obs, 10), 200.0)
    return rng.poisson(np.hstack([rates, others])), rates


def test_noise_ceiling_is_reached_by_the_true_rates():
    counts, rates = simulated_counts(2000, seed=0)
    observed = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True))
    # What the counts can be correlated with at best is their expectation given the rates, found by many draws.
    rng = np.random.default_rng(1)
    factor = 1e4 / (rates.sum(axis=1, keepdims=True) + 2000)
    expectation = np.mean([np.log1p(factor * rng.poisson(rates)) for _ in range(150)], axis=0)
    reached = pearson_per_gene(observed[:, :40], expectation)
    ceiling = noise_ceiling(counts, np.arange(40), n_splits=5)
    np.testing.assert_allclose(ceiling, reached, atol=0.1)
    assert ceiling.mean() == pytest.approx(reached.mean(), abs=0.02)
    assert ceiling[-5:].mean() > ceiling[:5].mean() + 0.3


def test_noise_ceiling_of_noise_and_of_depth():
    rng = np.random.default_rng(2)
    flat = rng.poisson(5.0, (500, 30))
    assert noise_ceiling(flat).mean() < 0.25
    depth = np.exp(rng.normal(0, 1, (500, 1)))
    deep = rng.poisson(np.linspace(0.05, 0.5, 30) * depth)
    with_depth, without = (noise_ceiling(deep, without_depth=w) for w in (False, True))
    assert with_depth.mean() > without.mean() + 0.2


def test_noise_ceiling_of_half_precision():
    counts = np.random.default_rng(0).poisson(1500.0, (60, 50))  # 75,000 a spot: half precision ends at 65,504
    half = counts.astype(np.float16)
    np.testing.assert_array_equal(noise_ceiling(half), noise_ceiling(half.astype(np.int64)))


def test_noise_ceiling_draws():
    from scipy import sparse

    counts, _ = simulated_counts(100, seed=3)
    counts[4] = 0
    mask = np.arange(50) < 10
    one = noise_ceiling(counts, mask)
    np.testing.assert_array_equal(one, noise_ceiling(sparse.csr_matrix(counts.astype(np.float32)), np.arange(10)))
    assert (one != noise_ceiling(counts, mask, seed=1)).any()
    sections = np.repeat(["a", "b"], 50)
    assert noise_ceiling(counts, mask, sections=sections, without_depth=True).shape == (10,)


@pytest.mark.parametrize("score", [pearson_per_gene, spearman_per_gene])
def test_bad_pairs(pair, score):
    truth, prediction = pair
    with pytest.raises(ValueError, match=r"`prediction` has shape \(80, 4\), `truth` has \(80, 5\)"):
        score(truth, prediction[:, :4])
    with pytest.raises(ValueError, match=r"`prediction` has shape \(79, 5\)"):
        score(truth, prediction[1:])
    with pytest.raises(ValueError, match="`truth` must be a matrix"):
        score(truth[:, 0], prediction[:, 0])
    prediction[0, 0] = np.nan
    with pytest.raises(ValueError, match="`prediction` holds 1 NaN"):
        score(truth, prediction)
    truth[0, 0] = np.inf
    with pytest.raises(ValueError, match="`truth` holds 1 infinite"):
        score(truth, np.zeros_like(truth))


def test_bad_sections_and_depths(pair):
    truth, prediction = pair
    with pytest.raises(ValueError, match="`sections` has shape.*80 spots"):
        pearson_per_gene(truth, prediction, sections=["a"])
    with pytest.raises(ValueError, match="`sections` has missing"):
        pearson_per_gene(truth, prediction, sections=[None] + ["a"] * 79)
    with pytest.raises(ValueError, match="`log_depth` has shape"):
        depth_out(truth, np.ones(3))
    with pytest.raises(ValueError, match="`log_depth` must be finite"):
        depth_out(truth, np.full(80, -np.inf))


@pytest.mark.parametrize(
    ("counts", "message"),
    [([[1.5, 1], [2, 2]], "fractional"), ([[-1, 1], [2, 2]], "negative"), ([[0, 0], [2, 2]], "fewer than two spots")],
)
def test_bad_counts(counts, message):
    with pytest.raises(ValueError, match=f"`counts`.*{message}"):
        noise_ceiling(np.array(counts))
