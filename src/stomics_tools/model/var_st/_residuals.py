"""What is left of expression beside its expectation, for intervals."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

N_QUANTILES = 399


class Residuals(nn.Module):
    """Quantiles of the residuals of each gene on spots that were left out of training, every fold weighing the same.

    Bounds from them are those of split conformal prediction with each fold predicted by a model trained on the others
    (Barber et al. 2021, cross-conformal): they hold for groups of spots that are exchangeable with the folds.

    Parameters
    ----------
    n_genes
        Genes.
    """

    quantiles: Tensor

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.register_buffer("quantiles", torch.full((N_QUANTILES, n_genes), torch.nan))

    def fit(self, residuals: np.ndarray, fold: np.ndarray) -> None:
        """Take residuals ``(n_obs, n_genes)``, NaN where a gene was not measured, of spots in folds ``(n_obs,)``."""
        sizes = np.bincount(fold)
        weight = 1.0 / sizes[fold]
        at = np.arange(1, N_QUANTILES + 1) / (N_QUANTILES + 1)
        columns = [weighted_quantiles(column, weight, at) for column in residuals.T]
        self.quantiles = torch.as_tensor(np.stack(columns, axis=1), dtype=torch.float32)

    def bounds(self, level: float) -> tuple[Tensor, Tensor]:
        """Lower and upper bound of the residual of each gene, ``(n_genes,)`` each, that hold it with chance `level`."""
        tail = (1 - level) / 2
        return self._at(tail), self._at(1 - tail)

    def _at(self, chance: float) -> Tensor:
        place = min(max(chance * (N_QUANTILES + 1) - 1, 0.0), N_QUANTILES - 1.0)
        below = min(int(place), N_QUANTILES - 2)
        return torch.lerp(self.quantiles[below], self.quantiles[below + 1], place - below)


def weighted_quantiles(values: np.ndarray, weight: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Smallest values below or at which the share `at` of the weight lies; NaN values do not count."""
    known = np.isfinite(values)
    values, weight = values[known], weight[known]
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weight[order])
    rows = np.searchsorted(cumulative, at * cumulative[-1] * (1 - 1e-12))
    return values[order][np.minimum(rows, len(values) - 1)]
