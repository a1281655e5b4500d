"""PRAGA on dense n x n arrays, as published (arXiv 2409.12728): what the edge-list model is judged beside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

N_FEATURE_NEIGHBORS = 20
PROTOTYPE_START = 100
TEMPERATURE = 2.0


@dataclass(frozen=True)
class Published:
    """Settings of a technology; those that differ between them."""

    epochs: int
    lr: float = 0.01
    weight_decay: float = 5e-3
    weights: tuple[float, float] = (5.0, 5.0)
    n_latent: int = 64
    by_distance: bool = True
    n_prototypes: int = 10
    every: int = 50


SETTINGS = {
    "10x": Published(30),
    "spots": Published(200),
    "simulation": Published(200, 0.001, 2e-2, (1.0, 3.0), 128, False, 5, 100),
}


def fit(features: Sequence[np.ndarray], coordinates: np.ndarray, data_type: str, seed: int, epochs: int | None = None):
    """Latent ``(n_obs, n_latent)`` of two modalities, each row of length one."""
    settings = SETTINGS[data_type]
    x = [torch.from_numpy(np.ascontiguousarray(f, dtype=np.float32)) for f in features]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = DensePraga(x, torch.from_numpy(np.asarray(coordinates, dtype=np.float64)), settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=settings.lr, momentum=0.9, weight_decay=settings.weight_decay)
    for epoch in range(settings.epochs if epochs is None else epochs):
        loss = model.loss(epoch, seed)
        if not torch.isfinite(loss):
            raise FloatingPointError(f"loss is {float(loss)} at epoch {epoch}")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        latent = model.latent([model.learned(m) for m in range(len(x))])
        return nn.functional.normalize(latent, dim=1).numpy()


class DensePraga(nn.Module):
    """One n x n parameter a modality, mixed with the spatial graph by a 1 x 1 convolution over the two."""

    def __init__(self, x: list[Tensor], coordinates: Tensor, settings: Published) -> None:
        super().__init__()
        self.x, self.settings = x, settings
        n, d = len(coordinates), settings.n_latent
        self.eye = torch.eye(n)
        distance = torch.cdist(coordinates, coordinates, compute_mode="donot_use_mm_for_euclid_dist")
        self.spatial = self._graph(distance, 3, by_distance=False)
        gaps = [1 - torch.corrcoef(values.double()) for values in x]
        self.initial = [self._graph(gap, N_FEATURE_NEIGHBORS, by_distance=settings.by_distance) for gap in gaps]
        self.average = list(self.initial)
        self.parameter = nn.ParameterList(graph.clone() for graph in self.initial)
        self.mix = nn.ModuleList(nn.Conv2d(2, 1, 1) for _ in x)
        self.encoder = nn.ParameterList(nn.init.xavier_uniform_(torch.empty(v.shape[1], d)) for v in x)
        self.decoder = nn.ParameterList(nn.init.xavier_uniform_(torch.empty(d, v.shape[1])) for v in x)
        self.fusion = nn.Sequential(nn.Linear(len(x) * d, d), nn.Linear(d, d))
        self.centers: Tensor | None = None

    def _graph(self, distance: Tensor, k: int, *, by_distance: bool) -> Tensor:
        near = distance.fill_diagonal_(torch.inf).topk(k, largest=False)
        weight = near.values if by_distance else torch.ones_like(near.values)
        graph = torch.zeros_like(distance).scatter_(1, near.indices, weight).float()
        return _normalized((graph + graph.T).clamp(max=1) + self.eye)

    def learned(self, m: int) -> Tensor:
        """Graph of a modality, from its n x n parameter."""
        p = self.parameter[m]
        return _normalized(torch.relu((p + p.T) / 2) + self.eye)

    def latent(self, graphs: list[Tensor]) -> Tensor:
        """All modalities together."""
        each = []
        for m, x in enumerate(self.x):
            mixed = self.mix[m](torch.stack([self.spatial, graphs[m]])[None])[0, 0]
            each.append(mixed @ (x @ self.encoder[m]))
        return self.fusion(torch.cat(each, dim=1))

    def loss(self, epoch: int, seed: int) -> Tensor:
        """Of one step; running means and prototypes move on with it."""
        graphs = [self.learned(m) for m in range(len(self.x))]
        if epoch > 0:
            self.average = [0.9 * a + 0.1 * g.detach() for a, g in zip(self.average, graphs, strict=True)]
        z = self.latent(graphs if epoch > 0 else self.initial)
        total = sum(
            w * (self.spatial @ (z @ v) - x).square().mean()
            for w, v, x in zip(self.settings.weights, self.decoder, self.x, strict=True)
        )
        total = total + sum(torch.norm(g - a) for g, a in zip(graphs, self.average, strict=True)) / len(graphs)
        if epoch < PROTOTYPE_START:
            return total
        if self.centers is None or epoch % self.settings.every == 0:
            mixture = GaussianMixture(self.settings.n_prototypes, random_state=seed).fit(z.detach().double().numpy())
            self.centers = nn.functional.normalize(torch.from_numpy(mixture.means_).float(), dim=1)
        return total + self._contrast(z, self.centers)

    @staticmethod
    def _contrast(z: Tensor, centers: Tensor) -> Tensor:
        nearest = torch.cdist(z.detach(), centers).argmin(1)
        similarity = z @ centers.T / TEMPERATURE
        total = z.new_zeros(())
        for k in range(len(centers)):
            own = nearest == k
            if own.any() and not own.all():
                total = total - similarity[own, k].exp().mean().log() + similarity[:, k].exp().mean().log()
        return total / len(centers)


def _normalized(graph: Tensor) -> Tensor:
    """``D^-1/2 graph D^-1/2``; the products with a diagonal are broadcast, with the result of the published ones."""
    scale = graph.sum(1).rsqrt()
    return scale[:, None] * graph * scale
