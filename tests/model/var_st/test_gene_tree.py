from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from stomics_tools.model.var_st._gene_tree import fitting_scales, gene_tree, ordered_tree


def is_nested(tree: np.ndarray) -> bool:
    """Whether genes of one group are together at every coarser scale."""
    pairs = zip(tree[:-1], tree[1:], strict=True)
    return all(len(set(coarse[fine == group])) == 1 for coarse, fine in pairs for group in np.unique(fine))


def planted(n_obs: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised expression of 48 genes in no order, in six modules, and these in two programs."""
    rng = np.random.default_rng(seed)
    module = rng.permutation(np.repeat(np.arange(6), 8))
    program = module % 2
    factors = rng.normal(size=(n_obs, 2))[:, program] + rng.normal(size=(n_obs, 6))[:, module]
    values = factors + 0.5 * rng.normal(size=(n_obs, 48))
    return (values - values.mean(0)) / values.std(0), module, program


@pytest.mark.parametrize("finest", [6, 20, 48], ids=["modules", "k-means", "genes"])
def test_planted_modules_are_found(finest: int) -> None:
    values, module, program = planted()
    scales = (1, 2, 6) if finest == 6 else (1, 2, 6, finest)
    tree = gene_tree(values, scales)
    assert tree.shape == (len(scales), 48)
    assert tree.dtype == np.int64
    assert adjusted_rand_score(tree[1], program) == 1
    assert adjusted_rand_score(tree[2], module) == 1
    assert is_nested(tree)


@pytest.mark.parametrize(("n_obs", "n_genes"), [(100, 60), (5, 60), (100, 20), (1, 20)])
def test_groups_are_nested_and_numbered_in_the_order_of_their_first_genes(n_obs: int, n_genes: int) -> None:
    values = np.random.default_rng(1).normal(size=(n_obs, n_genes))
    scales = (1, 3, 7, 20)
    tree = gene_tree(values, scales)
    assert is_nested(tree)
    for groups, size in zip(tree, scales, strict=True):
        names, first = np.unique(groups, return_index=True)
        np.testing.assert_array_equal(names, np.arange(size))
        assert (np.diff(first) > 0).all()


def test_as_many_groups_as_genes_is_each_gene_by_itself() -> None:
    np.testing.assert_array_equal(gene_tree(planted()[0], (4, 48))[-1], np.arange(48))


def test_groups_follow_the_genes_wherever_they_stand() -> None:
    values = planted()[0]
    order = np.random.default_rng(2).permutation(48)
    for a, b in zip(gene_tree(values, (2, 6, 48)), gene_tree(values[:, order], (2, 6, 48)), strict=True):
        assert adjusted_rand_score(a[order], b) == 1


def test_same_data_same_tree() -> None:
    values = planted()[0]
    kept = values.copy()
    np.testing.assert_array_equal(gene_tree(values, (2, 10)), gene_tree(values, (2, 10)))
    np.testing.assert_array_equal(values, kept)


def test_one_gene_and_one_scale() -> None:
    values = np.random.default_rng(0).normal(size=(20, 5))
    np.testing.assert_array_equal(gene_tree(values[:, :1], (1,)), [[0]])
    np.testing.assert_array_equal(gene_tree(values, (1,)), np.zeros((1, 5)))


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_genes_without_variance_leave_no_empty_group() -> None:
    values = np.zeros((50, 30))
    values[:, :4] = np.random.default_rng(0).normal(size=(50, 4))
    tree = gene_tree(values, (1, 3, 12))
    assert is_nested(tree)
    for groups in tree:
        np.testing.assert_array_equal(np.unique(groups), np.arange(groups.max() + 1))


def test_scales_are_cut_to_the_genes() -> None:
    assert fitting_scales((1, 8, 32, 200), 500) == (1, 8, 32, 200)
    assert fitting_scales((1, 8, 32, 200), 20) == (1, 8, 20)
    assert fitting_scales((1, 8, 32, 200), 8) == (1, 8)
    assert fitting_scales((4, 8), 1) == (1,)


@pytest.mark.parametrize("n_genes", [200, 201, 300, 1000, 1013])
def test_ordered_groups_are_nested_runs_of_about_the_same_length(n_genes: int) -> None:
    scales = (1, 8, 32, 200)
    tree = ordered_tree(n_genes, scales)
    assert is_nested(tree)
    for groups, size in zip(tree, scales, strict=True):
        assert (np.diff(groups) >= 0).all()
        np.testing.assert_array_equal(np.unique(groups), np.arange(size))
    assert np.ptp(np.bincount(tree[-1])) <= 1


def test_ordered_groups_of_one_gene_are_the_genes() -> None:
    np.testing.assert_array_equal(ordered_tree(20, (1, 8, 20))[-1], np.arange(20))
