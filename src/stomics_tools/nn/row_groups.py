"""Groups of rows in the place of the patches of an image."""

from __future__ import annotations

import torch
from torch import Tensor


def consecutive_groups(n_rows: int, size: int, device: torch.device | None = None) -> Tensor:
    """Groups of `size` rows that lie one after the other, the last of what is left.

    Along a space-filling curve these lie together in space.

    Parameters
    ----------
    n_rows, size
        Number of rows, and of rows in a group.
    device
        Of what is returned.

    Returns
    -------
    Group of each row from 0, int64 ``(n_rows,)``.
    """
    return torch.arange(n_rows, device=device) // size


def group_mean(x: Tensor, groups: Tensor) -> Tensor:
    """Mean over the rows of each group.

    Parameters
    ----------
    x
        ``(..., N, C)``.
    groups
        Group of each row, whole numbers from 0 of which each occurs, int64 ``(N,)``.

    Returns
    -------
    ``(..., n_groups, C)``.

    Raises
    ------
    ValueError
        If there is not one group for each row, or if a group has no row.
    """
    if groups.shape != x.shape[-2:-1]:
        raise ValueError(f"`groups` must have one group for each of {x.shape[-2]} rows, found {tuple(groups.shape)}.")
    sizes = groups.bincount()
    if not sizes.all():
        raise ValueError(f"`groups` must leave no number out, found no row of {(sizes == 0).nonzero()[0].item()}.")
    sums = x.new_zeros(*x.shape[:-2], len(sizes), x.shape[-1]).index_add(-2, groups, x)
    return sums / sizes[:, None]
