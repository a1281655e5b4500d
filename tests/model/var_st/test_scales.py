from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stomics_tools.model.var_st._scales import GeneGroups, Scales, check_scales


def membership(groups: Tensor) -> Tensor:
    """Zeros and ones, ``(n_groups, n_members)``."""
    return torch.nn.functional.one_hot(groups).T.double()


def in_groups(tree: Tensor, scale: int) -> Tensor:
    """Group of `scale` of each group of the finest scale."""
    return torch.stack([tree[scale][tree[-1] == group][0] for group in range(int(tree[-1].max()) + 1)])


@pytest.mark.parametrize("groups", [[0, 1, 2, 3], [0, 0, 0, 0], [1, 0, 2, 1, 1, 0, 1]], ids=["each", "one", "uneven"])
def test_to_groups_and_to_genes_match_loops(groups: list[int]) -> None:
    layer = GeneGroups(torch.tensor(groups))
    n_genes, n_groups = len(groups), max(groups) + 1
    x, weight = torch.randn(3, n_genes), torch.randn(n_genes, 4)
    field = torch.randn(3, n_groups, 4)
    expected = torch.zeros(3, n_groups, 4)
    genes = torch.zeros(3, n_genes)
    for gene, group in enumerate(groups):
        expected[:, group] += x[:, gene, None] * weight[gene]
        genes[:, gene] = field[:, group] @ weight[gene]
    torch.testing.assert_close(layer.to_groups(x, weight), expected)
    torch.testing.assert_close(layer.to_genes(field, weight), genes)


def test_to_genes_is_the_transpose_of_to_groups() -> None:
    layer = GeneGroups(torch.randint(6, (40,)).sort().values.unique(return_inverse=True)[1])
    n_groups = len(layer.members)
    x, weight, field = torch.randn(2, 40).double(), torch.randn(40, 3).double(), torch.randn(2, n_groups, 3).double()
    left = (layer.to_groups(x, weight) * field).sum()
    right = (layer.to_genes(field, weight) * x).sum()
    torch.testing.assert_close(left, right)


def test_an_empty_place_gets_no_gradient_and_gives_none() -> None:
    layer = GeneGroups(torch.tensor([0, 0, 0, 1]))
    weight = torch.ones(4, 2, requires_grad=True)
    layer.to_groups(torch.tensor([[1.0, 2.0, 3.0, 4.0]]), weight).sum().backward()
    torch.testing.assert_close(weight.grad, torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None].expand(4, 2))


def test_sizes_and_tokens(tree: Tensor) -> None:
    scales = Scales(tree)
    assert scales.sizes == (2, 3, 5)
    assert scales.starts == [0, 2, 5, 10]
    assert scales.slices() == [slice(0, 2), slice(2, 5), slice(5, 10)]


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_down_is_the_mean_of_a_group_and_up_its_transpose(tree: Tensor, scale: int) -> None:
    scales = Scales(tree)
    assigned = membership(in_groups(tree, scale))  # (n_groups, s)
    fine, coarse = torch.randn(4, 5, 3).double(), torch.randn(4, scales.sizes[scale], 3).double()
    means = (assigned / assigned.sum(1, keepdim=True)) @ fine
    torch.testing.assert_close(scales.down(fine, scale), means)
    torch.testing.assert_close(scales.up(coarse, scale), assigned.T @ coarse)
    torch.testing.assert_close(scales.down(scales.up(coarse, scale), scale), coarse)


def test_every_gene_goes_up_from_its_own_group(tree: Tensor) -> None:
    scales = Scales(tree)
    for scale, groups in enumerate(tree):
        numbers = torch.arange(scales.sizes[scale]).double()[None, :, None]
        torch.testing.assert_close(scales.up(numbers, scale)[0, tree[-1], 0], groups.double())


def test_scales_that_cannot_be_used_are_named() -> None:
    assert check_scales([1, 8.0]) == (1, 8)
    for scales in ((), (0, 2), (4, 4), (8, 2)):
        with pytest.raises(ValueError, match="`scales` must be positive and ascending"):
            check_scales(scales)
