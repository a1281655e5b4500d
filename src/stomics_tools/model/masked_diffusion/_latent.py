"""Expression of a cell in few numbers, whatever genes are given, and back."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn


class GeneLatent(nn.Module):
    """Probabilistic principal components of standardised expression (Tipping & Bishop 1999).

    The latent value of a cell is its whitened principal components. Where only some genes are given, its mean and
    variance given these are in closed form.

    Parameters
    ----------
    n_genes, n_latent
        Sizes.
    """

    loadings: Tensor
    variance: Tensor
    noise: Tensor

    def __init__(self, n_genes: int, n_latent: int) -> None:
        super().__init__()
        self.register_buffer("loadings", torch.zeros(n_genes, n_latent))
        self.register_buffer("variance", torch.ones(n_latent))
        self.register_buffer("noise", torch.tensor(1.0))

    def fit(self, genes: np.ndarray) -> None:
        """Fit to standardised expression ``(n_obs, n_genes)``, of which values not measured are zero."""
        n_obs, n_genes = genes.shape
        n_latent = len(self.variance)
        _, values, rows = randomized_svd(genes, n_components=min(n_latent, n_obs), random_state=0)
        missing = n_latent - len(values)
        values, rows = np.pad(values, (0, missing)), np.pad(rows, ((0, missing), (0, 0)))
        variance = values**2 / n_obs
        rest = np.square(genes).sum() / n_obs - variance.sum()
        # Directions without variance are kept at a little of it: else single precision loses it beside the others.
        variance = np.maximum(variance, max(1e-3 * variance.mean(), 1e-6))
        noise = rest / (n_genes - n_latent) if n_genes > n_latent else variance[-1]
        self.loadings.copy_(torch.as_tensor(rows.T.copy()))
        self.variance.copy_(torch.as_tensor(variance))
        self.noise.copy_(torch.as_tensor(np.clip(noise, 1e-3 * variance.mean(), 0.999 * variance[-1])))

    def encode(self, genes: Tensor) -> Tensor:
        """``(..., n_genes)`` to ``(..., n_latent)``."""
        return genes @ (self.loadings / self.variance.sqrt())

    def decode(self, latent: Tensor) -> Tensor:
        """``(..., n_latent)`` to ``(..., n_genes)``."""
        return (latent * self.variance.sqrt()) @ self.loadings.T

    def given(self, genes: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
        """Mean ``(b, n, n_latent)`` and variance ``(b, 1, n_latent)`` of the latent value given some genes.

        Parameters
        ----------
        genes
            ``(b, n, n_genes)``, zero for genes that are not given.
        given
            ``(b, n_genes)``, 0 or 1.
        """
        gain = self._gain(given)
        told = gain @ (self.loadings * self.variance.sqrt())
        return genes @ gain.mT, (1 - told.diagonal(dim1=-2, dim2=-1)).clamp(1e-4, 1)[:, None]

    def told(self, latent: Tensor, given: Tensor) -> Tensor:
        """What some genes, given by 0 or 1 ``(n_genes,)``, would tell of cells whose latent value is ``(n, n_latent)``."""
        return latent @ (self._gain(given[None])[0] @ (self.loadings * self.variance.sqrt())).T

    def _gain(self, given: Tensor) -> Tensor:
        """From genes to the mean of the latent value, ``(b, n_latent, n_genes)``."""
        scale = (self.variance - self.noise).clamp(min=0).sqrt()
        parts = self.loadings * scale * given[..., None]  # (b, n_genes, n_latent)
        own = parts.mT @ parts
        eye = torch.eye(own.shape[-1], device=own.device, dtype=own.dtype)
        stretch = (self.variance.sqrt() / scale.clamp(min=1e-6))[:, None]
        return stretch * torch.linalg.solve(own + self.noise * eye, parts.mT)
