"""The edge-list model against the published one, written out on dense n x n arrays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from stomics_tools.data import Modality, Spots
from stomics_tools.model.praga._inputs import prepare
from stomics_tools.model.praga._module import PragaModule
from stomics_tools.model.praga._settings import PUBLISHED

N, EPOCHS, START = 90, 50, 20


def _dense_normalize(a):
    scale = torch.diag(a.sum(1).pow(-0.5))
    return scale @ a @ scale


class DensePraga(nn.Module):
    """n x n graphs, adjacency parameters and 1 x 1 convolutions over stacked adjacencies."""

    def __init__(self, features, coordinates, settings):
        super().__init__()
        n, d = len(coordinates), settings.n_latent
        self.settings = settings
        self.x = features
        eye = torch.eye(n, dtype=torch.float64)
        distance = torch.cdist(coordinates, coordinates, compute_mode="donot_use_mm_for_euclid_dist")
        distance.fill_diagonal_(torch.inf)
        spatial = torch.zeros(n, n, dtype=torch.float64)
        spatial.scatter_(1, distance.topk(settings.n_spatial_neighbors, largest=False).indices, 1.0)
        self.s = _dense_normalize((spatial + spatial.T).clamp(max=1) + eye)
        self.p = nn.ParameterList()
        self.initial = []
        for x in features:
            gap = 1 - torch.corrcoef(x)
            gap.fill_diagonal_(torch.inf)
            near = gap.topk(settings.n_feature_neighbors, largest=False)
            weight = near.values if settings.feature_weights == "distance" else torch.ones_like(near.values)
            f = torch.zeros(n, n, dtype=torch.float64).scatter_(1, near.indices, weight)
            f = _dense_normalize((f + f.T).clamp(max=1) + eye)
            self.initial.append(f)
            self.p.append(nn.Parameter(f.clone()))
        self.average = [f.clone() for f in self.initial]
        self.conv = nn.ModuleList(nn.Conv2d(2, 1, 1, dtype=torch.float64) for _ in features)
        self.w = nn.ParameterList(torch.zeros(x.shape[1], d, dtype=torch.float64) for x in features)
        self.v = nn.ParameterList(torch.zeros(d, x.shape[1], dtype=torch.float64) for x in features)
        self.fc1 = nn.Linear(len(features) * d, d, dtype=torch.float64)
        self.fc2 = nn.Linear(d, d, dtype=torch.float64)
        self.loss_weights = settings.loss_weights

    def graph(self, m):
        p = self.p[m]
        return _dense_normalize(torch.relu((p + p.T) / 2) + torch.eye(len(p), dtype=torch.float64))

    def latent(self, graphs):
        each = []
        for m, x in enumerate(self.x):
            adjacency = self.conv[m](torch.stack([self.s, graphs[m]])[None])[0, 0]
            each.append(adjacency @ (x @ self.w[m]))
        return self.fc2(self.fc1(torch.cat(each, 1)))

    def loss(self, epoch, graphs, centers):
        z = self.latent(graphs)
        rec = sum(
            w * ((self.s @ (z @ v) - x) ** 2).mean() for w, v, x in zip(self.loss_weights, self.v, self.x, strict=True)
        )
        homogeneity = sum(torch.norm(self.graph(m) - self.average[m], p="fro") for m in range(len(self.x))) / len(
            self.x
        )
        total = rec + homogeneity
        if centers is not None:
            nearest = ((z[:, None] - centers[None]) ** 2).sum(-1).argmin(1)
            cl = 0.0
            for k, c in enumerate(centers):
                own = nearest == k
                if own.any() and not own.all():
                    e = torch.exp(z @ c / self.settings.temperature)
                    cl = cl - torch.log(e[own].mean() / e.mean())
            total = total + self.settings.prototype_weight * cl / len(centers)
        return total


@pytest.fixture
def problem():
    rng = np.random.default_rng(3)
    xy = rng.uniform(size=(N, 2))
    group = (xy[:, 0] > 0.5).astype(int) + 2 * (xy[:, 1] > 0.5)
    values = [rng.normal(size=(4, f))[group] + rng.normal(size=(N, f)) for f in (12, 7)]
    # Nearly centred, as principal components are: the rank-one term adds up what is left.
    values = [(v - v.mean(0)) / v.std() + 0.01 for v in values]
    modalities = {
        name: Modality(v.astype(np.float32), np.ones(N, dtype=bool), None)
        for name, v in zip(("protein", "rna"), values, strict=True)
    }
    return Spots(modalities, xy, np.zeros(N, dtype=np.int64), ["0"], None, {})


@pytest.mark.parametrize("data_type", ["spots", "simulation"])
def test_equal_to_the_dense_model_over_50_steps(problem, data_type):
    settings = replace(
        PUBLISHED[data_type],
        n_latent=16,
        n_feature_neighbors=8,
        prototype_start=START,
        n_prototypes=4,
        prototype_every=10,
    )
    inputs = prepare(problem, settings, dtype=torch.float64)
    torch.manual_seed(0)
    ours = PragaModule(inputs.moments, inputs.features, settings.loss_weights, settings).double()
    features = [torch.from_numpy(m.values[inputs.order]).double() for m in problem.modalities.values()]
    dense = DensePraga(features, torch.from_numpy(problem.coordinates[inputs.order]), settings)
    with torch.no_grad():
        for m in range(2):
            dense.conv[m].weight.copy_(ours.mix[m][:2].reshape(1, 2, 1, 1))
            dense.conv[m].bias.copy_(ours.mix[m][2:])
            dense.w[m].copy_(ours.encoders[m])
            dense.v[m].copy_(ours.decoders[m])
        dense.fc1.load_state_dict(ours.fusion[0].state_dict())
        dense.fc2.load_state_dict(ours.fusion[1].state_dict())

    def sgd(model):
        return torch.optim.SGD(model.parameters(), lr=settings.lr, momentum=0.9, weight_decay=settings.weight_decay)

    optimizers = sgd(ours), sgd(dense)
    graphs = dense.initial
    for epoch in range(EPOCHS):
        losses = ours.loss(inputs)
        centers = ours.prototypes.centers if epoch >= START else None
        expected = dense.loss(epoch, graphs, centers)
        assert float(losses["train_loss"].detach()) == pytest.approx(float(expected.detach()), rel=1e-9)
        assert (float(losses["prototype_loss"].detach()) != 0) == (epoch >= START)
        for optimizer, loss in zip(optimizers, (losses["train_loss"], expected), strict=True):
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        graphs = [dense.graph(m) for m in range(2)]
        for m in range(2):
            dense.average[m] = 0.9 * dense.average[m] + 0.1 * graphs[m].detach()

    weights = [graph() for graph in ours.learned]
    z = ours(inputs, weights)[0]
    torch.testing.assert_close(z, dense.latent(graphs), rtol=0, atol=1e-6)
    moved = 0.0
    for m, learned in enumerate(ours.learned):
        scattered = torch.zeros(N, N, dtype=torch.float64)
        scattered[learned.graph.row, learned.graph.col] = learned.value.detach()
        torch.testing.assert_close(scattered, dense.p[m].detach(), rtol=0, atol=1e-6)
        moved = max(moved, float((learned.value.detach() - inputs.features[m][1]).abs().max()))
    assert moved > 1e-3  # the graph did learn


def test_blocked_inference_is_exact(problem):
    settings = replace(PUBLISHED["spots"], n_latent=16, n_feature_neighbors=8)
    inputs = prepare(problem, settings, dtype=torch.float64)
    module = PragaModule(inputs.moments, inputs.features, settings.loss_weights, settings).double()
    weights = [graph().detach() for graph in module.learned]
    whole, each = module(inputs, weights)
    for size in (1, 7, N, 10 * N):
        blocked = module.latent(inputs, weights, block_size=size)
        torch.testing.assert_close(blocked, nn.functional.normalize(whole.detach(), dim=1))
    first = module.latent(inputs, weights, modality=0, block_size=11)
    torch.testing.assert_close(first, nn.functional.normalize(each[0].detach(), dim=1))
