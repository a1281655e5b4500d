from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import special_ortho_group

from stomics_tools.metrics import morans_i_error


@pytest.fixture
def slice_of_genes():
    rng = np.random.default_rng(0)
    xy = rng.uniform(size=(700, 2)) * 1000  # more than one block
    truth = np.column_stack([np.sin(xy[:, 0] / 100), xy[:, 1] / 500, np.zeros(700)]) + rng.normal(size=(700, 3))
    return truth, 0.5 * truth + rng.normal(size=(700, 3)), xy


def dense_morans_i(values, xy, k):
    distance = cdist(xy, xy)
    np.fill_diagonal(distance, np.inf)
    adjacency = np.zeros_like(distance)
    np.put_along_axis(adjacency, np.argsort(distance, axis=1)[:, :k], 1.0, axis=1)
    z = values - values.mean()
    return len(z) / adjacency.sum() * (z @ adjacency @ z) / (z @ z)


@pytest.mark.parametrize("k", [1, 6, 30])
def test_equals_the_dense_formula(slice_of_genes, k):
    truth, prediction, xy = slice_of_genes
    errors = [
        abs(dense_morans_i(t, xy, k) - dense_morans_i(p, xy, k)) for t, p in zip(truth.T, prediction.T, strict=True)
    ]
    assert np.mean(errors) > 0.01
    assert morans_i_error(truth, prediction, xy, n_neighbors=k) == pytest.approx(np.mean(errors), abs=1e-9)


def test_perfect_and_permuted(slice_of_genes):
    truth, _, xy = slice_of_genes
    rng = np.random.default_rng(1)
    assert morans_i_error(truth, 3 * truth + 1, xy) == pytest.approx(0, abs=1e-9)
    permuted = [morans_i_error(truth[:, :2], rng.permutation(truth[:, :2]), xy) for _ in range(10)]
    size = np.mean([dense_morans_i(gene, xy, 6) for gene in truth[:, :2].T])
    assert np.mean(permuted) == pytest.approx(size, abs=0.02)


def test_the_pose_of_a_grid_does_not_count():
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(np.arange(15.0), np.arange(15.0)), axis=-1).reshape(-1, 2)
    truth, prediction = rng.normal(size=(2, 225, 4)) + [[[1.0]], [[0.5]]] * xy[:, :1]
    expected = morans_i_error(truth, prediction, xy)
    for seed in range(3):
        posed = xy @ special_ortho_group.rvs(2, random_state=seed) * 40 + 1e4
        assert morans_i_error(truth, prediction, posed) == pytest.approx(expected, rel=1e-9)


def test_constant_genes_are_left_out(slice_of_genes):
    truth, prediction, xy = slice_of_genes
    expected = morans_i_error(truth[:, :1], prediction[:, :1], xy)
    truth, prediction = truth.copy(), prediction.copy()
    truth[:, 1], prediction[:, 2] = 0.1, 0.3
    assert morans_i_error(truth, prediction, xy) == pytest.approx(expected, rel=1e-12)
    assert np.isnan(morans_i_error(truth[:, 1:], prediction[:, 1:], xy))


def test_values_not_measured_count_in_neither(slice_of_genes):
    truth, prediction, xy = slice_of_genes
    truth = truth.copy()
    truth[::3, 0] = np.nan
    expected = morans_i_error(truth, prediction, xy)
    prediction = prediction.copy()
    prediction[::3, 0] = 1e6
    assert morans_i_error(truth, prediction, xy) == pytest.approx(expected, rel=1e-12)
    prediction[::3, 0] = 0.0
    gene = morans_i_error(truth[:, :1], prediction[:, :1], xy)
    near = np.argsort(cdist(xy, xy), axis=1)[:, 1:7]
    moran = []
    for values in (truth[:, 0], np.where(np.isnan(truth[:, 0]), np.nan, prediction[:, 0])):
        z = values - np.nanmean(values)
        moran.append(np.nanmean(z[:, None] * z[near]) / np.nanmean(z**2))  # the pairs of which both were measured
    assert gene == pytest.approx(abs(moran[0] - moran[1]), abs=1e-9)


def test_bad_input_is_named(slice_of_genes):
    truth, prediction, xy = slice_of_genes
    with pytest.raises(ValueError, match="`coordinates` has 699 rows, `truth` has 700"):
        morans_i_error(truth, prediction, xy[1:])
    with pytest.raises(ValueError, match="`prediction` has shape"):
        morans_i_error(truth, prediction[:, 1:], xy)
    with pytest.raises(ValueError, match="`coordinates`.*same coordinates"):
        morans_i_error(truth, prediction, np.ones_like(xy))
    with pytest.raises(ValueError, match="`n_neighbors=700` must be at most 699"):
        morans_i_error(truth, prediction, xy, n_neighbors=700)
