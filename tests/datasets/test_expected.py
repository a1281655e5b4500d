from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from stomics_tools.datasets._expected import expected_log_cp10k, log_cp10k, mean_log_cp10k, pearson_within


def test_log_cp10k():
    found = log_cp10k(np.array([[1.0, 3.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found, [[np.log(2501), np.log(7501)], [0, 0]])


@pytest.mark.parametrize("depth", [60.0, 1000.0, 30000.0])
@pytest.mark.parametrize("share", [1e-5, 2e-3, 0.06, 0.5])
def test_mean_over_counting(share, depth):
    """Against the double sum over the counts of the gene and of all others."""

    def law(mean):
        counts = np.arange(max(0, int(mean - 9 * mean**0.5)), int(mean + 9 * mean**0.5) + 30, 1 + int(mean**0.5 / 30))
        weights = stats.poisson.pmf(counts, mean)
        return counts, weights / weights.sum()

    gene, gene_law = law(share * depth)
    others, others_law = law((1 - share) * depth)
    values = log_cp10k(np.stack(np.broadcast_arrays(gene[:, None], others[None]), axis=2).reshape(-1, 2))[:, 0]
    truth = gene_law @ values.reshape(len(gene), -1) @ others_law
    np.testing.assert_allclose(mean_log_cp10k(np.array(share), np.array(depth)), truth, atol=1 / depth + 2e-5)


@pytest.mark.parametrize(
    ("depth", "hidden", "private", "depth_sd"),
    [(300.0, 0.0, 0.0, 0.0), (2000.0, 0.5, 0.4, 0.5), (100.0, 0.3, 0.0, 0.7)],
)
def test_expectation_against_drawing(depth, hidden, private, depth_sd):
    rng = np.random.default_rng(0)
    n, n_genes, n_draws = 12, 15, 8000
    log_rate = rng.normal(size=(n, n_genes))
    log_depth = np.log(depth) + 0.3 * rng.normal(size=n)
    loadings = hidden * rng.normal(size=(3, n_genes))
    private_sd = np.full(n_genes, private)

    total = np.zeros((n, n_genes))
    for _ in range(n_draws):
        rate = log_rate + rng.normal(size=(n, 3)) @ loadings + private_sd * rng.normal(size=(n, n_genes))
        rate = np.exp(rate - np.log(np.exp(rate).sum(1, keepdims=True)))
        size = np.exp(log_depth + depth_sd * rng.normal(size=n))
        total += log_cp10k(rng.poisson(rate * size[:, None]))
    truth = total / n_draws

    found = expected_log_cp10k(
        log_rate, log_depth, loadings=loadings, private_sd=private_sd, depth_sd=depth_sd, rng=np.random.default_rng(1)
    )
    assert found.dtype == np.float32
    # What the draws in common leave is an offset of each gene, much smaller between spots.
    error = found - truth
    assert np.abs(error).max() < 0.12
    assert (error - error.mean(axis=0)).std() < 0.03
    if not hidden + private:
        np.testing.assert_allclose(found, truth, atol=0.08)


def test_pearson_within():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 30, 3))
    group = np.repeat([0, 1, 2], 10)
    a[:, 0] += 10 * group  # a shift between groups says nothing
    b[:, 0] += 10 * group
    b[:10, 1] = 2.0  # constant in one group
    b[:, 2] = 2.0
    found = pearson_within(a, b, group)
    truth = [
        [stats.pearsonr(a[group == g, j], b[group == g, j])[0] for g in (0, 1, 2)[start:]]
        for j, start in [(0, 0), (1, 1)]
    ]
    np.testing.assert_allclose(found[:2], [np.mean(t) for t in truth])
    assert np.isnan(found[2])
    a[:10, 0] = 0.3  # a constant prediction
    assert pearson_within(a, b, group)[0] == pytest.approx(np.mean([0, *truth[0][1:]]))
