"""What is left of expression beside its expectation, for intervals."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from stomics_tools._intervals import N_QUANTILES, GroupResiduals, bounds, check_level, group_residuals, largest_level


class Residuals(nn.Module):
    """Residuals of each gene on patients (sections, parts of a section) that were left out of training, as saved.

    Parameters
    ----------
    n_genes
        Genes.
    """

    within: Tensor
    between: Tensor
    n_groups: Tensor
    n_values: Tensor

    def __init__(self, n_genes: int) -> None:
        super().__init__()
        self.register_buffer("within", torch.full((N_QUANTILES, n_genes), torch.nan))
        self.register_buffer("between", torch.full((n_genes,), torch.nan))
        self.register_buffer("n_groups", torch.zeros(n_genes, dtype=torch.int64))
        self.register_buffer("n_values", torch.zeros(n_genes, dtype=torch.int64))

    def fit(self, residuals: np.ndarray, group: np.ndarray) -> None:
        """Take residuals ``(n_obs, n_genes)``, NaN where a gene was not measured, of groups, codes ``(n_obs,)``."""
        found = group_residuals(residuals, group)
        for name, values in found._asdict().items():
            buffer = getattr(self, name)
            buffer.copy_(torch.as_tensor(values).to(buffer.dtype))

    def bounds(self, level: float) -> tuple[Tensor, Tensor]:
        """Lower and upper bound of the residual of each gene, float32 ``(n_genes,)`` each, that hold it with chance `level`.

        Raises
        ------
        LevelError
            If the left-out groups cannot support `level`.
        """
        own = (getattr(self, name).cpu().numpy() for name in GroupResiduals._fields)
        lower, upper = bounds(GroupResiduals(*own), level)
        return torch.as_tensor(lower, dtype=torch.float32), torch.as_tensor(upper, dtype=torch.float32)

    def check_level(self, level: float) -> None:
        """Raise ``LevelError`` if no gene was measured in groups and spots enough for `level`."""
        check_level(level, int(self.n_groups.max()), int(self.n_values.max()))

    @property
    def largest_level(self) -> float:
        """Largest level that the left-out groups support; that of the gene that was measured most."""
        return largest_level(int(self.n_groups.max()), int(self.n_values.max()))

    def unsupported(self, level: float) -> np.ndarray:
        """Genes that were measured in fewer groups or spots than `level` needs, a mask ``(n_genes,)``."""
        pairs = list(zip(self.n_groups.tolist(), self.n_values.tolist(), strict=True))
        largest = {pair: largest_level(*pair) for pair in set(pairs)}
        return np.array([level > largest[pair] for pair in pairs])
