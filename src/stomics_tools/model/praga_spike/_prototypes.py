"""Prototypes of the latent space, and the contrastive loss that draws spots to theirs."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.special import gammaln, multigammaln
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from stomics_tools.model.praga_spike._settings import PragaSettings

N_COMPONENTS = 10
MIN_SPLIT = 20


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
    nearest = torch.cdist(latent.detach(), centers).argmin(1)
    similarity = latent @ centers.T / temperature
    own = nearest[:, None] == torch.arange(len(centers), device=latent.device)
    size = own.sum(0)
    used = (size > 0) & (size < len(latent))
    own, similarity, size = own[:, used], similarity[:, used], size[used]
    positive = similarity.masked_fill(~own, -torch.inf).logsumexp(0) - size.to(latent.dtype).log()
    everything = similarity.logsumexp(0) - float(np.log(len(latent)))
    return (everything - positive).sum() / len(centers)


class Prototypes(nn.Module):
    """Holds the prototypes and renews them every few epochs.

    ``prototypes="fixed"`` is what the published model does: each time a new Gaussian mixture of ``n_prototypes``
    components (its split and merge steps never fire, since their prior has fewer degrees of freedom than dimensions).
    ``"dynamic"`` is what it meant to do: prototypes are carried over, split and merged, see :func:`split_and_merge`.
    """

    centers: Tensor

    def __init__(self, settings: PragaSettings) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("centers", torch.empty(0, settings.n_latent))

    def loss(self, latent: Tensor, epoch: int) -> Tensor:
        """Weighted contrastive loss; zero before ``prototype_start``."""
        settings = self.settings
        if epoch < settings.prototype_start or settings.prototype_weight == 0:
            return latent.new_zeros(())
        if len(self.centers) == 0 or epoch % settings.prototype_every == 0:
            self.renew(latent.detach())
        return settings.prototype_weight * contrastive_loss(latent, self.centers, settings.temperature)

    def renew(self, latent: Tensor) -> None:
        """Estimate the prototypes anew from ``(n_obs, n_latent)``."""
        z = latent.double().cpu().numpy()
        n_prototypes = min(self.settings.n_prototypes, len(z) // 2)
        if self.settings.prototypes == "fixed":
            centers = GaussianMixture(n_prototypes, random_state=0).fit(z).means_
        else:
            if len(self.centers):
                labels = torch.cdist(latent, self.centers).argmin(1).cpu().numpy()
            else:
                x = _reduce(z)
                labels = GaussianMixture(n_prototypes, covariance_type="tied", random_state=0).fit_predict(x)
            labels = split_and_merge(z, labels)
            centers = np.stack([z[labels == k].mean(axis=0) for k in np.unique(labels)])
        self.centers = nn.functional.normalize(torch.from_numpy(centers).to(latent), dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Their number changes during training: take the saved one.
        saved = state_dict.get(prefix + "centers")
        if saved is not None:
            self.centers = self.centers.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _reduce(z: np.ndarray) -> np.ndarray:
    """Leading principal components ``(n_obs, <= 10)``, where a full covariance can be estimated."""
    return PCA(min(N_COMPONENTS, *z.shape), svd_solver="full").fit_transform(z)


def split_and_merge(z: np.ndarray, labels: np.ndarray, max_rounds: int = 20) -> np.ndarray:
    """Split and merge clusters while the marginal likelihood of a Dirichlet process mixture rises.

    Parameters
    ----------
    z
        ``(n_obs, n_latent)``.
    labels
        Clusters to begin with, integers ``(n_obs,)``.
    max_rounds
        Passes over all clusters at most.

    Returns
    -------
    Labels ``0 ... K-1``, ``(n_obs,)``.

    A split of cluster k into 1 and 2 is taken if
    ``ln G(N1) + ln G(N2) - ln G(N) + ln m(X1) + ln m(X2) - ln m(X) > 0`` (concentration 1), a merge in the reverse
    case. `m` is the marginal likelihood under a normal-inverse-Wishart prior on the leading principal components,
    with as many degrees of freedom as it needs (dimensions + 2) and the mean within-cluster covariance as its scale.

    Source: the move of DeepDPM (Ronen et al., CVPR 2022), whose prior PRAGA borrowed without these two conditions.
    """
    x = _reduce(z)
    labels = np.unique(labels, return_inverse=True)[1]
    for _ in range(max_rounds):
        prior = _Prior(x, labels)
        changed = _split(x, labels, prior)
        merged = _merge(x, labels, prior)
        labels = np.unique(labels, return_inverse=True)[1]
        if not (changed or merged):
            break
    return labels


class _Prior:
    """Normal-inverse-Wishart prior of a cluster's mean and covariance."""

    def __init__(self, x: np.ndarray, labels: np.ndarray) -> None:
        n_dims = x.shape[1]
        self.mean = x.mean(axis=0)
        self.kappa = 0.01
        self.nu = n_dims + 2.0
        within = x - _means(x, labels)[labels]
        # With nu = D + 2 the expected covariance is Psi itself.
        self.psi = within.T @ within / len(x) + 1e-9 * np.trace(np.cov(x.T).reshape(n_dims, n_dims)) * np.eye(n_dims)

    def log_score(self, x: np.ndarray) -> float:
        """``ln G(N) + ln m(X)`` of the spots of one cluster, ``(N, n_dims)``."""
        n, d = x.shape
        mean = x.mean(axis=0)
        centered, shift = x - mean, mean - self.mean
        kappa, nu = self.kappa + n, self.nu + n
        psi = self.psi + centered.T @ centered + self.kappa * n / kappa * np.outer(shift, shift)
        return float(
            gammaln(n)
            - n * d / 2 * np.log(np.pi)
            + multigammaln(nu / 2, d)
            - multigammaln(self.nu / 2, d)
            + self.nu / 2 * np.linalg.slogdet(self.psi)[1]
            - nu / 2 * np.linalg.slogdet(psi)[1]
            + d / 2 * np.log(self.kappa / kappa)
        )


def _means(x: np.ndarray, labels: np.ndarray) -> np.ndarray:
    sums = np.zeros((labels.max() + 1, x.shape[1]))
    np.add.at(sums, labels, x)
    return sums / np.maximum(np.bincount(labels), 1)[:, None]


def _split(x: np.ndarray, labels: np.ndarray, prior: _Prior) -> bool:
    """Split in place every cluster that gains by it."""
    changed = False
    for k in range(labels.max() + 1):
        rows = np.flatnonzero(labels == k)
        if len(rows) < MIN_SPLIT:
            continue
        part = x[rows]
        second = GaussianMixture(2, random_state=0, reg_covar=1e-6 * part.var()).fit_predict(part) == 1
        if min(second.sum(), (~second).sum()) < 2:
            continue
        if prior.log_score(part[second]) + prior.log_score(part[~second]) > prior.log_score(part):
            labels[rows[second]] = labels.max() + 1
            changed = True
    return changed


def _merge(x: np.ndarray, labels: np.ndarray, prior: _Prior) -> bool:
    """Merge in place each cluster with its nearest one where both gain by it; each takes part once."""
    changed = False
    means = _means(x, labels)
    free = set(np.unique(labels).tolist())
    for k in sorted(free):
        others = [j for j in free if j != k]
        if k not in free or not others:
            continue
        j = min(others, key=lambda j: float(np.square(means[j] - means[k]).sum()))
        first, second = x[labels == k], x[labels == j]
        if prior.log_score(np.vstack([first, second])) > prior.log_score(first) + prior.log_score(second):
            labels[labels == j] = k
            free -= {k, j}
            changed = True
    return changed
