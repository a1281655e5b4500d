from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse
from scipy.linalg import eigh

from stomics_tools import _spot_sums
from stomics_tools._spatial_components import fit_spatial_components, nugget
from stomics_tools.data import ring_distances, rings, spatial_knn


def tissue(n=400, n_features=(6,), seed=0, n_slices=1, lacking=0.0):
    """Smooth signal and noise in one or several modalities: values, present, rings, distances, slices."""
    rng = np.random.default_rng(seed)
    xy = rng.uniform(size=(n, 2)) * 20
    batch = np.repeat(np.arange(n_slices), -(-n // n_slices))[:n]
    waves = np.stack([np.sin(xy[:, 0] / 3), np.cos(xy[:, 1] / 4), np.sin(xy.sum(axis=1) / 5), np.cos(xy[:, 0])], axis=1)
    values, present = [], []
    for width in n_features:
        x = waves @ rng.normal(size=(4, width)) + rng.normal(size=(n, width)) * rng.uniform(0.3, 2, width)
        values.append((5 + 3 * x + 2 * batch[:, None]).astype(np.float32))
        present.append(rng.uniform(size=n) >= lacking)
    graph = spatial_knn(xy, 6, batch)
    found = rings(graph, 3)
    return values, present, found, ring_distances(found, xy, batch), batch, xy


def standardized(values, present, batch, fit):
    """As the fit is said to do, slice by slice, with zeros where a modality is missing."""
    result = []
    for x, there, center, scale in zip(values, present, fit.centers, fit.scales, strict=True):
        x = x.astype(float)
        if fit.center_slices:
            center = np.stack([x[(batch == code) & there].mean(axis=0) for code in range(batch.max() + 1)])[batch]
        result.append(np.where(there[:, None], (x - center) / scale, 0))
    return result


def dense_means(ring, x, there):
    weights = ring.toarray() * there
    return weights @ x / np.maximum(weights.sum(axis=1), 1)[:, None]


def weights_of(predictors, y):
    """Least squares by numpy, with the ridge as further rows."""
    ridge = np.sqrt(1e-4 * (predictors**2).mean() * len(y)) * np.eye(predictors.shape[1])
    return np.linalg.lstsq(np.vstack([predictors, ridge]), np.r_[y, np.zeros(len(ridge))], rcond=None)[0]


def up_to_sign(x, y, **tolerance):
    np.testing.assert_allclose(x * np.sign((x * y).sum(axis=0)), y, **tolerance)


@pytest.mark.parametrize("n_features", [(6,), (5, 7)])
@pytest.mark.parametrize("n_slices", [1, 3])
def test_every_step_equals_its_dense_reference(n_features, n_slices):
    values, present, found, distances, batch, _ = tissue(n_features=n_features, n_slices=n_slices)
    fit = fit_spatial_components(values, present, found, distances, batch, signal_threshold=0.2)
    assert fit.center_slices == (n_slices > 1)

    x = np.hstack(standardized(values, present, batch, fit))
    assert np.square(x[:, : n_features[0]]).mean() == pytest.approx(1, rel=1e-5)
    spread = x.T @ x / len(x)
    common = x.T @ dense_means(found[0], x, True) / len(x)
    eigenvalues, vectors = eigh((common + common.T) / 2, spread)
    n_kept = int((eigenvalues > 0.2).sum())
    assert fit.n_components == n_kept >= 3
    np.testing.assert_allclose(fit.eigenvalues, eigenvalues[::-1][:n_kept], atol=1e-5)
    encoder = np.vstack(fit.encoders)
    up_to_sign(encoder, vectors[:, ::-1][:, :n_kept], rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(np.hstack(fit.decoders) @ encoder, np.eye(n_kept), atol=1e-4)

    own = np.split(x * 1.0, np.cumsum(n_features)[:-1], axis=1)
    own = [part @ block for part, block in zip(own, fit.encoders, strict=True)]
    y = np.sum(own, axis=0)
    means = np.stack([dense_means(ring, part, True) for part in own for ring in found])
    moran = (y * dense_means(found[0], y, True)).sum(axis=0) / np.square(y).sum(axis=0)
    np.testing.assert_allclose(fit.eigenvalues, moran, atol=1e-4)
    latent = fit.transform(values, present, found, batch)
    for k in range(n_kept):
        weights = weights_of(means[:, :, k].T, y[:, k])
        np.testing.assert_allclose(fit.hop_weights[:, :, k].ravel(), weights, atol=1e-3)
        predicted = weights @ means[:, :, k]
        shared = [(y[:, k] * rings_of.sum(axis=0)).mean() for rings_of in _by_ring(means[:, :, k], len(found))]
        noise = nugget(np.array([1.0]), np.array(shared)[:, None], distances)[0]
        gain = np.clip(1 - noise / np.square(y[:, k] - predicted).mean(), 0, 1) ** 2
        assert fit.self_weights[k] == pytest.approx(gain, abs=2e-3)
        np.testing.assert_allclose(latent[:, k], predicted + gain * (y[:, k] - predicted), atol=2e-2)
    assert latent.dtype == np.float32


def _by_ring(means, n_rings):
    return [means[step::n_rings] for step in range(n_rings)]


def test_a_prediction_does_not_see_its_own_spot():
    values, present, found, distances, batch, _ = tissue(n_features=(5, 4))
    fit = fit_spatial_components(values, present, found, distances, batch)
    before, _ = fit.predict(fit.own_values(values, present, batch), present, found)
    changed = [x.copy() for x in values]
    for x in changed:
        x[17] += 100
    after, _ = fit.predict(fit.own_values(changed, present, batch), present, found)
    np.testing.assert_array_equal(before[17], after[17])
    assert not np.allclose(before[found[0][17].indices], after[found[0][17].indices])


def test_neighbors_without_a_modality_are_left_out():
    values, present, found, distances, batch, _ = tissue(n_features=(5, 4), lacking=0.3)
    values = [np.where(there[:, None], x, np.nan) for x, there in zip(values, present, strict=True)]
    fit = fit_spatial_components(values, present, found, distances, batch)
    own = [x @ b for x, b in zip(standardized(values, present, batch, fit), fit.encoders, strict=True)]
    means = np.stack([dense_means(ring, x, there) for x, there in zip(own, present, strict=True) for ring in found])
    predicted = np.einsum("pnd,pd->nd", means, fit.hop_weights.reshape(6, -1))
    shares = [d.astype(float) @ e for d, e in zip(fit.decoders, fit.encoders, strict=True)]
    filled = sum(
        np.where(there[:, None], y, predicted @ share) for y, there, share in zip(own, present, shares, strict=True)
    )
    expected = predicted + fit.self_weights * (filled - predicted)
    seen = np.all([(ring @ there.astype(float)) > 0 for there in present for ring in found], axis=0)
    assert seen.mean() > 0.9
    latent = fit.transform(values, present, found, batch)
    np.testing.assert_allclose(latent[seen], expected[seen], atol=1e-3)
    assert np.isfinite(latent).all()


def test_what_is_learned_comes_from_complete_spots():
    values, present, found, distances, batch, _ = tissue(n=600, n_features=(5, 4), lacking=0.2)
    fit = fit_spatial_components(values, present, found, distances, batch)
    assert fit.variance == pytest.approx(np.ones(fit.n_components), abs=1e-3)
    shared = tissue(n=600, n_features=(5, 4))
    whole = fit_spatial_components(*shared[:5])
    np.testing.assert_allclose(fit.eigenvalues[:3], whole.eigenvalues[:3], atol=0.05)


@pytest.mark.parametrize("lacks", [0, 1])
def test_a_slice_without_a_modality_is_predicted_by_the_regression_on_the_other(lacks):
    values, present, found, distances, batch, _ = tissue(n_features=(5, 4))
    fit = fit_spatial_components(values, present, found, distances, batch)
    own = [x @ b for x, b in zip(standardized(values, present, batch, fit), fit.encoders, strict=True)]
    y, there = np.sum(own, axis=0), 1 - lacks
    means = np.stack([dense_means(ring, own[there], True) for ring in found])
    present = [np.full(len(batch), m == there) for m in range(2)]
    predicted, _ = fit.predict([x * t[:, None] for x, t in zip(own, present, strict=True)], present, found)
    for k in range(fit.n_components):
        weights = weights_of(means[:, :, k].T, y[:, k])
        np.testing.assert_allclose(predicted[:, k], weights @ means[:, :, k], atol=2e-3)


def test_a_spot_without_neighbors_keeps_what_is_no_noise():
    values, present, found, distances, batch, _ = tissue()
    fit = fit_spatial_components(values, present, found, distances, batch)
    empty = [sparse.csr_matrix((1, 1), dtype=np.float32)] * 3
    alone = fit.transform([x[:1] for x in values], [np.ones(1, bool)], empty, np.zeros(1, int))
    own = fit.own_values([x[:1] for x in values], [np.ones(1, bool)], np.zeros(1, int))[0]
    np.testing.assert_allclose(alone, own * (1 - fit.noise / fit.variance) ** 2, rtol=1e-4)


@pytest.mark.parametrize("n_slices", [1, 2])
def test_a_slice_alone_has_its_rows_in_company(n_slices):
    values, present, found, distances, batch, xy = tissue(n_slices=n_slices, n_features=(5, 4), lacking=0.2)
    fit = fit_spatial_components(values, present, found, distances, batch)
    new, other = tissue(seed=1, n_features=(5, 4)), tissue(seed=2, n_features=(5, 4), lacking=0.1)
    alone = fit.transform(new[0], new[1], new[2], new[4])
    joined = fit.transform(
        [np.vstack(pair) for pair in zip(other[0], new[0], strict=True)],
        [np.r_[a, b] for a, b in zip(other[1], new[1], strict=True)],
        [sparse.block_diag(pair, format="csr") for pair in zip(other[2], new[2], strict=True)],
        np.r_[other[4], new[4] + 1],
    )
    np.testing.assert_allclose(joined[len(alone) :], alone, atol=1e-5)


def test_order_of_spots_does_not_matter(monkeypatch):
    values, present, found, distances, batch, _ = tissue(n_features=(5, 4), n_slices=2, lacking=0.1)
    fit = fit_spatial_components(values, present, found, distances, batch)
    order = np.random.default_rng(0).permutation(len(batch))
    monkeypatch.setattr(_spot_sums, "_ROWS", 37)
    shuffled = (
        [x[order] for x in values],
        [x[order] for x in present],
        [sparse.csr_matrix(ring[order][:, order]) for ring in found],
    )
    again = fit_spatial_components(*shuffled, distances, batch[order])
    expected = fit.transform(values, present, found, batch)[order]
    up_to_sign(again.transform(*shuffled, batch[order]), expected, atol=2e-3)


def test_many_features_are_reduced_to_their_leading_components(monkeypatch):
    values, present, found, distances, batch, _ = tissue(n=300, n_features=(40,))
    monkeypatch.setattr(_spot_sums, "_MAX_FEATURES", 20)
    monkeypatch.setattr(_spot_sums, "_N_REDUCED", 8)
    fit = fit_spatial_components(values, present, found, distances, batch)
    x = values[0] - values[0].mean(axis=0)
    scores = np.linalg.svd(x, full_matrices=False)[2][:8] @ x.T
    monkeypatch.undo()
    few = fit_spatial_components([scores.T.astype(np.float32)], present, found, distances, batch)
    np.testing.assert_allclose(fit.eigenvalues, few.eigenvalues, atol=1e-4)
    monkeypatch.setattr(_spot_sums, "_MAX_FEATURES", 20)
    monkeypatch.setattr(_spot_sums, "_N_REDUCED", 8)
    monkeypatch.setattr(_spot_sums, "_MAX_SQUARE", 30)
    randomized = fit_spatial_components(values, present, found, distances, batch)
    np.testing.assert_allclose(randomized.eigenvalues[:4], fit.eigenvalues[:4], atol=0.02)


def test_decoded_components_are_the_regression_of_features_on_them():
    values, present, found, distances, batch, _ = tissue()
    fit = fit_spatial_components(values, present, found, distances, batch, signal_threshold=0.3)
    y = fit.own_values(values, present, batch)[0].astype(float)
    x = values[0] - values[0].mean(axis=0)
    np.testing.assert_allclose(fit.decode(y, 0), y @ np.linalg.lstsq(y, x, rcond=None)[0], atol=1e-3)


@pytest.mark.parametrize(("length", "noise"), [(4.0, 0.5), (4.0, 2.0), (2.0, 1.0)])
def test_prediction_and_update_come_near_the_optimum_of_a_gaussian_field(length, noise):
    """Exponential covariance. The optimum knows it, and takes all spots: the others for the prediction, and all for the
    posterior mean, which the deviation by the root of the self weight (the weight of a Kalman filter) comes near."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(np.arange(32.0), np.arange(32.0)), axis=-1).reshape(-1, 2)
    kernel = np.exp(-np.linalg.norm(xy[:, None] - xy[None], axis=2) / length)
    signal = np.linalg.cholesky(kernel + 1e-9 * np.eye(len(xy))) @ rng.normal(size=(len(xy), 4))
    x = (signal + np.sqrt(noise) * rng.normal(size=signal.shape)).astype(np.float32)
    precision = np.linalg.inv(kernel + noise * np.eye(len(xy)))
    left_out = x - precision @ x / np.diag(precision)[:, None]
    posterior = kernel @ precision @ x

    batch, present = np.zeros(len(xy), dtype=int), [np.ones(len(xy), bool)]
    found = rings(spatial_knn(xy, 6), 3)
    fit = fit_spatial_components([x], present, found, ring_distances(found, xy, batch), batch, signal_threshold=0)
    (own,) = fit.own_values([x], present, batch)
    predicted, _ = fit.predict([own], present, found)

    def error(latent):
        return np.square(fit.decode(latent, 0) + x.mean(axis=0) - signal).mean()

    assert error(predicted) < 1.1 * np.square(left_out - signal).mean()
    updated = error(predicted + np.sqrt(fit.self_weights) * (own - predicted))
    assert updated < 1.15 * np.square(posterior - signal).mean()
    assert updated < error(fit.transform([x], present, found, batch)) < error(predicted)
    assert np.sqrt(fit.self_weights).mean() == pytest.approx(np.diag(kernel @ precision).mean(), abs=0.12)


def test_nugget_of_a_linear_covariance_is_exact():
    distances = np.array([1.0, 1.8, 2.7])
    covariances = 3 - 0.5 * distances[:, None] * np.array([1.0, 0.0])
    np.testing.assert_allclose(nugget(np.array([3.7, 3.0]), covariances, distances), [0.7, 0.0])
    np.testing.assert_allclose(nugget(np.array([3.7, 2.0]), covariances[:1], distances), [1.2, 0.0])


def test_distances_of_rings_are_in_the_unit_of_each_slice():
    xy = np.stack(np.meshgrid(np.arange(20.0), [0.0]), axis=-1).reshape(-1, 2)
    batch = np.repeat([0, 1], 20)
    both = np.vstack([xy, 5 * xy])
    found = rings(spatial_knn(both, 2, batch), 3)
    steps = np.abs(np.arange(20)[:, None] - np.arange(20))  # the ends have two neighbors on one side
    unit, second, third = (steps[ring[:20, :20].toarray() > 0].mean() for ring in found)
    assert ring_distances(found, both, batch) == pytest.approx([1, second / unit, third / unit])
    assert ring_distances(found, np.zeros_like(both), batch) == [1.0, 2.0, 3.0]
