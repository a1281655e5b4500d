from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from stomics_tools.model.masked_diffusion._slices import Slice, around, nearest


@pytest.mark.parametrize("n_dims", [2, 3])
def test_nearest_against_brute_force(n_dims: int) -> None:
    position = np.random.default_rng(0).normal(size=(150, n_dims))
    distance = cdist(position, position)
    np.fill_diagonal(distance, np.inf)
    found = nearest(position, 9)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found, distance.argsort(1)[:, :9])


@pytest.mark.parametrize("n", [1, 3, 6, 30])
def test_cells_that_coincide_are_never_their_own_neighbours(n: int) -> None:
    rng = np.random.default_rng(1)
    position = np.repeat(rng.normal(size=(12, 2)), 8, axis=0)[rng.permutation(96)]
    found = nearest(position, n).numpy()
    assert found.shape == (96, n)
    assert (found != np.arange(96)[:, None]).all()
    assert all(len(set(row)) == n for row in found)
    distance = cdist(position, position)
    np.fill_diagonal(distance, np.inf)
    taken = np.take_along_axis(distance, found, axis=1)
    np.testing.assert_allclose(taken, np.sort(distance, axis=1)[:, :n])  # the nearest, in order, whatever the ties


@pytest.mark.parametrize("n_obs", [1, 2, 5])
def test_no_more_neighbours_than_other_cells(n_obs: int) -> None:
    found = nearest(np.random.default_rng(2).normal(size=(n_obs, 2)), 8)
    assert found.shape == (n_obs, n_obs - 1)
    for i, row in enumerate(found.tolist()):
        assert sorted(row) == [j for j in range(n_obs) if j != i]


@pytest.mark.parametrize("n_neighbors", [1, 2, 4, 9])
@pytest.mark.parametrize("share", [0.0, 0.15, 0.6, 1.0])
def test_around_against_a_loop(n_neighbors: int, share: float) -> None:
    rng = np.random.default_rng(3)
    latent, known = rng.normal(size=(80, 5)), rng.random(80) < share
    near = nearest(rng.normal(size=(80, 2)), 25)
    asked = rng.permutation(80)[:33]
    found = around(torch.as_tensor(latent), near[asked], torch.as_tensor(known), n_neighbors)
    assert found.shape == (33, 15)
    for row, cell in enumerate(asked):
        usable = [j for j in near[cell].tolist() if known[j]]
        for part, n in enumerate((max(n_neighbors // 3, 1), n_neighbors, 2 * n_neighbors)):
            expected = latent[usable[:n]].mean(0) if usable else np.zeros(5)
            np.testing.assert_allclose(found[row, 5 * part : 5 * part + 5], expected, atol=1e-12)


def test_around_reads_neither_the_cell_itself_nor_hidden_cells() -> None:
    rng = np.random.default_rng(4)
    latent = torch.as_tensor(rng.normal(size=(60, 4)), dtype=torch.float32)
    near, known = nearest(rng.normal(size=(60, 2)), 20), torch.as_tensor(rng.random(60) < 0.5)
    expected = around(latent, near, known, 6)
    assert expected.dtype == torch.float32
    spoiled = latent.clone()
    spoiled[~known] = 1e6
    assert torch.equal(around(spoiled, near, known, 6), expected)
    for cell in range(60):
        spoiled = latent.clone()
        spoiled[cell] = 1e6
        assert torch.equal(around(spoiled, near, known, 6)[cell], expected[cell])


def test_a_cell_alone_has_nobody_around() -> None:
    near = nearest(np.zeros((1, 2)), 5)
    assert torch.equal(around(torch.ones(1, 3), near, torch.ones(1, dtype=torch.bool), 5), torch.zeros(1, 9))


def test_number_of_cells() -> None:
    assert Slice(**{field.name: torch.zeros(7, 1) for field in fields(Slice)}).n_obs == 7
