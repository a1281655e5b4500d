from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr, special_ortho_group, wasserstein_distance

from stomics_tools import metrics

LAYOUT_SCORES = {
    "rmsd": 0.0,
    "normalized_rmsd": 0.0,
    "distance_spearman": 1.0,
    "neighbor_overlap": 1.0,
    "trustworthiness": 1.0,
    "continuity": 1.0,
    "gyration_ratio": 1.0,
    "sliced_wasserstein": 0.0,
}
"""Each score of two layouts, with its value for a perfect prediction."""
NEAR = {"neighbor_overlap", "trustworthiness", "continuity"}
SCALE_FREE = NEAR | {"distance_spearman"}


def score(name, truth, prediction, n_neighbors=10, **options):
    return getattr(metrics, name)(
        truth, prediction, **({"n_neighbors": n_neighbors} if name in NEAR else {}), **options
    )


def grid(n_dimensions):
    side = 14 if n_dimensions == 2 else 6
    return np.stack(np.meshgrid(*[np.arange(float(side))] * n_dimensions), axis=-1).reshape(-1, n_dimensions) * 100


def on_few_points(n_dimensions):
    rng = np.random.default_rng(2)
    return rng.normal(size=(6, n_dimensions))[rng.integers(6, size=150)] * 100


KINDS = {
    "scattered": lambda d: np.random.default_rng(0).normal(size=(150, d)) * 200,
    "grid": grid,
    "few points": on_few_points,
}


def poses(points, *, scale=False):
    """The same layout rotated, reflected, moved (and scaled)."""
    for seed in range(4):
        turn = special_ortho_group.rvs(points.shape[1], random_state=seed)
        turn[0] *= (-1) ** seed
        yield (10.0 ** (seed - 2) if scale else 1.0) * (points @ turn) + 10.0**seed


@pytest.mark.parametrize("n_dimensions", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYOUT_SCORES)
def test_the_pose_of_the_prediction_does_not_count(name, kind, n_dimensions):
    prediction = KINDS[kind](n_dimensions)
    truth = prediction + np.random.default_rng(1).normal(size=prediction.shape) * 90
    expected = score(name, truth, prediction)
    for posed in poses(prediction, scale=name in SCALE_FREE):
        assert score(name, truth, posed) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    if name != "sliced_wasserstein":  # its directions are those of the truth
        for posed in poses(truth, scale=name in SCALE_FREE):
            assert score(name, posed, prediction) == pytest.approx(expected, rel=1e-9, abs=1e-12)
    if name not in SCALE_FREE:
        assert score(name, truth, 0.3 * prediction) != pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("n_dimensions", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", LAYOUT_SCORES)
def test_a_perfect_prediction_is_perfect_in_any_pose(name, kind, n_dimensions):
    truth = KINDS[kind](n_dimensions)
    for posed in poses(truth, scale=name in SCALE_FREE):
        assert score(name, truth, posed) == pytest.approx(LAYOUT_SCORES[name], abs=1e-9)
        assert type(score(name, truth, posed)) is float


@pytest.mark.parametrize("name", sorted(set(LAYOUT_SCORES) - {"gyration_ratio", "sliced_wasserstein"}))
def test_more_noise_is_worse(name):
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 300, 2))
    scores = [score(name, truth, truth + sd * noise) for sd in (0.0, 0.05, 0.3, 1.0)]
    sign = np.sign(scores[0] - scores[-1])
    assert (np.diff(scores) * sign < 0).all()


def test_permuted_cells_are_at_chance():
    """Means over permutations, within four of their standard errors."""
    rng = np.random.default_rng(0)
    n, k = 300, 20
    truth = rng.normal(size=(n, 2))
    drawn = [metrics.score_positions(truth, rng.permutation(truth), n_neighbors=k) for _ in range(30)]
    # Of the n - 1 others in a random order, those at rank r > k are r - k out of place.
    trust = 1 - 2 * n * k * (n - 1 - k) * (n - k) / (2 * (n - 1)) / (n * k * (2 * n - 3 * k - 1))
    chance = {"distance_spearman": 0.0, "neighbor_overlap": 0.0, "trustworthiness": trust, "continuity": trust}
    for name, expected in chance.items():
        values = np.array([scores[name] for scores in drawn])
        assert abs(values.mean() - expected) < 4 * values.std() / 30**0.5, name
        assert values.std() < 0.05
    assert all(scores["gyration_ratio"] == pytest.approx(1) for scores in drawn)


def test_distance_spearman_equals_scipy():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 200, 2))
    prediction = truth + noise
    exact = spearmanr(pdist(truth), pdist(prediction))[0]
    assert metrics.distance_spearman(truth, prediction) == pytest.approx(exact, abs=1e-9)
    assert metrics.distance_spearman(truth, prediction, n_pairs=19_900) == pytest.approx(exact, abs=1e-9)
    ties = on_few_points(2)
    assert metrics.distance_spearman(truth[:150], ties) == pytest.approx(
        spearmanr(pdist(truth[:150]), np.round(pdist(ties), 6))[0], abs=1e-9
    )


def test_sampled_pairs_are_unbiased():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 400, 2))
    prediction = truth + noise
    exact = metrics.distance_spearman(truth, prediction)
    drawn = [metrics.distance_spearman(truth, prediction, n_pairs=10_000, seed=s) for s in range(20)]
    assert abs(np.mean(drawn) - exact) < 4 * np.std(drawn) / 20**0.5
    assert 0 < np.std(drawn) < 0.02
    assert metrics.distance_spearman(truth, prediction, n_pairs=10_000, seed=3) == drawn[3]


def test_no_cell_is_paired_with_itself():
    """A distance of 0 in both would be agreement: a large share of the pairs where cells are few."""
    truth, prediction = np.random.default_rng(0).normal(size=(2, 12, 2))
    exact = spearmanr(pdist(truth), pdist(prediction))[0]
    drawn = [metrics.distance_spearman(truth, prediction, n_pairs=65, seed=s) for s in range(300)]
    assert abs(np.mean(drawn) - exact) < 4 * np.std(drawn) / 300**0.5


def test_all_distances_equal_have_no_order():
    triangle = [[0, 0], [2, 0], [1, 3**0.5]]
    assert np.isnan(metrics.distance_spearman(triangle, [[0, 0], [1, 0], [5, 5]]))


def test_gyration_ratio():
    points = np.random.default_rng(0).normal(size=(50, 3)) + 7
    assert metrics.gyration_ratio(points, 0.4 * points) == pytest.approx(0.4)
    assert metrics.gyration_ratio(points, points[::-1]) == pytest.approx(1)


def test_sliced_wasserstein_of_aligned_layouts():
    """Prediction and truth on the same axes: nothing turns, and every projection has the distance that scipy gives."""
    x, y = grid(2), grid(2) * [0.7, 0.4]
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    angles = np.linspace(0, np.pi, 2000, endpoint=False)
    apart = [wasserstein_distance(x @ u, y @ u) for u in np.column_stack([np.cos(angles), np.sin(angles)])]
    expected = np.mean(apart) / np.sqrt((x**2).sum(axis=1).mean())
    assert metrics.sliced_wasserstein(x, y) == pytest.approx(expected, rel=1e-3)
    assert metrics.sliced_wasserstein(5 * x, 5 * y) == pytest.approx(metrics.sliced_wasserstein(x, y), rel=1e-9)


@pytest.mark.parametrize(("n_dimensions", "mean_cosine"), [(2, 2 / np.pi), (3, 0.5)])
def test_directions_are_evenly_spread(n_dimensions, mean_cosine):
    """Of two points on a line, the projections are as far apart as the mean of |cos| over all directions says."""
    line = np.zeros((4, n_dimensions))
    for axis in range(n_dimensions):
        line[:, axis] = [-1, -1, 1, 1]
        value = metrics.sliced_wasserstein(line, 0.5 * line, n_projections=400)
        assert value == pytest.approx(0.5 * mean_cosine, rel=0.01)
        line[:, axis] = 0


def test_sliced_wasserstein_does_not_see_exchanged_cells():
    """Where the alignment is that of the whole, as of cells exchanged near their places."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(400, 2))
    order = np.argsort(truth[:, 0]).reshape(-1, 2)
    exchanged = truth.copy()
    exchanged[order.ravel()] = truth[order[:, ::-1].ravel()]
    assert metrics.normalized_rmsd(truth, exchanged) > 0.5
    assert metrics.sliced_wasserstein(truth, exchanged) < 0.05


def test_score_positions_is_the_scores_by_their_names():
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 120, 2))
    prediction, labels = truth + 0.3 * noise, rng.choice(["a", "b"], 120)
    scores = metrics.score_positions(truth, prediction, labels=labels, unit_scale=0.5, n_neighbors=15)
    expected = {name: score(name, truth, prediction, n_neighbors=15) for name in LAYOUT_SCORES}
    expected["nrmsd"] = expected.pop("normalized_rmsd")
    expected["rmsd"] *= 0.5
    expected["neighborhood_composition"] = metrics.neighborhood_composition(truth, prediction, labels, n_neighbors=15)
    assert scores == expected
    assert set(metrics.score_positions(truth, prediction, n_neighbors=15)) == set(expected) - {
        "neighborhood_composition"
    }
    with pytest.raises(ValueError, match="`unit_scale`"):
        metrics.score_positions(truth, prediction, unit_scale=0.0, n_neighbors=15)
    with pytest.raises(ValueError, match="`n_neighbors=100` must be at most 59 with 120 cells"):
        metrics.score_positions(truth, prediction)


def bad(kind):
    points = np.random.default_rng(0).normal(size=(30, 2))
    if kind == "nan":
        points[3, 1] = np.nan
    elif kind == "infinite":
        points[3, 1] = np.inf
    elif kind == "same":
        points[:] = [3.0, 0.1]
    elif kind == "same up to rounding":
        points = 0.1 + 1e-15 * points
    elif kind == "one dimension":
        points = points[:, :1]
    elif kind == "three dimensions":
        points = np.column_stack([points, points[:, 0]])
    elif kind == "fewer":
        points = points[1:]
    return points


@pytest.mark.parametrize("argument", ["truth", "prediction"])
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nan", "`{}`.*1 rows with NaN or infinite"),
        ("infinite", "`{}`.*1 rows with NaN or infinite"),
        ("same", "`{}`: all 30 .*same coordinates"),
        ("same up to rounding", "`{}`: all 30 .*same coordinates up to rounding"),
        ("one dimension", "`{}`.*shape .n_obs, 2."),
        ("three dimensions", "`prediction` has shape .*`truth` has"),
        ("fewer", "`prediction` has shape .*`truth` has"),
    ],
)
@pytest.mark.parametrize("name", [*LAYOUT_SCORES, "score_positions"])
def test_degenerate_positions_are_named(name, kind, message, argument):
    pair = {"truth": bad("none"), "prediction": bad("none")} | {argument: bad(kind)}
    with pytest.raises(ValueError, match=message.format(argument)):
        score(name, *pair.values())


@pytest.mark.parametrize("name", LAYOUT_SCORES)
def test_two_cells_have_no_layout(name):
    with pytest.raises(ValueError, match="`truth` needs at least 3 cells.*found 2"):
        score(name, np.eye(2), np.eye(2))


def test_many_cells_without_a_matrix_of_pairs():
    """20,000 cells: an array of all pairs, even of bytes, would take 400 MB."""
    rng = np.random.default_rng(0)
    truth, noise = rng.normal(size=(2, 20_000, 2))
    pair = truth, truth + 0.1 * noise
    tracemalloc.start()
    scores = [metrics.normalized_rmsd(*pair), metrics.distance_spearman(*pair), metrics.sliced_wasserstein(*pair)]
    scores += [metrics.neighbor_overlap(*pair, n_neighbors=10)]
    scores += [f(*pair, n_neighbors=10, max_obs=2000) for f in (metrics.trustworthiness, metrics.continuity)]
    scores += [metrics.neighborhood_composition(*pair, rng.integers(3, size=20_000), n_neighbors=10)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 150e6
    assert scores[0] == pytest.approx(0.1, abs=0.005)
    assert all(0 < value < 1 for value in scores)
