"""The linear answer in closed form: where the spatial signal lies, and how to predict a spot from its neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

from stomics_tools.model._canonical import canonical_axes, covariance, neighbor_means
from stomics_tools.model.praga_spike._tissue import Tissue

_MAX_FEATURES = 256
_N_COMPONENTS = 100


@dataclass
class Signal:
    """What training starts from: `d` directions, the most predictable first.

    Parameters
    ----------
    encoders
        Features to directions, ``(n_features, d)`` a modality. In the data every direction ``y`` has variance 1.
    decoders
        Directions to features, ``(d, n_features)`` a modality.
    hops
        Weight of the mean over each ring in the prediction of a spot, ``(n_modalities, n_hops, d)``.
    alike
        The same of the mean over the spots with like neighbourhoods, ``(n_modalities, d)``.
    """

    encoders: list[Tensor]
    decoders: list[Tensor]
    hops: Tensor
    alike: Tensor


def find_signal(tissue: Tissue, n_latent: int, threshold: float) -> Signal:
    """Directions in feature space along which a spot and its neighbours agree, and the weights of best prediction.

    The directions solve ``G b = l S b`` with the covariance S of the spots and G of a spot with the mean of its
    nearest ones: canonical correlation of the two. Noise of single spots is in S and not in G. Kept are those with
    ``l`` above the threshold (at least two). Everything is a sum over edges and spots; nothing is n x n.
    """
    values = [_reduced(x) for x in tissue.values]
    x = torch.cat([part for part, _ in values], dim=1)
    first = neighbor_means(tissue.rings[0], x)
    spread, common = covariance(x, x), covariance(x, first)
    lam, basis, inverse = canonical_axes(spread, (common + common.T) / 2)
    n_kept = min(n_latent, max(2, int((lam > threshold).sum())))
    basis, inverse = basis[:, :n_kept], inverse[:n_kept]

    sizes = [part.shape[1] for part, _ in values]
    inner = [b @ block for (_, b), block in zip(values, basis.to(x).split(sizes), strict=True)]
    outer = [block @ b.T for (_, b), block in zip(values, inverse.to(x).split(sizes, dim=1), strict=True)]
    each = [v @ w for v, w in zip(tissue.values, inner, strict=True)]
    y = torch.stack(each).sum(0)
    around = [[neighbor_means(ring, part) for ring in tissue.rings] for part in each]
    hops = _regression(y, [ring for rings in around for ring in rings]).view(len(each), len(tissue.rings), -1)
    alike = x.new_zeros(len(each), n_kept)
    if tissue.alike:
        alike = _regression(y, [neighbor_means(graph, part) for graph, part in zip(tissue.alike, each, strict=True)])

    return Signal(encoders=inner, decoders=outer, hops=hops, alike=alike)


def own_noise(y: Tensor, tissue: Tissue, whole: Tensor) -> Tensor:
    """:func:`noise_variance` of the directions ``(n_obs, d)`` among the spots that are `whole`, 1 or 0 ``(n_obs, 1)``."""
    y, covariances = y * whole, []
    for ring in tissue.rings:
        sums = neighbor_means(ring, torch.cat([y, whole], dim=1))
        covariances.append(_mean_product(y, sums[:, :-1] / sums[:, -1:].clamp(min=1e-6)))
    share = whole.double().mean().clamp(min=1e-9)
    variance = _mean_product(y, y) / share
    return noise_variance(variance, [c / share for c in covariances], tissue.distances).to(y)


def noise_variance(variance: Tensor, covariances: list[Tensor], distances: list[float]) -> Tensor:
    """The part of the variance that a spot shares with no other: the nugget of the variogram.

    Parameters
    ----------
    variance
        Of each direction, ``(d,)``.
    covariances
        Of a spot and the mean of its first, second, ... ring, ``(d,)`` each.
    distances
        Of the rings.

    Returns
    -------
    ``variance - c(0)``, ``(d,)``, where the covariance c of the signal is continued in a line from the first two
    rings to distance zero: near zero that of sharply bounded domains is linear, with a slope in proportion to the
    length of their boundaries. It lies between zero and ``variance - c(first ring)``.

    Source: factorial kriging (Matheron, 1982); covariance of random sets (Matheron, 1975).
    """
    near = covariances[0]
    at_zero = near
    if len(covariances) > 1:
        slope = (near - covariances[1]) / (distances[1] - distances[0])
        at_zero = near + slope.clamp(min=0) * distances[0]
    return (variance - at_zero.clamp(min=0)).clamp(min=0)


def _reduced(x: Tensor) -> tuple[Tensor, Tensor]:
    """A modality and the columns it is written in: itself, or its leading components where it has many features."""
    n_features = x.shape[1]
    if n_features <= _MAX_FEATURES:
        return x, torch.eye(n_features, dtype=x.dtype, device=x.device)
    _, vectors = eigsh(covariance(x, x).cpu().numpy(), k=_N_COMPONENTS, v0=np.ones(n_features))
    basis = torch.from_numpy(vectors[:, ::-1].copy()).to(x)
    return x @ basis, basis


def _mean_product(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).double().mean(0)


def _regression(y: Tensor, predictors: list[Tensor]) -> Tensor:
    """Least-squares weights ``(n_predictors, d)``, for each direction by itself."""
    stacked = torch.stack(predictors)  # (p, n, d)
    gram = torch.stack([(stacked * row).double().mean(1) for row in stacked])  # (p, p, d)
    target = (stacked * y).double().mean(1)  # (p, d)
    gram = gram.permute(2, 0, 1)
    scale = gram.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)
    ridge = 1e-4 * scale[:, None, None] * torch.eye(len(stacked), dtype=gram.dtype, device=gram.device)
    return torch.linalg.solve(gram + ridge, target.T[..., None]).squeeze(-1).T.to(y)
