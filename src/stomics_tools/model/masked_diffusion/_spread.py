"""Positions of cells moved so that together they lie as densely as tissue does."""

from __future__ import annotations

import torch
from torch import Tensor

_N_TURNS = 30


def spread(position: Tensor, tissue: Tensor, generator: torch.Generator) -> Tensor:
    """Move cells to the density of `tissue` while what lies together stays together.

    Along each axis of one random frame after another, every cell goes where the cell of the same rank lies in the
    tissue: sliced optimal transport (Pitié et al. 2007), which is of order ``n log n``.

    Parameters
    ----------
    position
        ``(n, d)``.
    tissue
        ``(m, d)``, in the same frame.
    generator
        Of the frames.

    Returns
    -------
    ``(n, d)``.
    """
    n, n_dims = position.shape
    rank = ((torch.arange(n) + 0.5) / n * len(tissue) - 0.5).clamp(0, len(tissue) - 1)
    below = rank.long()
    part = (rank - below)[:, None].to(position)
    above = (below + 1).clamp(max=len(tissue) - 1)
    for _ in range(_N_TURNS):
        frame = torch.linalg.qr(torch.randn(n_dims, n_dims, generator=generator))[0].to(position)
        ordered = (tissue @ frame).sort(dim=0).values
        turned = position @ frame
        moved = torch.empty_like(turned).scatter_(
            0, turned.argsort(dim=0, stable=True), (1 - part) * ordered[below] + part * ordered[above]
        )
        position = moved @ frame.T
    return position
