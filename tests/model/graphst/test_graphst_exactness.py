"""The models on edges against the published ones, written out on dense n x n arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stomics_tools.data import Spots
from stomics_tools.model.graphst._inputs import Inputs, prepare
from stomics_tools.model.graphst._module import GraphSTModule
from stomics_tools.model.graphst._settings import PRESETS, GraphSTSettings

EPOCHS = 50


class DenseGraphST(nn.Module):
    """Adjacency, mask of the readout and all expression as dense arrays; values as they are."""

    def __init__(self, spots: Spots, order: np.ndarray, module: GraphSTModule, kind: str) -> None:
        super().__init__()
        xy = torch.from_numpy(spots.coordinates[order])
        n, k = len(xy), module.settings.n_spatial_neighbors
        distance = torch.cdist(xy, xy, compute_mode="donot_use_mm_for_euclid_dist").fill_diagonal_(torch.inf)
        near = torch.zeros(n, n, dtype=torch.float64).scatter_(1, distance.topk(k, largest=False).indices, 1.0)
        eye = torch.eye(n, dtype=torch.float64)
        both = (near + near.T).clamp(max=1)
        if kind == "dense":
            scale = torch.diag(both.sum(1).pow(-0.5))
            self.adjacency = scale @ both @ scale + eye
        else:
            scale = torch.diag((both + eye).sum(1).pow(-0.5))
            self.adjacency = scale @ (both + eye) @ scale
        self.mask = near + eye
        self.x = torch.from_numpy(spots.modalities["expression"].values[order]).double()
        self.w1, self.w2 = (nn.Parameter(p.detach().clone()) for p in (module.encoder, module.decoder))
        self.bilinear = nn.Bilinear(len(self.w2), len(self.w2), 1, dtype=torch.float64)
        with torch.no_grad():
            self.bilinear.weight.copy_(module.discriminator.weight)
            self.bilinear.bias.fill_(0)

    def around(self, e: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(F.normalize(self.mask @ e / self.mask.sum(1, keepdim=True), dim=1))

    def latent(self, x: torch.Tensor) -> torch.Tensor:
        return self.adjacency @ (x @ self.w1)

    def reconstruction(self) -> torch.Tensor:
        return self.adjacency @ (self.latent(self.x) @ self.w2)

    def loss(self, order: torch.Tensor) -> torch.Tensor:
        e, corrupted = F.relu(self.latent(self.x)), F.relu(self.latent(self.x[order]))
        target = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(len(e), 2)
        both = []
        for own, other in ((e, corrupted), (corrupted, e)):
            g = self.around(own)
            logits = torch.cat([self.bilinear(own, g), self.bilinear(other, g)], 1)
            both.append(F.binary_cross_entropy_with_logits(logits, target))
        return 10 * F.mse_loss(self.reconstruction(), self.x) + both[0] + both[1]


def _module(inputs: Inputs, settings: GraphSTSettings, seed: int = 0) -> GraphSTModule:
    torch.manual_seed(seed)
    return GraphSTModule(inputs.center, inputs.scale, settings).double()


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_published_models_step_by_step(spots: Callable[..., Spots], kind: str) -> None:
    data, settings = spots(), replace(PRESETS[kind], n_latent=5)
    inputs = prepare(data, settings, dtype=torch.float64)
    module = _module(inputs, settings)
    dense = DenseGraphST(data, inputs.order, module, kind)
    optimizers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (module, dense)]
    for epoch in range(EPOCHS):
        torch.manual_seed(epoch)
        loss = module.loss(inputs)["train_loss"]
        torch.manual_seed(epoch)
        expected = dense.loss(torch.randperm(inputs.n_obs))
        torch.testing.assert_close(loss, expected, rtol=1e-9, atol=1e-9)
        for optimizer, value in zip(optimizers, (loss, expected), strict=True):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    for own, reference in ((module.encoder, dense.w1), (module.decoder, dense.w2)):
        torch.testing.assert_close(own, reference, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(module.discriminator.weight, dense.bilinear.weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(module.latent(inputs), dense.latent(dense.x), rtol=1e-6, atol=1e-6)
    output = dense.reconstruction()
    if kind == "sparse":
        output = F.normalize(output, dim=1)
    torch.testing.assert_close(module.reconstruction(inputs), output.detach(), rtol=1e-6, atol=1e-6)


def test_the_two_published_models_differ(spots: Callable[..., Spots]) -> None:
    first, second = (prepare(spots(), PRESETS[kind]) for kind in ("dense", "sparse"))
    assert first.spatial[0].n_edges == second.spatial[0].n_edges
    assert (first.spatial[1] - second.spatial[1]).abs().max() > 0.1


@pytest.mark.parametrize("tie_weights", [True, False])
def test_reconstruction_loss_and_gradient(spots: Callable[..., Spots], tie_weights: bool) -> None:
    """Without any array of all genes, what the plain formula gives; dropout is one of its own for the encoder."""
    settings = GraphSTSettings(n_latent=5, tie_weights=tie_weights, contrast_weight=0.0, n_hops=2)
    inputs = prepare(spots(), settings, dtype=torch.float64)
    module = _module(inputs, settings)
    found = torch.autograd.grad(module.loss(inputs)["train_loss"], list(module.parameters())[: 2 - tie_weights])
    w1 = module.encoder.detach().clone().requires_grad_()
    w2 = w1.T if tie_weights else module.decoder.detach().clone().requires_grad_()
    a = torch.zeros(80, 80, dtype=torch.float64)
    a[inputs.spatial[0].row.long(), inputs.spatial[0].col.long()] = inputs.spatial[1]
    loss = 10 * F.mse_loss(a @ a @ a @ inputs.values @ w1 @ w2, inputs.values)
    torch.testing.assert_close(module.loss(inputs)["train_loss"], loss)
    for gradient, expected in zip(found, torch.autograd.grad(loss, [w1] if tie_weights else [w1, w2]), strict=True):
        torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("corruption", ["permutation", "masking", "noise"])
def test_corrupted_views(spots: Callable[..., Spots], corruption: str) -> None:
    """``X' W1``: rows of other spots of the slice, rows of none, or rows with noise of the right covariance."""
    settings = GraphSTSettings(n_latent=3, corruption=corruption, corruption_rate=0.4)
    inputs = prepare(spots(n_slices=2), settings, dtype=torch.float64)
    module = _module(inputs, settings)
    encoded = (inputs.values @ module.encoder).detach()
    torch.manual_seed(0)
    views = torch.stack([module._corrupted(inputs, encoded) for _ in range(2000)]).detach()
    if corruption == "permutation":
        middle = inputs.segments[1]
        for view in views[:5]:
            for part in (slice(0, middle), slice(middle, None)):
                torch.testing.assert_close(view[part].sort(0).values, encoded[part].sort(0).values)
            assert not torch.equal(view, encoded)
        torch.testing.assert_close(views.mean(0)[0], encoded[:middle].mean(0), atol=0.15, rtol=0)
    elif corruption == "masking":
        kept = (views != 0).all(2)
        torch.testing.assert_close(views, encoded * kept[..., None])
        assert kept.double().mean() == pytest.approx(0.6, abs=0.005)
    else:
        residual = (views - encoded).flatten(0, 1)
        torch.testing.assert_close(
            residual.T @ residual / len(residual),
            0.16 * (module.encoder.T @ module.encoder).detach(),
            atol=0.003,
            rtol=0,
        )


def test_gradient_through_noise_is_that_of_noise_on_all_genes(spots: Callable[..., Spots]) -> None:
    """In expectation; noise outside of the span of the weights cancels."""
    settings = GraphSTSettings(n_latent=2, corruption="noise", corruption_rate=0.5)
    inputs = prepare(spots(n_obs=20, n_genes=4), settings, dtype=torch.float64)
    module = _module(inputs, settings)
    torch.manual_seed(1)
    gradients: list[list[torch.Tensor]] = [[], []]
    for _ in range(4000):
        encoded = inputs.values @ module.encoder
        views = (
            module._corrupted(inputs, encoded),
            (inputs.values + 0.5 * torch.randn_like(inputs.values)) @ module.encoder,
        )
        for kept, view in zip(gradients, views, strict=True):
            kept.append(torch.autograd.grad(view.square().mean(), module.encoder, retain_graph=True)[0])
    own, plain = (torch.stack(g) for g in gradients)
    spread = (own.std(0) ** 2 + plain.std(0) ** 2).sqrt() / 4000**0.5
    assert ((own.mean(0) - plain.mean(0)).abs() < 5 * spread).all()
    assert own.var(0).sum() < plain.var(0).sum()


def test_dropout_hides_values_from_the_encoder_alone(spots: Callable[..., Spots]) -> None:
    settings = GraphSTSettings(n_latent=5, dropout=0.5, contrast_weight=0.0)
    inputs = prepare(spots(), settings, dtype=torch.float64)
    module = _module(inputs, settings)
    first, against = module._products(inputs.values)
    torch.testing.assert_close(against, inputs.values @ module.decoder.T)
    assert not torch.allclose(first, inputs.values @ module.encoder)
    module.eval()
    torch.testing.assert_close(module._products(inputs.values)[0], inputs.values @ module.encoder)
    losses = [module.train().loss(inputs)["reconstruction_loss"] for _ in range(2)]
    assert losses[0] != losses[1]
