"""Directions of spatial signal, weights of prediction and noise against dense algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import linalg

from stomics_tools.model.praga_spike._signal import find_signal, noise_variance, own_noise
from stomics_tools.model.praga_spike._tissue import read_tissue

SIDE = 20


def _field(xy, n_features, noise=1.0, seed=0, n_signals=3):
    """Slow waves in some directions and white noise in all."""
    rng = np.random.default_rng(seed)
    phase = rng.uniform(0, 6, n_signals)
    waves = np.stack([np.sin(xy @ rng.normal(0, 0.25, 2) + p) for p in phase], axis=1)
    return waves @ rng.normal(size=(n_signals, n_features)) + noise * rng.normal(size=(len(xy), n_features))


def _tissue(spots_of, values, xy, **kwargs):
    given = {"n_spatial_neighbors": 6, "n_feature_neighbors": 5, "n_hops": 3, "dtype": torch.float64}
    missing, batch = kwargs.pop("missing", None), kwargs.pop("batch", None)
    return read_tissue(spots_of(values, xy, missing=missing, batch=batch), **{**given, **kwargs})


def _means(graph, x):
    """Mean over the neighbours, densely."""
    dense = np.zeros(graph.shape)
    dense[graph.row.numpy(), graph.col.numpy()] = 1
    return dense @ x / np.maximum(dense.sum(1), 1)[:, None]


@pytest.fixture
def tissue(spots_of, grid):
    xy = grid(SIDE)
    return _tissue(spots_of, {"rna": _field(xy, 7), "protein": _field(xy, 4, seed=1)}, xy)


def _covariances(tissue, x):
    n = len(x)
    common = x.T @ _means(tissue.rings[0], x) / n
    return x.T @ x / n, (common + common.T) / 2


def test_directions_solve_the_generalized_eigenproblem(tissue):
    x = torch.cat(tissue.values, 1).numpy()
    spread, common = _covariances(tissue, x)
    lam, vectors = linalg.eigh(common, spread)
    lam, vectors = lam[::-1], vectors[:, ::-1]  # their b^T S b is 1
    signal = find_signal(tissue, 64, 0.1)
    d = (lam > 0.1).sum()
    assert 2 < d < 11
    ours = torch.cat(signal.encoders).numpy()
    assert ours.shape == (11, d)
    np.testing.assert_allclose(_covariances(tissue, x @ ours)[1], np.diag(lam[:d]), atol=1e-9)
    assert [len(w) for w in signal.encoders] == [4, 7]
    for a, b in zip(ours.T, vectors[:, :d].T, strict=True):
        np.testing.assert_allclose(a, b * np.sign(a @ b), atol=1e-7)
    y = x @ ours
    np.testing.assert_allclose(y.T @ y / len(y), np.eye(d), atol=1e-9)


def test_number_of_directions(tissue):
    assert find_signal(tissue, 2, 0.0).hops.shape[2] == 2
    assert find_signal(tissue, 64, 1.0).hops.shape[2] == 2  # two at least
    few, many = find_signal(tissue, 3, 0.0), find_signal(tissue, 5, 0.0)
    for a, b in zip(few.encoders, many.encoders, strict=True):
        torch.testing.assert_close(a, b[:, :3])


def test_decoders_invert_encoders(spots_of, grid):
    xy = grid(SIDE)
    smooth = _field(xy, 5, noise=0.02, n_signals=6)  # every direction has signal
    tissue = _tissue(spots_of, {"rna": smooth[:, :3], "protein": smooth[:, 3:]}, xy)
    whole = find_signal(tissue, 64, 0.0)
    assert whole.hops.shape[2] == 5
    x = torch.cat(tissue.values, 1)
    encoder, decoder = torch.cat(whole.encoders), torch.cat(whole.decoders, 1)
    torch.testing.assert_close(x @ encoder @ decoder, x)
    part = find_signal(tissue, 3, 0.0)
    encoder, decoder = torch.cat(part.encoders), torch.cat(part.decoders, 1)
    torch.testing.assert_close(decoder @ encoder, torch.eye(3, dtype=torch.float64))
    projected = x @ encoder @ decoder
    torch.testing.assert_close(projected @ encoder @ decoder, projected)


def test_directions_without_variance_are_left_out(spots_of, grid):
    xy = grid(SIDE)
    x = _field(xy, 3, noise=0.3)
    tissue = _tissue(spots_of, {"rna": np.column_stack([x, x[:, 0] - x[:, 1], np.ones(len(x))])}, xy)
    signal = find_signal(tissue, 64, 0.0)
    assert signal.hops.shape[2] <= 3
    assert all(torch.isfinite(t).all() for t in (*signal.encoders, *signal.decoders, signal.hops, signal.alike))


def test_weights_of_prediction_equal_least_squares(tissue):
    signal = find_signal(tissue, 64, 0.2)
    each = [(x @ w).numpy() for x, w in zip(tissue.values, signal.encoders, strict=True)]
    y = sum(each)
    near = [_means(ring, part) for part in each for ring in tissue.rings]
    far = [_means(graph, part) for graph, part in zip(tissue.alike, each, strict=True)]
    assert signal.hops.shape == (2, 3, y.shape[1])
    for k in range(y.shape[1]):
        for predictors, ours in ((near, signal.hops[..., k].reshape(-1)), (far, signal.alike[:, k])):
            a = np.stack([p[:, k] for p in predictors], axis=1)
            best, *_ = np.linalg.lstsq(a, y[:, k], rcond=None)
            least, error = (((a @ w - y[:, k]) ** 2).mean() for w in (best, ours.numpy()))
            assert least <= error + 1e-12
            assert error < least + 1e-4 * y[:, k].var()
            # The ridge of a ten thousandth is felt only where predictors are nearly the same.
            gram = a.T @ a / len(a)
            ridge = gram + 1e-4 * gram.trace() / len(gram) * np.eye(len(gram))
            np.testing.assert_allclose(ours, np.linalg.solve(ridge, a.T @ y[:, k] / len(a)), atol=1e-8)
            if np.linalg.cond(gram) < 20:
                np.testing.assert_allclose(ours, best, atol=5e-3)


def test_many_features_are_reduced_to_their_leading_components(spots_of, grid):
    xy = grid(SIDE)
    wide = _field(xy, 300, noise=0.5)
    tissue = _tissue(spots_of, {"rna": wide}, xy, n_feature_neighbors=0)
    signal = find_signal(tissue, 64, 0.3)
    x = tissue.values[0].numpy()
    *_, axes = np.linalg.svd(x, full_matrices=False)
    spread, common = _covariances(tissue, x @ axes[:100].T)
    lam, vectors = linalg.eigh(common, spread)
    d = max(2, (lam > 0.3).sum())
    assert signal.encoders[0].shape == (300, d)
    assert signal.decoders[0].shape == (d, 300)
    y, truth = x @ signal.encoders[0].numpy(), x @ axes[:100].T @ vectors[:, ::-1][:, :d]
    np.testing.assert_allclose(np.abs(y.T @ truth / len(y)), np.eye(d), atol=1e-6)
    np.testing.assert_allclose(_covariances(tissue, y)[1], np.diag(lam[::-1][:d]), atol=1e-6)
    torch.testing.assert_close(signal.decoders[0] @ signal.encoders[0], torch.eye(d, dtype=torch.float64))
    three = find_signal(tissue, 3, 0.3)
    denoised = x @ (three.encoders[0] @ three.decoders[0]).numpy()
    clean = _field(xy, 300, noise=0.0)
    clean = (clean[tissue.order] - wide.mean(0)) / tissue.moments[0][1].item()
    assert np.square(denoised - clean).mean() < 0.1 * np.square(x - clean).mean()


def _domains(xy, width, seed=0):
    """A number for each square of `width` spots."""
    rng = np.random.default_rng(seed)
    squares = (xy // width).astype(int)
    return rng.normal(size=squares.max(0) + 1)[squares[:, 0], squares[:, 1]]


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_noise_of_domains_and_white_noise(spots_of, grid, noise):
    xy = grid(60)
    rng = np.random.default_rng(7)
    field = np.stack([_domains(xy, 12, seed) for seed in range(6)], axis=1)
    field /= field.std(0)
    x = field + noise**0.5 * rng.normal(size=field.shape)
    tissue = _tissue(spots_of, {"rna": x}, xy, n_feature_neighbors=0)
    scale = tissue.moments[0][1].item()
    found = own_noise(tissue.values[0], tissue, tissue.present[0]).numpy() * scale**2
    true = (x - field).var(0)
    np.testing.assert_allclose(found.mean(), true.mean(), rtol=0.1)


def test_noise_alone_is_all_noise_and_none_is_none(spots_of, grid):
    xy = grid(40)
    rng = np.random.default_rng(0)
    slow = np.sin(xy[:, :1] / 12)
    x = np.column_stack([rng.normal(size=(len(xy), 3)), slow])
    tissue = _tissue(spots_of, {"rna": x}, xy, n_feature_neighbors=0)
    y = tissue.values[0]
    share = own_noise(y, tissue, tissue.present[0]) / y.square().mean(0)
    assert (share[:3] > 0.9).all()
    assert (share[:3] <= 1).all()
    assert share[3] < 0.03


def test_noise_variance_by_hand():
    variance = torch.tensor([2.0, 2.0, 2.0, 2.0, 2.0])
    first, second = torch.tensor([1.0, 1.0, 1.9, -0.1, 0.0]), torch.tensor([0.7, 1.2, 1.0, -0.5, 0.0])
    # Slopes 0.2, rising (none), 0.6, falling to 0.167, none: to distance zero 1.2, 1, 2.5, 0.167, 0.
    expected = torch.tensor([0.8, 1.0, 0.0, 2.0 - (-0.1 + 0.4 / 1.5), 2.0])
    torch.testing.assert_close(noise_variance(variance, [first, second], [1.0, 2.5]), expected)
    torch.testing.assert_close(noise_variance(variance, [first], [1.0]), torch.tensor([1.0, 1.0, 0.1, 2.0, 2.0]))
