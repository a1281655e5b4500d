"""Where a cell may lie: places of a tissue, and how likely each of them is."""

from __future__ import annotations

import math

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn

from stomics_tools.model.masked_diffusion._mixture import Mixture
from stomics_tools.model.masked_diffusion._retrieval import Alike

_MOST, _CELLS_OF_A_PLACE = 200, 5
_MAX_FITTED = 10_000
_BLUR = 0.8
_N_STEPS = 400
_LEAST_VARIANCE = 1e-4
_FIRST_WEIGHT = 0.3  # of cells alike, where the search for it begins


def n_places(n_obs: int) -> int:
    """Places for so many cells of training."""
    return min(_MOST, max(n_obs // _CELLS_OF_A_PLACE, 1))


class Places(nn.Module):
    """Places spread over the tissue of training, by which genes say where a cell may lie.

    Probabilities of places tell what a regression of coordinates cannot: that a cell lies on either of two like sides, or
    anywhere along a layer. They become a density as a mixture of normal distributions, one around each place.

    Two say where: a classifier, and the cells of training that are alike. Each gives the logarithm of how much more likely
    than in the tissue at large a place is, up to a constant. They are weighted and added (a logarithmic opinion pool, Genest &
    Zidek 1986).

    Parameters
    ----------
    n_places, n_dims
        Sizes.
    """

    position: Tensor
    log_share: Tensor
    blur: Tensor

    def __init__(self, n_places: int, n_dims: int) -> None:
        super().__init__()
        self.register_buffer("position", torch.zeros(n_places, n_dims))
        self.register_buffer("log_share", torch.zeros(n_places))  # of the tissue, whatever the genes of a cell
        self.register_buffer("blur", torch.tensor(1.0))
        self.log_variance = nn.Parameter(torch.zeros(n_dims), requires_grad=False)
        self.log_sharpness = nn.Parameter(torch.tensor([0.0, math.log(_FIRST_WEIGHT)]), requires_grad=False)

    def spread_over(self, position: Tensor) -> None:
        """Lay the places among cells ``(n, d)``, the means of clusters of them."""
        chosen = position[torch.randperm(len(position))[:_MAX_FITTED]].numpy()
        n_clusters = min(len(self.position), len(np.unique(chosen, axis=0)))
        found = torch.as_tensor(KMeans(n_clusters, n_init=1, random_state=0).fit(chosen).cluster_centers_)
        self.position.copy_(found[torch.arange(len(self.position)) % n_clusters])
        if n_clusters > 1:
            between = torch.cdist(found, found).fill_diagonal_(torch.inf)  # at most 200 x 200
            self.blur.copy_(_BLUR * between.min(1).values.mean())
        self.log_share.copy_(torch.cat([self.target(part) for part in position.split(_MAX_FITTED)]).mean(0).log())
        self.log_variance.copy_(2 * self.blur.log().expand_as(self.log_variance))

    def target(self, position: Tensor) -> Tensor:
        """Probabilities ``(n, n_places)`` of cells that lie at `position` ``(n, d)``: those of places around."""
        return (-(torch.cdist(position, self.position) / self.blur).square() / 2).softmax(1)

    def among(self, alike: Alike, position: Tensor) -> Tensor:
        """What cells alike say, ``(n, n_places)``: which places they lie at, and one more that lies anywhere.

        `position` ``(n_references, d)`` is that of all they are chosen from.
        """
        share = self.log_share.exp()
        return ((alike.sum(self.target(position)) + share) / (alike.number + 1)).log() - self.log_share

    def error(self, output: Tensor, target: Tensor) -> Tensor:
        """Terms of the cross-entropy of outputs of the classifier ``(..., n_places)``."""
        return -target * (self.log_share + output).log_softmax(-1)

    def forward(self, said: Tensor) -> Mixture:
        """Positions expected, as a mixture, by what both say ``(..., 2, n_places)``; zero says nothing."""
        variance = self.log_variance.exp().clamp(min=_LEAST_VARIANCE)
        weight = self.log_share + (self.log_sharpness.exp()[:, None] * said).sum(-2)
        return Mixture(self.position, variance.expand_as(self.position), weight.log_softmax(-1))

    def calibrate(self, said: Tensor, position: Tensor) -> None:
        """Find width and both weights of the largest likelihood of cells that are new to the classifier and to the places.

        `said` is ``(n, 2, n_places)``, `position` ``(n, d)``.
        """
        parameters = [self.log_variance, self.log_sharpness]
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimizer = torch.optim.Adam(parameters, lr=0.05)
        with torch.enable_grad():
            for _ in range(_N_STEPS):
                loss = -self(said).log_density(position).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        for parameter in parameters:
            parameter.requires_grad_(False)
