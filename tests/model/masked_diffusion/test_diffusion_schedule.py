from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from stomics_tools.model.masked_diffusion._schedule import (
    Level,
    Objective,
    Posterior,
    Schedule,
    Target,
    clean,
    gaussian_posterior,
    loss_weight,
    wanted,
)

OBJECTIVES, TARGETS = get_args(Objective), get_args(Target)
TIMES = (0.001, 0.01, 0.1, 0.3, 0.5, 0.77, 0.9, 0.99, 0.999, 0.9995)


def drawn(objective: Objective, time: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Level, Posterior]:
    """Clean values, noised ones, noise, level and posterior at a time."""
    generator = torch.Generator().manual_seed(1)
    x, eps, mean, log_variance = torch.randn(4, 50, 3, generator=generator, dtype=torch.float64).to(dtype)
    level = Schedule(objective).level(torch.full((50, 1), time, dtype=dtype))
    noised = level.signal * x + level.noise * eps
    return x, noised, eps, level, gaussian_posterior(noised, level, mean, log_variance.exp())


def test_levels() -> None:
    time = torch.linspace(0, 1, 11, dtype=torch.float64)
    flow, diffusion = Schedule("flow").level(time), Schedule("diffusion").level(time)
    torch.testing.assert_close(flow.signal + flow.noise, torch.ones_like(time))
    torch.testing.assert_close(flow.noise, time)
    torch.testing.assert_close(diffusion.signal.square() + diffusion.noise.square(), torch.ones_like(time))
    torch.testing.assert_close(torch.atan2(diffusion.noise, diffusion.signal), time * torch.pi / 2)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("n_steps", "n"), [(1000, 1), (1000, 7), (1000, 20), (1000, 999), (1000, 1000), (1, 1)])
def test_grid_falls_on_the_grid_of_training(objective: Objective, n_steps: int, n: int) -> None:
    schedule = Schedule(objective, n_steps)
    times = schedule.grid(n)
    assert len(times) == n + 1
    assert times[0] == 0.9995
    assert times[-1] == 0
    assert (np.diff(times) < 0).all()
    indices = np.array(times[1:]) * n_steps
    np.testing.assert_allclose(indices, indices.round(), atol=1e-9)
    np.testing.assert_allclose(indices, np.linspace(n_steps, 0, n + 1)[1:], atol=0.5 + 1e-9)  # evenly spaced


@pytest.mark.parametrize(("n_steps", "n"), [(1000, 1001), (1000, 5000), (10, 50), (10_000, 10_000), (10_000, 9_995)])
def test_times_of_a_fine_grid_differ(n_steps: int, n: int) -> None:
    times = Schedule("diffusion", n_steps).grid(n)
    assert len(times) == n + 1
    assert (times[0], times[-1]) == (0.9995, 0)
    assert (np.diff(times) < 0).all()


def test_drawn_times_are_uniform_on_the_grid_and_never_zero() -> None:
    torch.manual_seed(0)
    times = Schedule("flow", 10).draw(20_000)
    assert times.dtype == torch.float32
    values, counts = times.unique(return_counts=True)
    torch.testing.assert_close(values, torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.9995]))
    assert (counts - 2000).abs().max() < 5 * (20_000 * 0.1 * 0.9) ** 0.5
    torch.manual_seed(0)
    torch.testing.assert_close(Schedule("flow", 10).draw(20_000), times, rtol=0, atol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("time", TIMES)
def test_gaussian_posterior_is_the_conditional_of_a_bivariate_normal(objective: Objective, time: float) -> None:
    level = Schedule(objective).level(torch.tensor(time, dtype=torch.float64))
    noised, mean, variance = torch.tensor([[1.3, -0.2, 0.0], [0.4, -1.0, 2.0], [1.0, 1e-4, 3.0]], dtype=torch.float64)
    found = gaussian_posterior(noised, level, mean, variance)
    for i in range(3):
        a, n, m, v = float(level.signal), float(level.noise), float(mean[i]), float(variance[i])
        # (x, noised) = mix @ (standard normal, eps) + offset
        mix = np.array([[v**0.5, 0.0], [a * v**0.5, n]])
        cov = mix @ mix.T
        expected_mean = m + cov[0, 1] / cov[1, 1] * (float(noised[i]) - a * m)
        expected_variance = np.linalg.det(cov) / cov[1, 1]
        np.testing.assert_allclose(float(found.mean[i]), expected_mean, rtol=1e-9)
        np.testing.assert_allclose(float(found.sd[i]) ** 2, expected_variance, rtol=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("time", TIMES)
def test_what_is_wanted_stands_for_the_clean_value(objective: Objective, target: Target, time: float) -> None:
    for dtype, rtol in ((torch.float64, 1e-9), (torch.float32, 2e-3)):
        x, noised, eps, level, posterior = drawn(objective, time, dtype)
        output = wanted(x, noised, eps, level, posterior, target)
        assert output.isfinite().all()
        torch.testing.assert_close(clean(output, noised, level, posterior, target), x, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("time", TIMES)
def test_targets_are_those_of_the_papers(time: float) -> None:
    x, noised, eps, level, posterior = drawn("diffusion", time, torch.float64)
    v = wanted(x, noised, eps, level, posterior, "v")
    torch.testing.assert_close(v, level.signal * eps - level.noise * x)
    torch.testing.assert_close(wanted(x, noised, eps, level, posterior, "eps"), eps)
    torch.testing.assert_close(wanted(x, noised, eps, level, posterior, "x0"), x)
    # For flow the velocity eps - x, less a multiple of the noised value that is the same for all.
    x, noised, eps, level, posterior = drawn("flow", time, torch.float64)
    multiple = (eps - x - wanted(x, noised, eps, level, posterior, "v")) / noised
    torch.testing.assert_close(multiple, multiple[:1, :1].expand_as(multiple), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("time", TIMES)
def test_residuals_have_unit_variance(objective: Objective, time: float) -> None:
    generator = torch.Generator().manual_seed(2)
    z, eps = torch.randn(2, 100_000, generator=generator, dtype=torch.float64)
    mean, variance = torch.tensor([0.5, 0.2], dtype=torch.float64)
    x, level = mean + variance.sqrt() * z, Schedule(objective).level(torch.tensor(time, dtype=torch.float64))
    noised = level.signal * x + level.noise * eps
    posterior = gaussian_posterior(noised, level, mean, variance)
    residual = wanted(x, noised, eps, level, posterior, "residual")
    assert abs(float(residual.mean())) < 5 / 100_000**0.5
    assert abs(float(residual.var()) - 1) < 5 * (2 / 100_000) ** 0.5


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_without_noise_values_return_bit_for_bit(objective: Objective, target: Target, dtype: torch.dtype) -> None:
    x, noised, eps, level, posterior = drawn(objective, 0.0, dtype)
    assert torch.equal(noised, x)
    assert torch.equal(posterior.mean, x)
    assert (posterior.sd == 0).all()
    assert wanted(x, noised, eps, level, posterior, target).isfinite().all()
    output = 1e3 * torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=dtype)
    assert torch.equal(clean(output, noised, level, posterior, target), x)


def test_each_value_has_the_time_of_its_own() -> None:
    x, eps = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(4))
    level = Schedule().level(torch.tensor([0.0, 0.3, 0.0, 0.8])[:, None])
    noised = level.signal * x + level.noise * eps
    posterior = gaussian_posterior(noised, level, torch.zeros(()), torch.ones(()))
    found = clean(torch.zeros_like(x), noised, level, posterior, "residual")
    assert torch.equal(found[[0, 2]], x[[0, 2]])
    torch.testing.assert_close(found[[1, 3]], (level.signal * noised)[[1, 3]])


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("target", ["x0", "v", "eps"])
@pytest.mark.parametrize("time", TIMES)
@pytest.mark.parametrize("gamma", [0.5, 5.0])
def test_weighted_errors_are_those_of_the_clean_value(
    objective: Objective, target: Target, time: float, gamma: float
) -> None:
    x, noised, eps, level, posterior = drawn(objective, time, torch.float64)
    error = torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    output = wanted(x, noised, eps, level, posterior, target) + error
    of_clean = (clean(output, noised, level, posterior, target) - x).square()
    snr = (level.signal / level.noise).square()
    expected = torch.minimum(snr, torch.tensor(gamma)) * of_clean
    torch.testing.assert_close(loss_weight(level, target, gamma) * error.square(), expected, rtol=1e-6, atol=1e-12)


def test_weights_of_the_paper() -> None:
    level = Schedule("diffusion").level(torch.tensor(TIMES, dtype=torch.float64))
    snr = (level.signal / level.noise).square()
    least = snr.clamp(max=5)
    torch.testing.assert_close(loss_weight(level, "x0", 5), least)
    torch.testing.assert_close(loss_weight(level, "v", 5), least / (snr + 1))
    torch.testing.assert_close(loss_weight(level, "eps", 5), least / snr)
    assert (loss_weight(level, "residual", 5) == 1).all()
    for target in TARGETS:
        assert (loss_weight(level, target, None) == 1).all()
    without_noise = Schedule("diffusion").level(torch.zeros(2))
    for target in TARGETS:
        assert loss_weight(without_noise, target, 5).isfinite().all()
