"""Prototypes: the loss against its formula, the number of clusters against the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from sklearn.metrics import adjusted_rand_score

from stomics_tools._mixture import TiedMixture
from stomics_tools.data import spatial_knn
from stomics_tools.model._clusters import _separation, _whitened, find_prototypes
from stomics_tools.model._prototypes import DynamicPrototypes, MixturePrototypes, contrastive_loss


def _blobs(n_clusters, n_obs=400, n_dims=16, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, n_clusters, n_obs)
    return rng.normal(size=(n_clusters, n_dims))[truth] + 0.15 * rng.normal(size=(n_obs, n_dims)), truth


def _tissue(n_strips, seed=0, side=40):
    """A square lattice of `n_strips` strips, three gradients across it, spots blended with their neighbours."""
    rng = np.random.default_rng(seed)
    xy = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2).astype(float)
    truth = (xy[:, 0] * n_strips // side).astype(int)
    phase = rng.uniform(0, 6, (3, 1))
    waves = np.sin(xy @ rng.normal(scale=0.12, size=(2, 3)) + phase.T) * 3
    clean = np.hstack([2 * rng.normal(size=(n_strips, 8))[truth], waves])
    noisy = clean + rng.normal(scale=1.2, size=clean.shape)
    graph = spatial_knn(xy, 8)
    graph.data[:] = 1 / 8
    smooth = 0.3 * noisy + 0.7 * (graph @ noisy)
    return np.hstack([smooth, np.zeros((len(smooth), 5))]), truth, graph


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
def test_the_number_of_domains_is_found(n_true):
    z, truth, graph = _tissue(n_true)
    labels = find_prototypes(z, graph=graph)
    assert abs(labels.max() + 1 - n_true) <= 1
    assert adjusted_rand_score(truth, labels) > 0.7


@pytest.mark.parametrize("start", ["one fewer", "two more"])
def test_clusters_to_begin_with_are_split_and_merged(start):
    z, truth = _blobs(5)
    labels = {"one fewer": np.maximum(truth, 1), "two more": truth + 5 * ((truth < 2) & (z[:, 0] > 0))}[start]
    assert adjusted_rand_score(truth, find_prototypes(z, labels, max_prototypes=10)) > 0.99


def test_one_cloud_stays_one():
    z = np.random.default_rng(0).normal(size=(400, 8))
    assert find_prototypes(z, max_prototypes=10).max() == 0
    assert find_prototypes(z, np.arange(400) % 3, max_prototypes=10).max() == 0


def test_a_gradient_is_no_domain():
    rng = np.random.default_rng(0)
    ramp = rng.uniform(size=(2000, 1))
    z = np.hstack([10 * ramp, 0.3 * rng.normal(size=(2000, 3))])
    assert find_prototypes(z, max_prototypes=10).max() == 0


def test_as_many_as_asked_for():
    z, _ = _blobs(4)
    for n in (2, 4, 6):
        assert find_prototypes(z, n_prototypes=n).max() + 1 == n
    for start in (np.zeros(400, dtype=int), np.arange(400) % 6, np.arange(400) // 4):
        assert find_prototypes(z, start, n_prototypes=4).max() + 1 == 4


def test_few_spots_and_no_variance():
    z, _ = _blobs(2, n_obs=25)
    assert find_prototypes(z, n_prototypes=8).max() + 1 <= 2
    assert find_prototypes(z[:3]).tolist() == [0, 0, 0]
    assert find_prototypes(np.ones((30, 4))).max() == 0


def test_order_of_rows_units_and_axes_do_not_matter():
    z, truth = _blobs(5)
    labels = find_prototypes(z, max_prototypes=10)
    np.testing.assert_array_equal(labels, find_prototypes(z, max_prototypes=10))
    assert (np.diff(np.bincount(labels)) <= 0).all()
    rng = np.random.default_rng(1)
    order = rng.permutation(len(z))
    turned = 7 * z[order] @ np.linalg.qr(rng.normal(size=(16, 16)))[0] + 3
    np.testing.assert_array_equal(find_prototypes(turned, max_prototypes=10), labels[order])
    assert adjusted_rand_score(truth, labels) == 1


def test_separation_is_the_mahalanobis_distance():
    rng = np.random.default_rng(0)
    means, root = rng.normal(size=(4, 3)), rng.normal(size=(3, 3))
    fit = TiedMixture(np.full(4, 0.25), means, root @ root.T, 0.0, 100)
    expected = pdist(means, "mahalanobis", VI=np.linalg.inv(root @ root.T))
    np.testing.assert_allclose(_separation(fit), expected)
    np.testing.assert_allclose(np.cov(_whitened(rng.normal(size=(50, 3)) @ root).T, bias=True), np.eye(3), atol=1e-9)


def test_dynamic_prototypes_start_on_time_and_are_carried_over():
    z, truth = _blobs(4)
    z = torch.from_numpy(z).float()
    prototypes = DynamicPrototypes(16, None, start=3, every=5, temperature=2.0)
    assert float(prototypes.loss(z, 2)) == 0
    assert len(prototypes.centers) == 0
    assert float(prototypes.loss(z, 3)) != 0
    assert len(prototypes.centers) == 4
    assert adjusted_rand_score(truth, prototypes.labels(z)) == 1
    centers = prototypes.centers
    prototypes.loss(z + 1, 4)
    assert prototypes.centers is centers
    prototypes.loss(0.5 * z + 0.1, 5)
    assert prototypes.centers is not centers
    assert adjusted_rand_score(truth, prototypes.labels(z)) == 1


def test_renewal_begins_with_the_prototypes_there_are(monkeypatch):
    z = torch.from_numpy(_blobs(5)[0]).float()
    prototypes, begun = DynamicPrototypes(16, None, start=0, every=1, temperature=2.0), []

    def spy(x, labels=None, **settings):
        begun.append(labels)
        return find_prototypes(x, labels, **settings)

    monkeypatch.setattr("stomics_tools.model._prototypes.find_prototypes", spy)
    prototypes.renew(z)
    before = prototypes.labels(z).numpy()
    prototypes.renew(z)
    assert begun[0] is None
    np.testing.assert_array_equal(begun[1], before)


def test_loss_of_dynamic_prototypes_has_no_unit_and_a_gradient():
    z = torch.from_numpy(_blobs(4)[0]).float().requires_grad_()
    losses = [DynamicPrototypes(16, 4, 0, 5, 2.0).loss(scale * z, 0) for scale in (1.0, 100.0)]
    torch.testing.assert_close(losses[0], losses[1])
    losses[0].backward()
    assert z.grad.abs().sum() > 0


def test_published_prototypes_start_on_time_and_keep_their_number():
    z = torch.from_numpy(_blobs(4)[0]).float()
    prototypes = MixturePrototypes(16, n_prototypes=9, start=3, every=5, temperature=2.0)
    assert float(prototypes.loss(z, 2)) == 0
    assert len(prototypes.centers) == 0
    prototypes.loss(z, 3)
    assert len(prototypes.centers) == 9
    torch.testing.assert_close(prototypes.centers.norm(dim=1), torch.ones(9))


@pytest.mark.parametrize(
    "make", [lambda: MixturePrototypes(3, 10, 0, 1, 2.0), lambda: DynamicPrototypes(3, None, 0, 1, 2.0)]
)
def test_any_number_of_prototypes_is_loaded(make):
    first, second = make(), make()
    first.centers = torch.randn(7, 3)
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.centers, first.centers)
