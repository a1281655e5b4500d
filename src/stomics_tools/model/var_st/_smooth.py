"""The smooth part of the mean: kernel ridge regression on landmarks, and the nearest of these."""

from __future__ import annotations

import torch
from torch import Tensor, nn

N_NEAREST = 10
_N_AVERAGED = 50
_BLOCK = 4096
_USUAL = 0.9
_SMOOTH = {"relative_width": 10.0, "penalty": 3.0}


class SmoothRegression(nn.Module):
    """What a subset of the spots, the landmarks, says of others: half by regression, half by the nearest of them.

    The regression is ridge with a wide Gaussian kernel (Nystroem; Rudi et al. 2015, equation 8), which changes slowly
    under shifts of all features, as between patients, stains and scanners, where perceptrons do not. The mean of the
    nearest landmarks (50, and a quarter of them at most) never leaves the range of expression that was seen. Both err
    differently. It also tells how far off a spot is.

    Parameters
    ----------
    n_landmarks, n_inputs, n_genes
        Sizes of the state.
    """

    landmarks: Tensor
    coefficients: Tensor
    expression: Tensor
    squared_width: Tensor
    usual_distance: Tensor

    def __init__(self, n_landmarks: int, n_inputs: int, n_genes: int) -> None:
        super().__init__()
        self.register_buffer("landmarks", torch.zeros(n_landmarks, n_inputs))
        self.register_buffer("coefficients", torch.zeros(n_landmarks, n_genes))
        self.register_buffer("expression", torch.zeros(n_landmarks, n_genes))
        self.register_buffer("squared_width", torch.ones(()))
        self.register_buffer("usual_distance", torch.ones(()))

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
        distances = torch.pdist(landmarks).square()
        median = distances.median() if len(distances) else torch.ones(())
        width = relative_width * median.clamp(min=1e-12)
        gram = torch.exp(-torch.cdist(landmarks, landmarks).square() / width)
        normal, right = penalty * gram, torch.zeros(len(gram), y.shape[1], dtype=gram.dtype)
        for rows, values in zip(x.split(_BLOCK), y.split(_BLOCK), strict=True):
            kernel = torch.exp(-torch.cdist(rows.double(), landmarks).square() / width)
            normal += kernel.T @ kernel
            right += kernel.T @ values.double()
        jitter = 1e-9 * normal.diagonal().mean() * torch.eye(len(normal), dtype=normal.dtype)
        self.squared_width = width.to(x.dtype)
        self.landmarks.copy_(x[chosen])
        self.expression.copy_(y[chosen])
        self.coefficients.copy_(torch.cholesky_solve(right, torch.linalg.cholesky(normal + jitter)))

    def forward(self, x: Tensor) -> Tensor:
        """Mean of regression and nearest landmarks, ``(b, n_inputs)`` to ``(b, n_genes)``."""
        distances = torch.cdist(x, self.landmarks)
        return (self._regression(distances) + self._nearest(distances)) / 2

    def _regression(self, distances: Tensor) -> Tensor:
        return torch.exp(-distances.square() / self.squared_width) @ self.coefficients

    def _nearest(self, distances: Tensor) -> Tensor:
        n = min(_N_AVERAGED, -(-len(self.landmarks) // 4))
        total = distances.new_zeros(len(distances), self.expression.shape[1])
        for column in distances.topk(n, dim=1, largest=False).indices.T:  # no (b, n, n_genes) at once
            total += self.expression[column]
        return total / n

    def distance(self, x: Tensor) -> Tensor:
        """Distance to the tenth nearest landmark (the farthest, where there are fewer), ``(b,)``."""
        nearest = min(N_NEAREST, len(self.landmarks))
        return torch.cdist(x, self.landmarks).topk(nearest, dim=1, largest=False).values[:, -1]

    def novelty(self, x: Tensor) -> Tensor:
        """How strange spots are, ``(b, 1)``: 0 up to the usual distance, 1 from a quarter more."""
        return novelty(self.distance(x), self.usual_distance)


def novelty(distance: Tensor, usual: Tensor) -> Tensor:
    """See :meth:`SmoothRegression.novelty`: ``(b,)`` to ``(b, 1)``."""
    return ((distance / usual - 1) / 0.25).clamp(0, 1)[:, None]


def fit_left_out(regression: SmoothRegression, inputs: Tensor, x: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
    """Fit a smooth regression to inputs ``(n_obs, n_inputs)``, expression ``(n_obs, n_genes)`` and folds ``(n_obs,)``.

    Returns
    -------
    What one fitted to the other folds says of each fold, ``(n_obs, n_genes)``, and how strange its spots are to that one,
    ``(n_obs, 1)``: nine of ten are not.
    """
    regression.fit(inputs, x, **_SMOOTH)
    left_out, distance = torch.empty_like(x), torch.empty(len(x))
    for number in range(int(fold.max()) + 1):
        here = fold == number
        n_landmarks = min(len(regression.landmarks), int((~here).sum()))
        other = SmoothRegression(n_landmarks, inputs.shape[1], x.shape[1])
        other.fit(inputs[~here], x[~here], **_SMOOTH)
        blocks = inputs[here].split(1024)
        left_out[here] = torch.cat([other(block) for block in blocks])
        distance[here] = torch.cat([other.distance(block) for block in blocks])
    regression.usual_distance.copy_(distance.quantile(_USUAL).clamp(min=1e-6))
    return left_out, novelty(distance, regression.usual_distance)
