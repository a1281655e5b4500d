"""The smooth part of the mean: kernel ridge regression on landmarks."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class KernelRidge(nn.Module):
    """Ridge regression with a Gaussian kernel on a subset of the spots (Nystroem; Rudi et al. 2015, equation 8).

    Far from all that it was fitted to, it falls back to the mean; a wide kernel changes slowly under shifts of all
    features, as between patients, stains and scanners, where perceptrons do not.

    Parameters
    ----------
    n_landmarks, n_inputs, n_genes
        Sizes of the state.
    """

    landmarks: Tensor
    coefficients: Tensor
    squared_width: Tensor

    def __init__(self, n_landmarks: int, n_inputs: int, n_genes: int) -> None:
        super().__init__()
        self.register_buffer("landmarks", torch.zeros(n_landmarks, n_inputs))
        self.register_buffer("coefficients", torch.zeros(n_landmarks, n_genes))
        self.register_buffer("squared_width", torch.ones(()))

    def fit(self, x: Tensor, y: Tensor, *, relative_width: float, penalty: float) -> None:
        """Fit to ``x`` ``(n, n_inputs)`` and ``y`` ``(n, n_genes)``, of which values not measured are zero.

        Parameters
        ----------
        relative_width
            Squared width of the kernel, in multiples of the median squared distance of two landmarks.
        penalty
            Of the squared norm of the function, in units of the variance of `y`.
        """
        chosen = torch.randperm(len(x))[: len(self.landmarks)]
        landmarks = x[chosen].double()
        distances = torch.cdist(landmarks, landmarks).square()
        self.squared_width = relative_width * distances.median().clamp(min=1e-12).to(x.dtype)
        gram = torch.exp(-distances / self.squared_width)
        kernel = torch.exp(-torch.cdist(x.double(), landmarks).square() / self.squared_width)
        normal = kernel.T @ kernel + penalty * gram
        jitter = 1e-9 * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
        self.landmarks.copy_(x[chosen])
        self.coefficients.copy_(torch.cholesky_solve(kernel.T @ y.double(), torch.linalg.cholesky(normal + jitter)))

    def forward(self, x: Tensor) -> Tensor:
        """``(b, n_inputs)`` to ``(b, n_genes)``."""
        return torch.exp(-torch.cdist(x, self.landmarks).square() / self.squared_width) @ self.coefficients
