"""Prototypes of the latent space, and the contrastive loss that draws spots to theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from stomics_tools.model._clusters import find_prototypes


def contrastive_loss(latent: Tensor, centers: Tensor, temperature: float) -> Tensor:
    """Dynamic prototype contrastive loss, ``-1/K sum_k log(mean_{i in k} e^{z_i c_k / t} / mean_i e^{z_i c_k / t})``.

    Parameters
    ----------
    latent
        ``(n_obs, n_latent)``.
    centers
        ``(K, n_latent)``; a spot belongs to the nearest one. Clusters that hold no or all spots add nothing.
    temperature
        ``t`` above.

    Source: PRAGA, arXiv 2409.12728; the denominator runs over all spots, as in the published code.
    """
    nearest = torch.cdist(latent.detach(), centers).argmin(1)  # (n_obs, K)
    similarity = latent @ centers.T / temperature
    own = nearest[:, None] == torch.arange(len(centers), device=latent.device)
    size = own.sum(0)
    used = (size > 0) & (size < len(latent))
    own, similarity, size = own[:, used], similarity[:, used], size[used]
    positive = similarity.masked_fill(~own, -torch.inf).logsumexp(0) - size.to(latent.dtype).log()
    everything = similarity.logsumexp(0) - float(np.log(len(latent)))
    return (everything - positive).sum() / len(centers)


class _Centers(nn.Module):
    """A buffer ``centers`` ``(K, n_latent)`` that begins empty and whose number of rows may change."""

    centers: Tensor

    def __init__(self, n_latent: int) -> None:
        super().__init__()
        self.register_buffer("centers", torch.empty(0, n_latent))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Their number changes during training: take the saved one.
        saved = state_dict.get(prefix + "centers")
        if saved is not None:
            self.centers = self.centers.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


class MixturePrototypes(_Centers):
    """Prototypes of PRAGA: every few epochs the means of a new Gaussian mixture of as many components.

    The split and merge steps of the published code never fire, since their prior has fewer degrees of freedom than
    dimensions. Parameters as those of :class:`DynamicPrototypes`.
    """

    def __init__(self, n_latent: int, n_prototypes: int, start: int, every: int, temperature: float) -> None:
        super().__init__(n_latent)
        self.n_prototypes, self.start, self.every, self.temperature = n_prototypes, start, every, temperature

    def loss(self, latent: Tensor, epoch: int) -> Tensor:
        """Contrastive loss of ``(n_obs, n_latent)``; zero before the first epoch of it."""
        if epoch < self.start:
            return latent.new_zeros(())
        if len(self.centers) == 0 or epoch % self.every == 0:
            self.renew(latent.detach())
        return contrastive_loss(latent, self.centers, self.temperature)

    def renew(self, latent: Tensor) -> None:
        """Estimate the prototypes anew from ``(n_obs, n_latent)``."""
        z = latent.double().cpu().numpy()
        means = GaussianMixture(min(self.n_prototypes, len(z) // 2), random_state=0).fit(z).means_
        self.centers = nn.functional.normalize(torch.from_numpy(means).to(latent), dim=1)


class DynamicPrototypes(_Centers):
    """Prototypes that are carried over from one estimation to the next, and split and merged on the way.

    Parameters
    ----------
    n_latent
        Columns of the latent.
    n_prototypes
        Their number; None: it is found each time, see :func:`find_prototypes`.
    start
        First epoch of the loss.
    every
        Epochs between two estimations.
    temperature
        Of :func:`contrastive_loss`.

    Notes
    -----
    ``centers`` ``(K, n_latent)`` are means of clusters of the latent over the root mean square of its row norms: the
    loss does not change with the unit of the latent, as that of the published model, which normalises rows.
    """

    def __init__(self, n_latent: int, n_prototypes: int | None, start: int, every: int, temperature: float) -> None:
        super().__init__(n_latent)
        self.n_prototypes, self.start, self.every, self.temperature = n_prototypes, start, every, temperature

    def loss(self, latent: Tensor, epoch: int, graph: sparse.csr_matrix | None = None) -> Tensor:
        """Contrastive loss of ``(n_obs, n_latent)``; zero before the first epoch of it."""
        if epoch < self.start:
            return latent.new_zeros(())
        if len(self.centers) == 0 or epoch % self.every == 0:
            self.renew(latent, graph)
        return contrastive_loss(_unit_free(latent), self.centers, self.temperature)

    def renew(self, latent: Tensor, graph: sparse.csr_matrix | None = None) -> None:
        """Estimate the prototypes from ``(n_obs, n_latent)``, beginning with those there are.

        Without neighbours in space, `graph` ``(n_obs, n_obs)``, boundary spots count as all others.
        """
        z = _unit_free(latent.detach())
        before = self.labels(latent).cpu().numpy() if len(self.centers) else None
        found = find_prototypes(z.double().cpu().numpy(), before, n_prototypes=self.n_prototypes, graph=graph)
        own = torch.from_numpy(np.eye(found.max() + 1)[found]).to(z)
        self.centers = own.T @ z / own.sum(0)[:, None]

    def labels(self, latent: Tensor) -> Tensor:
        """The nearest prototype of each spot, int64 ``(n_obs,)``."""
        return torch.cdist(_unit_free(latent.detach()), self.centers).argmin(1)  # (n_obs, K)


def _unit_free(latent: Tensor) -> Tensor:
    return latent / latent.detach().square().sum(1).mean().sqrt().clamp(min=1e-12)
