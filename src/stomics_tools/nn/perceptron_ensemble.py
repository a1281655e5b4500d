"""Perceptrons side by side, some of which leave a fold of the data out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def squared_error(output: Tensor, target: Tensor) -> Tensor:
    """Of each output."""
    return (output - target).square()


class EnsembleLinear(nn.Module):
    """A linear layer for each member of an ensemble, ``(n_members, b, n_in)`` to ``(n_members, b, n_out)``."""

    def __init__(self, n_members: int, n_in: int, n_out: int, *, zero: bool = False) -> None:
        super().__init__()
        bound = 0.0 if zero else n_in**-0.5
        self.weight = nn.Parameter(torch.empty(n_members, n_in, n_out).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(n_members, 1, n_out).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """Every member its own map."""
        return torch.baddbmm(self.bias, x, self.weight)


class EnsembleNorm(nn.Module):
    """Layer normalisation with a gain and a bias for each member."""

    def __init__(self, n_members: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_members, 1, width))
        self.bias = nn.Parameter(torch.zeros(n_members, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        """``(n_members, b, width)`` to the same."""
        return nn.functional.layer_norm(x, x.shape[-1:]) * self.weight + self.bias


class PerceptronEnsemble(nn.Module):
    """Regression by perceptrons with two hidden layers.

    Some are trained on all spots, and their mean is the prediction. For each fold one more is trained on the spots of
    the other folds: what these say of the fold is what the ensemble says of data that it has not seen, so that residuals
    are honest, and what is trained on its predictions meets them as it will later.

    Parameters
    ----------
    n_inputs, n_outputs
        Widths.
    n_members
        Perceptrons trained on all spots.
    n_folds
        Folds of the training data.
    width
        Of the two hidden layers.
    dropout
        Of the hidden layers; of the inputs two thirds of it.
    """

    def __init__(
        self, n_inputs: int, n_outputs: int, *, n_members: int, n_folds: int, width: int, dropout: float
    ) -> None:
        super().__init__()
        self.n_members, self.n_folds = n_members, n_folds
        total = n_members + n_folds
        self.layers = nn.Sequential(
            nn.Dropout(dropout * 2 / 3),
            EnsembleLinear(total, n_inputs, width),
            EnsembleNorm(total, width),
            nn.GELU(),
            nn.Dropout(dropout),
            EnsembleLinear(total, width, width),
            EnsembleNorm(total, width),
            nn.GELU(),
            nn.Dropout(dropout),
            EnsembleLinear(total, width, n_outputs, zero=True),
        )

    @torch.no_grad()
    def start_at_means(self, y: Tensor, measured: Tensor, fold: Tensor) -> None:
        """Let every member begin with the mean of the targets that it may see; arguments as in :meth:`loss`.

        A member that leaves a fold out would otherwise begin with the mean of all, which the fold is a part of.
        """
        bias = self.layers[-1].get_parameter("bias")
        for member in range(self.n_members + self.n_folds):
            seen = measured * (fold != member - self.n_members)[:, None]
            bias[member, 0] = (y * seen).sum(0) / seen.sum(0).clamp(min=1)

    def forward(self, x: Tensor) -> Tensor:
        """Mean of the members trained on all spots: ``(b, n_inputs)`` to ``(b, n_outputs)``."""
        return self._every(x)[: self.n_members].mean(0)

    def left_out(self, x: Tensor, fold: Tensor) -> Tensor:
        """Prediction of every spot by the member that was not trained on its `fold` ``(b,)``: ``(b, n_outputs)``."""
        return self._every(x)[self.n_members + fold, torch.arange(len(x), device=x.device)]

    def loss(
        self,
        x: Tensor,
        y: Tensor,
        measured: Tensor,
        fold: Tensor,
        *,
        mixup: float,
        error: Callable[[Tensor, Tensor], Tensor] = squared_error,
    ) -> Tensor:
        """Error per output and member, on mixtures of two spots (Zhang et al. 2018).

        A mixture counts for the members that may see both of its spots.

        Parameters
        ----------
        x
            ``(b, n_inputs)``.
        y, measured
            Targets, zero where `measured` (0 or 1) is 0: ``(b, n_outputs)``.
        fold
            int64 ``(b,)``.
        mixup
            Both parameters of the Beta distribution of the shares; 0 for no mixture.
        error
            Of outputs ``(n_members + n_folds, b, n_outputs)`` and targets ``(b, n_outputs)``, each by itself.
        """
        other = torch.randperm(len(x), device=x.device)
        share = x.new_ones(len(x), 1)
        if mixup > 0:
            share = torch.distributions.Beta(mixup, mixup).sample((len(x), 1)).to(x)
        seen = torch.ones(self.n_members + self.n_folds, len(x), 1, device=x.device)
        rows = torch.arange(len(x), device=x.device)
        seen[self.n_members + fold, rows] = 0
        if mixup > 0:
            seen[self.n_members + fold[other], rows] = 0
        weight = seen * (measured * measured[other] if mixup > 0 else measured)
        target = share * y + (1 - share) * y[other]
        errors = error(self._every(share * x + (1 - share) * x[other]), target) * weight
        return (errors.sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)).mean()

    def _every(self, x: Tensor) -> Tensor:
        return self.layers(x.expand(self.n_members + self.n_folds, -1, -1))
