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
    white = trained.whitening(skewed(200_000, 1001)).numpy()
    chances = (np.arange(33) + 0.5) / 33
    np.testing.assert_allclose(trained.knots.T.numpy()[1:-1], np.quantile(white, chances, axis=0)[1:-1], atol=0.12)


def test_inverse_gives_vectors_back_inside_and_beyond_the_knots(trained: RunningGaussianization) -> None:
    x = torch.cat([skewed(500, 2), torch.tensor([[90.0, -40.0], [-30.0, 55.0]])])
    torch.testing.assert_close(trained.inverse(trained(x)), x, atol=2e-3, rtol=1e-4)


def test_map_is_increasing_in_each_whitened_dimension(trained: RunningGaussianization) -> None:
    line = torch.linspace(-8, 8, 400)[:, None].expand(-1, 2)
    values = trained(trained.whitening.inverse(line))
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
    assert bool((module.knots.diff(dim=1) > 0).all())


def test_heavy_tails_then_use_as_many_codes_as_normal_vectors_do() -> None:
    quantizer, module = FSQ((16, 16)), RunningGaussianization(2)
    draws = np.random.default_rng(0).standard_t(1.5, size=(60, 1024, 2))
    for batch in torch.as_tensor(draws, dtype=torch.float32).clamp(-100, 100):
        module(batch)
    x = torch.as_tensor(draws[:20].reshape(-1, 2), dtype=torch.float32).clamp(-100, 100)
    used = code_usage(quantizer(module.eval()(x)).codes, 256)["perplexity"]
    alone = code_usage(quantizer(module.whitening(x)).codes, 256)["perplexity"]
    assert used > 240 > 2 * alone


def test_one_knot_is_refused() -> None:
    with pytest.raises(ValueError, match="`n_knots` must be at least 2, found 1"):
        RunningGaussianization(2, n_knots=1)
