"""Prototypes: the loss against its formula, the number of clusters against the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import adjusted_rand_score

from stomics_tools.model.praga_spike._prototypes import Prototypes, _Prior, contrastive_loss, split_and_merge
from stomics_tools.model.praga_spike._settings import Settings


def _blobs(n_clusters, n_obs=600, n_dims=16, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_clusters, n_obs)
    return rng.normal(size=(n_clusters, n_dims))[truth] + 0.3 * rng.normal(size=(n_obs, n_dims)), truth


def test_loss_equals_the_formula():
    torch.manual_seed(0)
    z, centers = torch.randn(40, 5, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    centers[3] = 100.0  # nearest to none: its cluster is empty
    nearest = ((z[:, None] - centers) ** 2).sum(-1).argmin(1)
    expected = 0.0
    for k in range(3):
        e = torch.exp(z @ centers[k] / 2)
        expected -= torch.log(e[nearest == k].mean() / e.mean()) / 4
    torch.testing.assert_close(contrastive_loss(z, centers, 2.0), expected)


def test_loss_of_one_cluster_is_zero_and_of_large_values_finite():
    z = torch.randn(10, 3, requires_grad=True)
    assert float(contrastive_loss(z.detach(), torch.zeros(1, 3), 1.0)) == 0
    loss = contrastive_loss(1e4 * z, torch.eye(3), 1.0)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(z.grad).all()


@pytest.mark.parametrize("n_true", [3, 5, 8, 12])
@pytest.mark.parametrize("start", ["together", "random", "halves"])
def test_split_and_merge_finds_the_clusters(n_true, start):
    z, truth = _blobs(n_true)
    rows = np.arange(len(z))
    labels = {"together": 0 * rows, "random": rows % 2, "halves": 2 * truth + rows % 2}[start]
    labels = split_and_merge(z, labels)
    assert abs(len(np.unique(labels)) - n_true) <= 1
    assert adjusted_rand_score(truth, labels) > (0.95 if len(np.unique(labels)) == n_true else 0.75)


def test_one_cloud_stays_one():
    z = np.random.default_rng(0).normal(size=(400, 8))
    assert len(np.unique(split_and_merge(z, np.arange(400) % 6))) == 1


def test_marginal_likelihood_equals_the_chain_of_predictive_densities():
    """ln m(X) is the sum of the multivariate t log densities of each spot given those before it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(7, 3))
    prior = _Prior(rng.normal(size=(50, 3)), np.arange(50) % 2)
    d = 3
    total = 0.0
    for n in range(len(x)):
        seen = x[:n]
        kappa, nu = prior.kappa + n, prior.nu + n
        mean = (prior.kappa * prior.mean + seen.sum(0)) / kappa
        psi = prior.psi.copy()
        if n:
            centered, shift = seen - seen.mean(0), seen.mean(0) - prior.mean
            psi += centered.T @ centered + prior.kappa * n / kappa * np.outer(shift, shift)
        df = nu - d + 1
        total += stats.multivariate_t(mean, psi * (kappa + 1) / (kappa * df), df).logpdf(x[n])
    assert prior.log_score(x) == pytest.approx(total + np.log(720.0))  # ln G(7) = ln 6!


def test_prototypes_start_on_time_and_are_carried_over():
    z = torch.from_numpy(_blobs(4)[0]).float()
    prototypes = Prototypes(Settings(n_latent=16, n_prototypes=9, prototype_start=3, prototype_every=5))
    assert float(prototypes.loss(z, 2)) == 0
    assert len(prototypes.centers) == 0
    assert float(prototypes.loss(z, 3)) != 0
    assert len(prototypes.centers) == 4
    centers = prototypes.centers
    prototypes.loss(z + 1, 4)
    assert prototypes.centers is centers
    prototypes.loss(z + 1, 5)
    assert prototypes.centers is not centers
    torch.testing.assert_close(prototypes.centers.norm(dim=1), torch.ones(4))


def test_fixed_prototypes_keep_their_number():
    z = torch.from_numpy(_blobs(4)[0]).float()
    prototypes = Prototypes(Settings(n_latent=16, n_prototypes=9, prototypes="fixed", prototype_start=0))
    prototypes.loss(z, 0)
    assert len(prototypes.centers) == 9


def test_any_number_of_prototypes_is_loaded():
    first, second = Prototypes(Settings(n_latent=3)), Prototypes(Settings(n_latent=3))
    first.centers = torch.randn(7, 3)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.centers, first.centers)
