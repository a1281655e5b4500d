from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import norm

from stomics_tools.nn import FSQ, RunningGaussianization, code_usage


def skewed(n: int, seed: int = 0) -> torch.Tensor:
    """Two correlated skewed dimensions."""
    draws = np.random.default_rng(seed).gamma(2.0, size=(n, 2))
    return torch.as_tensor(draws @ [[1.0, 0.6], [0.0, 2.0]], dtype=torch.float32)


@pytest.fixture
def trained() -> RunningGaussianization:
    module = RunningGaussianization(2, n_rows=4096)
    for seed in range(60):
        module(skewed(4096, seed))
    return module.eval()


def test_each_dimension_becomes_standard_normal(trained: RunningGaussianization) -> None:
    values = trained(skewed(20_000, 1000)).numpy()
    chances = np.linspace(0.05, 0.95, 19)
    for column in values.T:
        np.testing.assert_allclose(np.quantile(column, chances), norm.ppf(chances), atol=0.06)


def test_knots_are_the_quantiles_of_whitened_vectors(trained: RunningGaussianization) -> None:
    first = trained.rounds[0]
    turned = (first.whitening(skewed(200_000, 1001)) @ first.rotation).numpy()
    chances = (np.arange(33) + 0.5) / 33
    np.testing.assert_allclose(first.knots.T.numpy()[1:-1], np.quantile(turned, chances, axis=0)[1:-1], atol=0.12)


def test_inverse_gives_vectors_back_inside_and_beyond_the_knots(trained: RunningGaussianization) -> None:
    x = torch.cat([skewed(500, 2), torch.tensor([[90.0, -40.0], [-30.0, 55.0]])])
    torch.testing.assert_close(trained.inverse(trained(x)), x, atol=2e-3, rtol=1e-4)


def test_map_is_increasing_in_each_whitened_dimension(trained: RunningGaussianization) -> None:
    line = torch.linspace(-8, 8, 400)[:, None].expand(-1, 2)
    first = trained.rounds[0]
    values = trained(first.whitening.inverse(line @ first.rotation.T))
    assert bool((values.diff(dim=0) > 0).all())


def test_gradients_pass_unchanged(trained: RunningGaussianization) -> None:
    x, weight = skewed(20, 3).requires_grad_(), torch.randn(20, 2)
    for map_ in (trained.forward, trained.inverse):
        (gradient,) = torch.autograd.grad((map_(x) * weight).sum(), x)
        assert torch.equal(gradient, weight)


def test_evaluation_changes_nothing(trained: RunningGaussianization) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    trained(10 * skewed(100, 4))
    for name, value in trained.state_dict().items():
        assert torch.equal(value, before[name])


def test_tied_values_keep_the_map_finite() -> None:
    module = RunningGaussianization(2)
    for _ in range(3):
        values = module(torch.zeros(64, 2))
    assert bool(values.isfinite().all())
    assert bool((module.rounds[0].knots.diff(dim=1) > 0).all())


def clusters(n: int, seed: int = 0) -> torch.Tensor:
    """Four clusters in two dimensions, like patients: uncorrelated, but far from independent."""
    rng = np.random.default_rng(seed)
    centers = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 3.0], [0.0, -3.0]])[rng.integers(4, size=n)]
    return torch.as_tensor(centers + 0.3 * rng.normal(size=(n, 2)), dtype=torch.float32)


def test_more_rounds_use_more_codes_of_clustered_vectors() -> None:
    quantizer, used = FSQ((16, 16)), []
    for n_rounds in (1, 4):
        module = RunningGaussianization(2, n_rounds=n_rounds)
        for seed in range(60):
            module(clusters(1024, seed))
        x = clusters(20_000, 1000)
        values = module.eval()(x)
        torch.testing.assert_close(module.inverse(values), x, atol=1e-3, rtol=1e-3)
        used.append(code_usage(quantizer(values).codes, 256)["perplexity"])
    assert used[1] > 1.3 * used[0]


@pytest.mark.parametrize("name", ["n_knots", "n_rounds"])
def test_sizes_that_cannot_be_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"`{name}` must be at least"):
        RunningGaussianization(2, **{name: 0})
