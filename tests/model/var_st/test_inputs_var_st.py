from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from stomics_tools.model.var_st._inputs import (
    N_FREQUENCIES,
    Inputs,
    InputScaling,
    coordinate_features,
    n_inputs,
    neighbor_rows,
)


def place(n: int = 60, n_dims: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Spots of three sections in one frame, in no order."""
    rng = np.random.default_rng(0)
    return rng.uniform(size=(n, n_dims)), rng.permutation(np.arange(n) % 3)


@pytest.mark.parametrize("n_dims", [2, 3])
def test_neighbours_are_the_nearest_of_the_section(n_dims: int) -> None:
    xy, section = place(60, n_dims)
    rows = neighbor_rows(xy, section, 4)
    assert rows.shape == (60, 4)
    assert rows.dtype == np.int64
    for i in range(60):
        others = [j for j in range(60) if j != i and section[j] == section[i]]
        distances = [np.linalg.norm(xy[i] - xy[j]) for j in others]
        np.testing.assert_array_equal(rows[i], np.array(others)[np.argsort(distances)[:4]])


def test_sections_that_lie_on_each_other_are_not_mixed() -> None:
    xy = np.repeat(np.random.default_rng(0).uniform(size=(10, 2)), 2, axis=0)
    section = np.tile([0, 1], 10)
    rows = neighbor_rows(xy, section, 3)
    assert (section[rows] == section[:, None]).all()


def test_fewer_spots_than_neighbours_repeat_the_nearest() -> None:
    xy = np.array([[0.0, 0], [1, 0], [3, 0], [0, 50]])
    rows = neighbor_rows(xy, np.array([0, 0, 0, 1]), 5)
    np.testing.assert_array_equal(rows, [[1, 2, 1, 2, 1], [0, 2, 0, 2, 0], [1, 0, 1, 0, 1], [3, 3, 3, 3, 3]])


def test_spots_at_one_place_are_not_their_own_neighbours() -> None:
    rows = neighbor_rows(np.zeros((8, 2)), np.zeros(8, dtype=int), 3)
    for i, row in enumerate(rows):
        assert i not in row
        assert len(set(row)) == 3


def test_coordinates_do_not_depend_on_origin_and_unit() -> None:
    xy, section = place()
    features = coordinate_features(xy, section)
    assert features.dtype == np.float32
    assert features.shape == (60, 2 * (1 + 2 * N_FREQUENCIES))
    moved = xy.copy()
    for name, (scale, shift) in enumerate([(0.01, 3.0), (55.0, -1000.0), (1.0, 1e4)]):
        moved[section == name] = moved[section == name] * scale + shift
    np.testing.assert_allclose(coordinate_features(moved, section), features, atol=1e-4)
    for name in range(3):
        centred = features[section == name, :2].astype(float)
        np.testing.assert_allclose(centred.mean(0), 0, atol=1e-6)
        assert (centred**2).sum(1).mean() == pytest.approx(1, rel=1e-5)


def test_coordinates_match_the_formula_and_are_not_changed() -> None:
    xy = np.array([[1.0, 0], [-1, 0], [0, 1], [0, -1]])
    kept = xy.copy()
    features = coordinate_features(xy, np.zeros(4, dtype=int))
    row = [1, 0, *[f(np.pi / 2 * v * 2**p) for f in (np.sin, np.cos) for p in range(3) for v in (1, 0)]]
    np.testing.assert_allclose(features[0], row, atol=1e-6)
    np.testing.assert_array_equal(xy, kept)


def test_a_section_of_one_spot_lies_in_its_middle() -> None:
    features = coordinate_features(np.array([[5.0, 7.0]]), np.zeros(1, dtype=int))
    np.testing.assert_allclose(features[0, :8], 0, atol=1e-6)
    assert np.isfinite(features).all()


def test_scaling_matches_the_training_spots_and_cuts_outliers() -> None:
    values = np.random.default_rng(0).normal(3, [1, 100, 1e-3], size=(500, 3)).astype(np.float32)
    scaling = InputScaling(3)
    scaling.fit(values)
    expected = (values.astype(float) - values.mean(0, dtype=float)) / values.std(0, dtype=float)
    np.testing.assert_allclose(scaling(torch.as_tensor(values)), expected.clip(-5, 5), atol=2e-3)
    assert scaling(torch.tensor([1e9, -1e9, 3.0])).abs().max() == 5


@pytest.mark.parametrize("constant", [0.0, 0.1, -7.3e6, 1e-12])
def test_constant_features_count_as_zero(constant: float) -> None:
    values = np.full((333, 2), constant, dtype=np.float32)
    values[:, 1] = np.arange(333)
    scaling = InputScaling(2)
    scaling.fit(values)
    assert not scaling(torch.as_tensor(values))[:, 0].any()
    assert not scaling(torch.tensor([[constant + 100, 0.0]]))[:, 0].any()
    other = InputScaling(2)
    other.load_state_dict(scaling.state_dict())
    torch.testing.assert_close(other(torch.as_tensor(values)), scaling(torch.as_tensor(values)))


def make_inputs(**given: Any) -> tuple[Inputs, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    features = rng.normal(2, 3, size=(60, 5)).astype(np.float32)
    covariates = rng.normal(size=(60, 2)).astype(np.float32)
    scaling = InputScaling(5)
    scaling.fit(features)
    xy, section = place()
    inputs = Inputs(features, scaling, covariates, xy, section, **{"n_neighbors": 0, "use_coordinates": False, **given})
    return inputs, (features - features.mean(0)) / features.std(0), covariates


def test_inputs_are_features_neighbours_covariates_and_places_side_by_side() -> None:
    inputs, scaled, covariates = make_inputs(n_neighbors=3, use_coordinates=True)
    xy, section = place()
    rows = np.array([7, 0, 41, 7])
    near = neighbor_rows(xy, section, 3)
    expected = [scaled, scaled[near].mean(1), covariates, coordinate_features(xy, section)]
    found = inputs.rows(rows)
    assert found.dtype == torch.float32
    assert found.shape == (4, n_inputs(5, 2, 2, n_neighbors=3, use_coordinates=True))
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1)[rows], atol=1e-5)


@pytest.mark.parametrize("n_neighbors", [0, 2])
@pytest.mark.parametrize("use_coordinates", [False, True])
def test_width_of_inputs(n_neighbors: int, use_coordinates: bool) -> None:
    given = {"n_neighbors": n_neighbors, "use_coordinates": use_coordinates}
    assert make_inputs(**given)[0].rows(np.arange(3)).shape == (3, n_inputs(5, 2, 2, **given))


def test_without_places_none_are_needed() -> None:
    scaling = InputScaling(5)
    features, nothing = np.ones((4, 5), dtype=np.float64), np.empty((4, 0), dtype=np.float32)
    inputs = Inputs(features, scaling, nothing, None, np.zeros(4, dtype=int), n_neighbors=0, use_coordinates=False)
    torch.testing.assert_close(inputs.rows(np.arange(4)), torch.ones(4, 5))


@pytest.mark.parametrize("size", [1, 7, 60, 1000])
def test_blocks_are_all_rows_in_their_order(size: int) -> None:
    inputs, _, _ = make_inputs(n_neighbors=2, use_coordinates=True)
    blocks = list(inputs.blocks(size))
    torch.testing.assert_close(torch.cat([block for _, block in blocks]), inputs.rows(np.arange(60)))
    np.testing.assert_array_equal(np.concatenate([np.arange(60)[where] for where, _ in blocks]), np.arange(len(inputs)))
    assert all(len(block) <= size for _, block in blocks)
