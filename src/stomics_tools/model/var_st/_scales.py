"""Pooling over the gene tree: genes to groups, groups to coarser groups, and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class GeneGroups(nn.Module):
    """Linear maps between the genes and the groups of the finest scale, with weights of its own for every gene.

    Parameters
    ----------
    groups
        int64 ``(n_genes,)``: group of each gene, numbered from 0 without gaps.
    """

    members: Tensor
    position: Tensor

    def __init__(self, groups: Tensor) -> None:
        super().__init__()
        sizes = torch.bincount(groups)
        order = torch.argsort(groups, stable=True)
        starts = torch.repeat_interleave(torch.cumsum(sizes, 0) - sizes, sizes)
        slot = torch.arange(len(groups)) - starts  # place of a gene in its group
        width = int(sizes.max())
        members = torch.full((len(sizes), width), len(groups))  # one past the last gene: an empty place
        members[groups[order], slot] = order
        position = torch.empty_like(groups)
        position[order] = groups[order] * width + slot
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("position", position, persistent=False)

    def to_groups(self, x: Tensor, weight: Tensor) -> Tensor:
        """Sum over the genes of a group of value times weight: ``(b, n_genes)``, ``(n_genes, c)`` to ``(b, s, c)``."""
        grouped = nn.functional.pad(x, (0, 1))[:, self.members]  # (b, s, m)
        weights = nn.functional.pad(weight, (0, 0, 0, 1))[self.members]  # (s, m, c)
        return torch.einsum("bsm,smc->bsc", grouped, weights)

    def to_genes(self, x: Tensor, weight: Tensor) -> Tensor:
        """Product of a group's vector with the weights of each of its genes: ``(b, s, c)`` to ``(b, n_genes)``."""
        weights = nn.functional.pad(weight, (0, 0, 0, 1))[self.members]
        return torch.einsum("bsc,smc->bsm", x, weights).flatten(1)[:, self.position]


class Scales(nn.Module):
    """The groups of every scale, over those of the finest.

    Parameters
    ----------
    tree
        int64 ``(n_scales, n_genes)``: nested groups of the genes, coarse to fine, see
        :func:`~stomics_tools.model.var_st._gene_tree.gene_tree`.
    """

    def __init__(self, tree: Tensor) -> None:
        super().__init__()
        self.sizes: tuple[int, ...] = tuple(int(groups.max()) + 1 for groups in tree)
        finest = tree[-1]
        first = torch.full((self.sizes[-1],), len(finest)).scatter_reduce(0, finest, torch.arange(len(finest)), "amin")
        for scale, groups in enumerate(tree):
            self.register_buffer(f"up_{scale}", groups[first], persistent=False)

    @property
    def starts(self) -> list[int]:
        """First token of each scale, and the number of tokens."""
        return [sum(self.sizes[:scale]) for scale in range(len(self.sizes) + 1)]

    def slices(self) -> list[slice]:
        """Tokens of each scale."""
        return [slice(*pair) for pair in zip(self.starts[:-1], self.starts[1:], strict=True)]

    def up(self, x: Tensor, scale: int) -> Tensor:
        """Groups of `scale` to those of the finest: ``(b, n_groups, c)`` to ``(b, s, c)``."""
        return x[:, self._groups(scale)]

    def down(self, x: Tensor, scale: int) -> Tensor:
        """Mean over the finest groups in each group of `scale`: ``(b, s, c)`` to ``(b, n_groups, c)``."""
        groups = self._groups(scale)
        total = x.new_zeros(len(x), self.sizes[scale], x.shape[-1]).index_add(1, groups, x)
        return total / torch.bincount(groups, minlength=self.sizes[scale])[:, None]

    def _groups(self, scale: int) -> Tensor:
        return self.get_buffer(f"up_{scale}")


def check_scales(scales: Sequence[int]) -> tuple[int, ...]:
    """Scales as ``tuple[int, ...]``; ``ValueError`` unless they are positive and ascending."""
    numbers = tuple(int(scale) for scale in scales)
    if not numbers or numbers[0] < 1 or any(a >= b for a, b in zip(numbers, numbers[1:], strict=False)):
        raise ValueError(f"`scales` must be positive and ascending, such as (1, 8, 32, 200), found {tuple(scales)}.")
    return numbers
