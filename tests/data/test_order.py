"""The space-filling order."""

from __future__ import annotations

import numpy as np
import pytest

from stomics_tools.data import hilbert_order


@pytest.mark.parametrize(("side", "n_dims"), [(16, 2), (8, 3)])
def test_one_step_at_a_time_on_a_full_grid(side, n_dims):
    """What makes a Hilbert curve one: it visits every cell once and moves to a neighbour each time."""
    grid = np.stack(np.meshgrid(*[np.arange(side)] * n_dims, indexing="ij"), -1).reshape(-1, n_dims)
    shuffled = np.random.default_rng(0).permutation(grid)
    path = shuffled[hilbert_order(shuffled.astype(float), n_bits=int(np.log2(side)))]
    assert len(np.unique(path, axis=0)) == side**n_dims
    np.testing.assert_array_equal(np.abs(np.diff(path, axis=0)).sum(1), 1)


def test_batches_stand_one_after_the_other():
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 3, 50)
    order = hilbert_order(rng.uniform(size=(50, 2)), batch)
    np.testing.assert_array_equal(np.sort(order), np.arange(50))
    np.testing.assert_array_equal(batch[order], np.sort(batch))


def test_neighbours_in_space_are_near_in_memory():
    xy = np.random.default_rng(0).uniform(size=(4000, 2))
    path = xy[hilbert_order(xy)]
    assert (
        np.linalg.norm(np.diff(path, axis=0), axis=1).mean() < 0.05 * np.linalg.norm(np.diff(xy, axis=0), axis=1).mean()
    )


def test_ties_keep_the_given_order_and_lines_work():
    np.testing.assert_array_equal(hilbert_order(np.ones((5, 2))), np.arange(5))
    line = np.c_[np.arange(9.0), np.zeros(9)]
    steps = np.abs(np.diff(line[hilbert_order(line, n_bits=3)][:, 0]))
    assert steps.max() <= 2
