from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from stomics_tools.metrics import (
    gene_correlation_error,
    mean_absolute_error,
    mean_squared_error,
    paired_test,
    pearson_per_gene,
    r2_against,
    r2_per_gene,
    relative_variance_difference,
    rmse_per_gene,
    score_expression,
    score_samples,
    spearman_per_gene,
)


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(90, 1))
    truth = shared + rng.normal(size=(90, 12))
    return truth, 0.6 * truth + rng.normal(0, 0.5, truth.shape)


def test_errors_equal_sklearn(pair):
    truth, prediction = pair
    assert mean_squared_error(truth, prediction) == pytest.approx(sk.mean_squared_error(truth, prediction))
    assert mean_absolute_error(truth, prediction) == pytest.approx(sk.mean_absolute_error(truth, prediction))
    # With the test mean in place of the training mean it is the usual R2.
    np.testing.assert_allclose(
        r2_per_gene(truth, prediction, truth.mean(axis=0)), sk.r2_score(truth, prediction, multioutput="raw_values")
    )
    assert r2_against(truth, prediction, truth.mean(axis=0)) == pytest.approx(
        sk.r2_score(truth, prediction, multioutput="variance_weighted")
    )


def test_rmse_per_gene(pair):
    truth, prediction = pair
    expected = [sk.root_mean_squared_error(t, p) for t, p in zip(truth.T, prediction.T, strict=True)]
    np.testing.assert_allclose(rmse_per_gene(truth, prediction), expected)
    truth[:40, 2], truth[:, 3] = np.nan, np.nan
    expected[2], expected[3] = sk.root_mean_squared_error(truth[40:, 2], prediction[40:, 2]), np.nan
    np.testing.assert_allclose(rmse_per_gene(truth, prediction), expected)


def test_r2_of_the_training_mean_is_zero(pair):
    truth, _ = pair
    mean = np.linspace(-1, 1, 12)
    assert r2_against(truth, np.tile(mean, (90, 1)), mean) == 0
    assert (r2_per_gene(truth, np.tile(mean, (90, 1)), mean) == 0).all()
    truth[:, 3] = mean[3]
    assert np.isnan(r2_per_gene(truth, truth, mean)[3])


def test_variance_and_correlation_errors(pair):
    truth, prediction = pair
    expected = np.mean((prediction.var(axis=0) / truth.var(axis=0) - 1) ** 2)
    assert relative_variance_difference(truth, prediction) == pytest.approx(expected)
    assert relative_variance_difference(truth, np.zeros_like(truth)) == 1
    off = ~np.eye(12, dtype=bool)
    c, c_hat = np.corrcoef(truth.T)[off], np.corrcoef(prediction.T)[off]
    expected = np.linalg.norm(c_hat - c) / np.linalg.norm(c)
    assert gene_correlation_error(truth, prediction) == pytest.approx(expected)
    assert gene_correlation_error(truth, truth) == pytest.approx(0, abs=1e-12)
    assert gene_correlation_error(truth, np.full_like(truth, 0.1)) == pytest.approx(1)


def test_genes_that_were_not_measured_do_not_count(pair):
    truth, prediction = pair
    truth[:40, 2] = np.nan
    truth[:, 5] = np.nan
    wild = np.where(np.isnan(truth), 1e3, prediction)
    mean = np.zeros(12)
    for score in (mean_squared_error, mean_absolute_error, relative_variance_difference, gene_correlation_error):
        assert score(truth, wild) == pytest.approx(score(truth, prediction), abs=1e-9)
        assert np.isfinite(score(truth, wild))
    assert r2_against(truth, wild, mean) == pytest.approx(r2_against(truth, prediction, mean))
    pairwise = (
        np.corrcoef(truth[40:, 2], truth[40:, 0])[0, 1],
        np.corrcoef(prediction[40:, 2], prediction[40:, 0])[0, 1],
    )
    expected = abs(pairwise[1] - pairwise[0]) / abs(pairwise[0])
    assert gene_correlation_error(truth[:, [0, 2]], wild[:, [0, 2]]) == pytest.approx(expected)
    assert np.isnan(mean_squared_error(np.full((3, 2), np.nan), np.zeros((3, 2))))
    assert np.isnan(gene_correlation_error(np.ones((3, 2)), np.zeros((3, 2))))


def test_score_expression_gathers_the_scores(pair):
    truth, prediction = pair
    truth[:, 7] = 2.0
    rank = np.arange(12)[::-1]
    log_depth = truth[:, 0] + np.random.default_rng(1).normal(0, 0.1, 90)
    sections = np.repeat(["a", "b", "c"], 30)
    scores = score_expression(
        truth,
        prediction,
        train_mean=np.zeros(12),
        sections=sections,
        log_depth=log_depth,
        gene_rank=rank,
        top=(3, 10, 50),
    )
    r = pearson_per_gene(truth, prediction)
    assert scores["pcc"] == pytest.approx(np.nanmean(r))
    assert scores["spearman"] == pytest.approx(np.nanmean(spearman_per_gene(truth, prediction)))
    assert scores["pcc_3"] == pytest.approx(r[[11, 10, 9]].mean())
    assert scores["pcc_10"] == pytest.approx(np.nanmean(r[2:]))
    assert scores["pcc_3_oracle"] == pytest.approx(np.sort(r[~np.isnan(r)])[-3:].mean())
    assert scores["pcc_3_oracle"] > scores["pcc_3"]
    assert scores["pcc_section"] == pytest.approx(np.nanmean(pearson_per_gene(truth, prediction, sections=sections)))
    assert not any("50" in name for name in scores)
    assert (scores["n_obs"], scores["n_genes"], scores["n_genes_undefined"]) == (90, 12, 1)
    with_depth = [name for name in scores if name.startswith(("pcc", "spearman")) and "depth" not in name]
    assert {f"{name}_depth_out" for name in with_depth} <= set(scores)
    names = list(scores)
    assert names[names.index("pcc") + 1] == "pcc_depth_out"
    assert all(isinstance(value, float) for value in scores.values())


def test_scores_without_depth_equal_partial_correlations(pair):
    truth, prediction = pair
    rng = np.random.default_rng(2)
    log_depth = rng.normal(9, 1, 90)
    truth, prediction = truth + log_depth[:, None], prediction + 2 * log_depth[:, None]
    truth[:20, 4] = np.nan
    scores = score_expression(truth, prediction, train_mean=np.zeros(12), log_depth=log_depth)
    expected = []
    for gene in range(12):
        seen = ~np.isnan(truth[:, gene])
        z = log_depth[seen] - 9
        left = [y[seen, gene] - np.polyval(np.polyfit(z, y[seen, gene], 3), z) for y in (truth, prediction)]
        expected.append(np.corrcoef(*left)[0, 1])
    assert scores["pcc_depth_out"] == pytest.approx(np.mean(expected))
    only_depth = score_expression(truth, np.tile(log_depth[:, None], 12), train_mean=np.zeros(12), log_depth=log_depth)
    assert only_depth["pcc_depth_out"] == 0 < only_depth["pcc"]


def test_bad_arguments_of_score_expression(pair):
    truth, prediction = pair
    with pytest.raises(ValueError, match="`train_mean`.*12 genes"):
        score_expression(truth, prediction, train_mean=np.zeros(3))
    for rank in (np.zeros(12, dtype=int), np.arange(11), np.arange(1, 13)):
        with pytest.raises(ValueError, match="`gene_rank` must hold each index from 0 to 11 once"):
            score_expression(truth, prediction, train_mean=np.zeros(12), gene_rank=rank)


def test_a_sample_is_correlated_less_than_the_mean():
    rng = np.random.default_rng(3)
    mean = rng.normal(size=(2000, 4))
    truth, samples = mean + rng.normal(size=mean.shape), mean + rng.normal(size=(20, *mean.shape))
    scores = score_samples(truth, samples)
    rho = np.mean(pearson_per_gene(truth, mean))
    assert scores["pcc_sample"] == pytest.approx(rho**2, abs=0.02)
    assert scores["rvd_sample"] < 0.02 < relative_variance_difference(truth, mean)
    assert scores["gene_correlation_error_sample"] == pytest.approx(
        np.mean([gene_correlation_error(truth, sample) for sample in samples])
    )
    assert scores["crps"] == pytest.approx(1 / np.sqrt(np.pi), abs=0.02)  # of a standard normal and its own samples


def test_paired_test_tries_all_signs():
    a, b = np.array([0.5, 0.4, 0.6, 0.3]), np.array([0.4, 0.1, 0.4, 0.35])
    result = paired_test(a, b)
    d = a - b
    signs = np.array(np.meshgrid(*[[-1, 1]] * 4)).reshape(4, -1).T
    assert result.p_value == np.mean(np.abs(signs @ d) >= abs(d.sum()) - 1e-12)
    assert result.difference == pytest.approx(d.mean())
    assert (result.n_pairs, result.n_higher) == (4, 3)
    assert paired_test(np.ones(6), np.zeros(6)).p_value == 2**-5
    assert paired_test(a, a).p_value == 1
    assert paired_test([1.0], [0.0]).p_value == 1


def test_paired_test_equals_scipy():
    from scipy.stats import permutation_test

    rng = np.random.default_rng(4)
    a, b = rng.normal(0.4, 1, (2, 11))
    expected = permutation_test((a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=np.inf)
    assert paired_test(a, b).p_value == pytest.approx(expected.pvalue)
    many = rng.normal(0.3, 1, 40)
    drawn = paired_test(many, np.zeros(40))
    assert drawn == paired_test(many, np.zeros(40))
    expected = permutation_test(
        (many, np.zeros(40)), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=20_000
    )
    assert drawn.p_value == pytest.approx(expected.pvalue, abs=0.01)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([1.0], [1.0, 2.0], "pairs of scores"), ([], [], "pairs of scores"), ([np.nan], [1.0], "1 pairs have a missing")],
)
def test_bad_pairs_of_scores(a, b, message):
    with pytest.raises(ValueError, match=message):
        paired_test(a, b)
