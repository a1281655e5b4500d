from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.distance import cdist, pdist
from sklearn.kernel_ridge import KernelRidge
from sklearn.neighbors import KNeighborsRegressor

from stomics_tools.model.var_st._smooth import N_NEAREST, SmoothRegression, novelty


def example(n: int = 80, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 6))
    y = np.stack([np.sin(x[:, 0]), x[:, 1] * x[:, 2], x[:, 3]], axis=1) + 0.1 * rng.normal(size=(n, 3))
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y - y.mean(0), dtype=torch.float32)


def regression(model: SmoothRegression, x: torch.Tensor) -> torch.Tensor:
    return model._regression(torch.cdist(x, model.landmarks))


def test_half_of_it_is_the_mean_of_the_nearest_landmarks() -> None:
    x, y = example(300)
    new = torch.randn(30, 6)
    for n, n_averaged in ((300, 50), (41, 11), (3, 1)):
        model = SmoothRegression(n, 6, 3)
        model.fit(x, y, relative_width=1.0, penalty=0.1)
        known = dict(zip(map(tuple, x.tolist()), y.numpy(), strict=True))
        landmarks = model.landmarks.numpy()
        nearest = KNeighborsRegressor(n_averaged).fit(
            landmarks, np.stack([known[tuple(row)] for row in landmarks.tolist()])
        )
        expected = (regression(model, new).numpy() + nearest.predict(new.numpy())) / 2
        np.testing.assert_allclose(model(new), expected, atol=1e-5)


def test_with_all_points_as_landmarks_it_is_kernel_ridge_regression() -> None:
    x, y = example()
    new = torch.randn(30, 6)
    for relative_width, penalty in ((10.0, 3.0), (0.5, 0.1)):
        model = SmoothRegression(80, 6, 3)
        model.fit(x, y, relative_width=relative_width, penalty=penalty)
        reference = KernelRidge(alpha=penalty, kernel="rbf", gamma=1 / model.squared_width.item()).fit(x, y)
        np.testing.assert_allclose(regression(model, x), reference.predict(x), atol=2e-4)
        np.testing.assert_allclose(regression(model, new), reference.predict(new), atol=2e-4)


def test_width_is_that_of_two_landmarks() -> None:
    x, y = example(301)
    model = SmoothRegression(301, 6, 3)
    model.fit(x, y, relative_width=2.0, penalty=1.0)
    np.testing.assert_allclose(model.squared_width, 2 * np.median(pdist(x) ** 2), rtol=0.02)


def test_landmarks_are_a_subset_and_the_solution_is_the_best_in_their_span() -> None:
    x, y = example(200)
    model = SmoothRegression(20, 6, 3)
    model.fit(x, y, relative_width=0.5, penalty=0.3)
    landmarks = model.landmarks.double().numpy()
    assert set(map(tuple, model.landmarks.tolist())) <= set(map(tuple, x.tolist()))
    assert len(np.unique(landmarks, axis=0)) == 20
    width = model.squared_width.item()
    kernel, gram = np.exp(-(cdist(x, landmarks) ** 2) / width), np.exp(-(cdist(landmarks, landmarks) ** 2) / width)
    # The same minimum as least squares on rows stacked with the penalty's square root.
    root = np.linalg.cholesky(0.3 * gram + 1e-12 * np.eye(20)).T
    stacked, target = np.vstack([kernel, root]), np.vstack([y.numpy(), np.zeros((20, 3))])
    expected = kernel @ np.linalg.lstsq(stacked, target, rcond=None)[0]
    np.testing.assert_allclose(regression(model, x), expected, atol=1e-3)


def test_more_landmarks_explain_more() -> None:
    x, y = example(400)
    errors = []
    for n in (10, 100, 300):
        model = SmoothRegression(n, 6, 3)
        model.fit(x[:300], y[:300], relative_width=1.0, penalty=0.1)
        errors.append((regression(model, x[300:]) - y[300:]).square().mean().item())
    assert errors[2] < errors[1] < 0.5 * errors[0]
    assert errors[1] < 0.2 * y[300:].square().mean().item()


def test_far_away_it_falls_back_to_the_mean() -> None:
    x, y = example()
    model = SmoothRegression(80, 6, 3)
    model.fit(x, y + 2, relative_width=1.0, penalty=0.1)
    assert regression(model, x).abs().max() > 1
    assert regression(model, x + 1e3).abs().max() == 0


def test_a_large_penalty_shrinks_to_the_mean() -> None:
    x, y = example()
    sizes = []
    for penalty in (0.1, 10.0, 1e6):
        model = SmoothRegression(80, 6, 3)
        model.fit(x, y, relative_width=1.0, penalty=penalty)
        sizes.append(regression(model, x).norm().item())
    assert sizes[0] > sizes[1] > 1000 * sizes[2]


def test_float32_is_enough_for_a_wide_kernel_on_many_spots() -> None:
    torch.manual_seed(0)
    x, y = torch.randn(1200, 20), torch.randn(1200, 3)
    model = SmoothRegression(300, 20, 3)
    model.fit(x, y, relative_width=10.0, penalty=3.0)
    exact = SmoothRegression(300, 20, 3).double()
    exact.load_state_dict(model.state_dict())
    assert (regression(model, x) - regression(exact, x.double())).abs().max() < 1e-2 * regression(
        exact, x.double()
    ).std()


def test_spots_that_repeat_and_a_state_that_is_saved() -> None:
    x, y = example(10)
    model = SmoothRegression(40, 6, 3)
    model.fit(x.repeat(4, 1), y.repeat(4, 1), relative_width=1.0, penalty=0.1)
    assert model(x).isfinite().all()
    other = SmoothRegression(40, 6, 3)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)


def test_distance_is_that_to_the_tenth_nearest_landmark() -> None:
    x = torch.randn(7, 6)
    for n in (3, N_NEAREST, 40):
        model = SmoothRegression(n, 6, 3)
        model.landmarks.normal_()
        expected = np.sort(cdist(x, model.landmarks), axis=1)[:, min(n, N_NEAREST) - 1]
        np.testing.assert_allclose(model.distance(x), expected, rtol=1e-4)


def test_novelty_rises_from_the_usual_distance_to_a_quarter_more() -> None:
    distance = torch.tensor([0.0, 1.9, 2.0, 2.25, 2.5, 3.0, 100.0])
    found = novelty(distance, torch.tensor(2.0))
    torch.testing.assert_close(found, torch.tensor([0.0, 0, 0, 0.5, 1, 1, 1])[:, None])
    model = SmoothRegression(5, 6, 3)
    x = torch.randn(9, 6)
    model.usual_distance.fill_(2.0)
    torch.testing.assert_close(model.novelty(x), novelty(model.distance(x), torch.tensor(2.0)))
