from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.manifold import trustworthiness as sklearn_trustworthiness

from stomics_tools.metrics import continuity, neighbor_overlap, neighborhood_composition, trustworthiness
from stomics_tools.metrics._neighbors import Neighbors


@pytest.fixture(params=[2, 3])
def layouts(request):
    rng = np.random.default_rng(request.param)
    truth, noise = rng.normal(size=(2, 600, request.param))  # more than one block
    return truth, truth + 0.5 * noise


def dense_neighbors(points, k):
    distance = cdist(points, points)
    np.fill_diagonal(distance, np.inf)
    return np.argsort(distance, axis=1)[:, :k]


@pytest.mark.parametrize("k", [1, 5, 40, 299])
def test_trustworthiness_and_continuity_equal_sklearn(layouts, k):
    truth, prediction = layouts
    assert trustworthiness(truth, prediction, n_neighbors=k) == pytest.approx(
        sklearn_trustworthiness(truth, prediction, n_neighbors=k), abs=1e-9
    )
    assert continuity(truth, prediction, n_neighbors=k) == pytest.approx(
        sklearn_trustworthiness(prediction, truth, n_neighbors=k), abs=1e-9
    )


def test_some_cells_are_judged_where_there_are_many(layouts):
    truth, prediction = layouts
    exact = trustworthiness(truth, prediction, n_neighbors=10)
    drawn = [trustworthiness(truth, prediction, n_neighbors=10, max_obs=150, seed=s) for s in range(20)]
    assert abs(np.mean(drawn) - exact) < 4 * np.std(drawn) / 20**0.5
    assert 0 < np.std(drawn) < 0.02
    assert trustworthiness(truth, prediction, n_neighbors=10, max_obs=150, seed=3) == drawn[3]
    assert trustworthiness(truth, prediction, n_neighbors=10, max_obs=600, seed=3) == exact


@pytest.mark.parametrize("k", [1, 10, 100, 598])
def test_overlap_equals_sets_of_neighbours(layouts, k):
    truth, prediction = layouts
    near = dense_neighbors(truth, k), dense_neighbors(prediction, k)
    observed = np.mean([len(set(a) & set(b)) / k for a, b in zip(*near, strict=True)])
    expected = (observed - k / 599) / (1 - k / 599)
    assert neighbor_overlap(truth, prediction, n_neighbors=k) == pytest.approx(expected, abs=1e-9)


def test_composition_equals_a_loop(layouts):
    truth, prediction = layouts
    labels = np.random.default_rng(0).choice(["a", "b", "c"], 600, p=[0.6, 0.3, 0.1])
    one_hot = labels[:, None] == np.unique(labels)
    cosines = []
    for a, b in zip(dense_neighbors(truth, 12), dense_neighbors(prediction, 12), strict=True):
        p, q = one_hot[a].mean(axis=0), one_hot[b].mean(axis=0)
        cosines.append(p @ q / np.linalg.norm(p) / np.linalg.norm(q))
    found = neighborhood_composition(truth, prediction, labels, n_neighbors=12)
    assert found == pytest.approx(np.mean(cosines), abs=1e-9)


def test_composition_is_best_for_the_truth_and_at_chance_for_permuted_cells():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(800, 2))
    labels = (truth[:, 0] > 0).astype(int) + (truth[:, 1] > 1)
    assert neighborhood_composition(truth, truth @ [[0, 1], [1, 0]], labels, n_neighbors=50) == pytest.approx(1)
    overall = np.bincount(labels) / 800
    local = np.stack([np.bincount(labels[row], minlength=3) / 50 for row in dense_neighbors(truth, 50)])
    chance = (local @ overall / np.linalg.norm(local, axis=1) / np.linalg.norm(overall)).mean()
    permuted = [
        neighborhood_composition(truth, rng.permutation(truth), labels, n_neighbors=50) for _ in range(5)
    ]  # somewhat below: so few neighbours are not the overall frequencies
    assert np.mean(permuted) == pytest.approx(chance, abs=0.03)


def test_weights_of_a_grid_share_the_places_left():
    points = np.stack(np.meshgrid(np.arange(5.0), np.arange(5.0)), axis=-1).reshape(-1, 2) - 2
    weights = Neighbors(points, 6).weights(np.arange(25)).toarray()
    assert weights.sum(axis=1) == pytest.approx(6)
    distance = cdist(points, points)[12]
    assert weights[12][distance == 1] == pytest.approx(1)  # 4 of them, 2 places are left for 4 at the corners
    assert weights[12][np.isclose(distance, 2**0.5)] == pytest.approx(0.5)
    assert (weights[12][distance > 1.5] == 0).all()
    assert (np.diag(weights) == 0).all()


def test_weights_of_cells_on_one_point():
    """Whatever the order of the cells, those of one point are neighbours alike."""
    points = np.repeat([[-1.0, 0.0], [1.0, 0.0]], [5, 3], axis=0)
    weights = Neighbors(points, 2).weights(np.arange(8)).toarray()
    expected = np.zeros((8, 8))
    expected[:5, :5], expected[5:, 5:] = 2 / 4, 2 / 2
    np.fill_diagonal(expected, 0)
    assert weights == pytest.approx(expected)


def test_cells_on_few_points_tell_no_more_than_their_points():
    """Points drawn without regard to the truth are at chance, although their cells are near to many others."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(1000, 2))
    drawn = [rng.normal(size=(8, 2))[rng.integers(8, size=1000)] for _ in range(8)]
    for score, chance in [(neighbor_overlap, 0.0), (trustworthiness, 0.5), (continuity, 0.5)]:
        assert np.mean([score(truth, p, n_neighbors=20) for p in drawn]) == pytest.approx(chance, abs=0.02)
    swapped = [score(truth, drawn[0], n_neighbors=20) for score in (trustworthiness, continuity)]
    assert swapped == [score(drawn[0], truth, n_neighbors=20) for score in (continuity, trustworthiness)]


@pytest.mark.parametrize(
    ("score", "largest"),
    [(neighbor_overlap, 28), (trustworthiness, 14), (continuity, 14)],
)
def test_too_many_neighbours(score, largest):
    truth, prediction = np.random.default_rng(0).normal(size=(2, 30, 2))
    assert -1 <= score(truth, prediction, n_neighbors=largest) <= 1
    with pytest.raises(ValueError, match=f"`n_neighbors={largest + 1}` must be at most {largest} with 30 cells"):
        score(truth, prediction, n_neighbors=largest + 1)
    with pytest.raises(ValueError, match="`n_neighbors` must be at least 1"):
        score(truth, prediction, n_neighbors=0)


def test_labels_must_fit():
    truth, prediction = np.random.default_rng(0).normal(size=(2, 30, 2))
    labels = ["a"] * 29 + [None]
    with pytest.raises(ValueError, match="`labels` has missing values"):
        neighborhood_composition(truth, prediction, labels, n_neighbors=5)
    with pytest.raises(ValueError, match="`labels` has shape .29"):
        neighborhood_composition(truth, prediction, labels[:29], n_neighbors=5)
    assert neighborhood_composition(truth, prediction, ["a"] * 30, n_neighbors=29) == pytest.approx(1)
