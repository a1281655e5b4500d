from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import procrustes
from scipy.stats import special_ortho_group

from stomics_tools.metrics import align, normalized_rmsd, rmsd


@pytest.fixture(params=[2, 3])
def layouts(request):
    rng = np.random.default_rng(request.param)
    truth = rng.normal(size=(80, request.param)) * [300.0, 100.0, 50.0][: request.param] + 5000
    return truth, 0.6 * truth[:, ::-1] + rng.normal(size=truth.shape) * 80


def rotated(points, *, reflect=False, seed=0):
    turn = special_ortho_group.rvs(points.shape[1], random_state=seed)
    return points @ turn * ([-1.0] + [1.0] * (points.shape[1] - 1) if reflect else 1.0) - 3e4


def test_disparity_equals_scipy(layouts):
    truth, prediction = layouts
    expected = procrustes(truth, prediction)[2]
    assert normalized_rmsd(truth, prediction, scale=True) ** 2 == pytest.approx(expected, rel=1e-9)
    assert normalized_rmsd(truth, 7 * prediction, scale=True) ** 2 == pytest.approx(expected, rel=1e-9)


def test_rmsd_is_the_distance_left_in_units_of_the_coordinates(layouts):
    truth, prediction = layouts
    left = np.sqrt(((truth - align(truth, prediction)) ** 2).sum(axis=1).mean())
    radius = np.sqrt(truth.var(axis=0).sum())
    assert rmsd(truth, prediction) == pytest.approx(left, rel=1e-9)
    assert normalized_rmsd(truth, prediction) == pytest.approx(left / radius, rel=1e-9)
    assert rmsd(3 * truth, 3 * prediction) == pytest.approx(3 * left, rel=1e-9)
    assert rmsd(truth, prediction, scale=True) < rmsd(truth, prediction) < rmsd(truth, 0.1 * prediction)


@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("reflect", [False, True])
def test_no_other_pose_is_nearer(layouts, scale, reflect):
    """Against small changes of the pose found and against many others, of the size fitted or kept."""
    truth, prediction = layouts
    if reflect:  # so that the nearest pose is a reflection
        prediction = prediction * np.r_[-1.0, np.ones(truth.shape[1] - 1)]
    found = align(truth, prediction, scale=scale, reflect=reflect)
    best = ((truth - found) ** 2).sum()
    centre = truth.mean(axis=0)
    for seed in range(100):
        other = (found - centre) @ special_ortho_group.rvs(truth.shape[1], random_state=seed)
        assert ((truth - centre - other) ** 2).sum() > best
    assert ((truth - found - 0.1) ** 2).sum() > best
    if scale:
        for factor in (0.999, 1.001):
            assert ((truth - centre - factor * (found - centre)) ** 2).sum() > best


def test_a_pose_is_undone(layouts):
    truth, _ = layouts
    for reflect in (False, True):
        assert align(truth, rotated(truth, reflect=reflect)) == pytest.approx(truth, rel=1e-9)
    mirrored = rotated(truth, reflect=True)
    assert align(truth, mirrored * 0.2, scale=True) == pytest.approx(truth, rel=1e-9)
    kept = align(truth, mirrored, reflect=False)
    assert np.linalg.norm(kept - truth) > 0.05 * np.linalg.norm(truth - truth.mean(axis=0))
    turn = np.linalg.lstsq(mirrored - mirrored.mean(axis=0), kept - kept.mean(axis=0))[0]
    assert np.linalg.det(turn) == pytest.approx(1)


def test_the_size_is_kept_unless_it_is_to_be_fitted(layouts):
    truth, prediction = layouts
    spread = [values.var(axis=0).sum() for values in (prediction, align(truth, prediction))]
    assert spread[1] == pytest.approx(spread[0])
    assert align(truth, prediction, scale=True).var(axis=0).sum() != pytest.approx(spread[0], rel=1e-2)


def test_reference_points_of_the_normalised_distance():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 2))
    assert normalized_rmsd(truth, rng.permutation(truth)) == pytest.approx(2**0.5, abs=0.03)
    assert normalized_rmsd(truth, 1e-6 * truth) == pytest.approx(1, abs=1e-5)
    assert normalized_rmsd(truth, rotated(truth)) == pytest.approx(0, abs=1e-9)


def test_errors_name_the_argument():
    points = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(ValueError, match="`positions` has shape .9, 2., `reference` has .10, 2."):
        align(points, points[1:])
    with pytest.raises(ValueError, match="`reference` needs at least 3 cells.*found 2"):
        align(points[:2], points[:2])
    with pytest.raises(ValueError, match="`truth`: .*all 10 spots"):
        rmsd(np.ones((10, 2)), points)
