from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from stomics_tools.model.masked_diffusion._sampler import Denoiser, Sampler, ancestral_step, ddim_step, sample_chain
from stomics_tools.model.masked_diffusion._schedule import Level, Objective, Schedule, gaussian_posterior

OBJECTIVES, SAMPLERS = get_args(Objective), get_args(Sampler)
MEAN, VARIANCE = 0.7, 0.36  # of the prior of most tests
PAIRS = [(0.9995, 0.95), (0.95, 0.9), (0.5, 0.45), (0.9, 0.1), (0.05, 0.001), (0.002, 0.001)]  # late and early times


def tensor(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def expecting(schedule: Schedule, variance: float = VARIANCE) -> Denoiser:
    """Exact mean of a normal prior given the noised value."""

    def denoise(noised: dict[str, Tensor], time: float) -> dict[str, Tensor]:
        level = schedule.level(tensor(time))
        return {k: gaussian_posterior(z, level, tensor(MEAN), tensor(variance)).mean for k, z in noised.items()}

    return denoise


def drawing(schedule: Schedule, generator: torch.Generator) -> Denoiser:
    """A draw of the same posterior instead of its mean."""

    def denoise(noised: dict[str, Tensor], time: float) -> dict[str, Tensor]:
        found = gaussian_posterior(noised["x"], schedule.level(tensor(time)), tensor(MEAN), tensor(VARIANCE))
        noise = torch.randn(found.mean.shape, generator=generator, dtype=torch.float64)
        return {"x": found.mean + found.sd * noise}

    return denoise


def moments(schedule: Schedule, sampler: Sampler, n_steps: int, variance: float = VARIANCE) -> tuple[float, float]:
    """Mean and standard deviation of what a deterministic chain makes of its exact start: both chains are linear."""
    latest = schedule.level(tensor(schedule.grid(n_steps)[0]))
    spread = (latest.signal**2 * variance + latest.noise**2).sqrt()
    start = latest.signal * MEAN + spread * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    found = chain(schedule, sampler, start, n_steps, expecting(schedule, variance))
    return float(found.mean()), float(found[1] - found[0]) / 2


def chain(schedule: Schedule, sampler: Sampler, start: Tensor, n_steps: int, denoise: Denoiser) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return sample_chain(denoise, {"x": start}, schedule, n_steps=n_steps, sampler=sampler, generator=generator)["x"]


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("times", PAIRS)
def test_ancestral_step_is_the_exact_posterior(objective: Objective, times: tuple[float, float]) -> None:
    late, early = (Schedule(objective).level(tensor(time)) for time in times)
    x, noised = 0.8, -1.7
    # Given x, (z_early, z_late) is normal: z_late is z_early, scaled, with noise of its own.
    scale = float(late.signal / early.signal)
    var_early, var_late = float(early.noise) ** 2, float(late.noise) ** 2
    mean = float(early.signal) * x + scale * var_early / var_late * (noised - float(late.signal) * x)
    variance = var_early - (scale * var_early) ** 2 / var_late

    def step(z: float, x: float) -> Tensor:
        ones = torch.ones(50_000, dtype=torch.float64)
        return ancestral_step(z * ones, x * ones, late, early, torch.Generator().manual_seed(3))

    noise = step(0.0, 0.0)
    found = step(noised, x) - noise
    np.testing.assert_allclose(found, mean, rtol=1e-6)
    units = torch.randn(50_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    np.testing.assert_allclose(noise / units, variance**0.5, rtol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("times", PAIRS)
def test_ddim_step_keeps_the_noise(objective: Objective, times: tuple[float, float]) -> None:
    late, early = (Schedule(objective).level(tensor(time)) for time in times)
    x, eps = torch.randn(2, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = ddim_step(late.signal * x + late.noise * eps, x, late, early)
    torch.testing.assert_close(found, early.signal * x + early.noise * eps, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_steps", [1, 7, 20])
def test_flow_is_euler_steps_of_the_velocity(n_steps: int) -> None:
    schedule = Schedule("flow")
    start = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = chain(schedule, "ddim", start, n_steps, expecting(schedule))
    times, z = schedule.grid(n_steps), start.clone()
    for now, then in zip(times[:-1], times[1:], strict=True):
        # Conditional mean of eps - x given z = (1 - now) x + now eps.
        total = (1 - now) ** 2 * VARIANCE + now**2
        velocity = (now - (1 - now) * VARIANCE) / total * (z - (1 - now) * MEAN) - MEAN
        z = z + (then - now) * velocity
    torch.testing.assert_close(found, z, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("n_steps", [1, 5, 20])
def test_ddim_of_unit_normals_is_a_product_of_cosines(n_steps: int) -> None:
    schedule = Schedule("diffusion")
    _, sd = moments(schedule, "ddim", n_steps, variance=1.0)
    angles = np.array(schedule.grid(n_steps)) * math.pi / 2
    np.testing.assert_allclose(sd, np.cos(np.diff(angles)).prod(), rtol=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_deterministic_chains_recover_a_normal_in_20_steps(objective: Objective) -> None:
    schedule = Schedule(objective)
    found = {sampler: moments(schedule, sampler, 20) for sampler in ("ddim", "dpm++")}
    for mean, _ in found.values():
        assert mean == pytest.approx(MEAN, rel=1e-9)
    errors = {sampler: abs(sd**2 / VARIANCE - 1) for sampler, (_, sd) in found.items()}
    assert errors["ddim"] < 0.15
    assert errors["dpm++"] < 0.03
    many = moments(schedule, "ddim", 1000)[1]
    assert many**2 == pytest.approx(VARIANCE, rel=5e-3)


@dataclass(frozen=True)
class EndingBefore(Schedule):
    """Short and long steps, in turn, in the logarithm of signal / noise, not as far as clean values."""

    def grid(self, n: int) -> list[float]:
        sizes = torch.tensor([0.0, *(1.0, 2.0) * (n // 2)], dtype=torch.float64)
        steps = sizes.cumsum(0) / sizes.sum() * 6 - 3
        flow = (-steps).sigmoid()
        return (flow if self.objective == "flow" else torch.atan2((-steps).exp(), tensor(1)) / (math.pi / 2)).tolist()


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("sampler", "order"), [("ddim", 1), ("dpm++", 2)])
def test_order_of_the_error(objective: Objective, sampler: Sampler, order: int) -> None:
    schedule = EndingBefore(objective)
    errors = []
    for n_steps in (20, 40, 80, 160):
        times = schedule.grid(n_steps)
        first, last = (schedule.level(tensor(time)) for time in (times[0], times[-1]))
        start = torch.tensor([-2.0, 0.3, 1.5], dtype=torch.float64)
        found = chain(schedule, sampler, start, n_steps, expecting(schedule))
        # The flow of the differential equation keeps quantiles of the marginals.
        sds = [(level.signal**2 * VARIANCE + level.noise**2).sqrt() for level in (first, last)]
        exact = last.signal * MEAN + sds[1] / sds[0] * (start - first.signal * MEAN)
        errors.append(float((found - exact).abs().max()))
    orders = -np.diff(np.log2(errors))
    np.testing.assert_allclose(orders, order, atol=0.25)
    assert errors[0] < (0.1 if order == 1 else 0.02)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_second_order_is_the_formula_of_the_paper(objective: Objective) -> None:
    schedule = Schedule(objective)
    times, denoise = schedule.grid(7), expecting(schedule)
    start = torch.randn(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    z, x, last, last_h = start, torch.zeros(40), torch.zeros(40), math.inf
    for now, then in zip(times[:-1], times[1:], strict=True):
        x = denoise({"x": z}, now)["x"]
        if then > 0:
            (a, s), (b, r) = (map(float, schedule.level(tensor(time))) for time in (now, then))
            h = math.log(b / r) - math.log(a / s)
            share = h / last_h / 2  # 1 / (2 r), of which the first step has none
            z = r / s * z - b * (math.exp(-h) - 1) * ((1 + share) * x - share * last)
            last, last_h = x, h
    torch.testing.assert_close(chain(schedule, "dpm++", start, 7, denoise), x, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_second_order_converges_faster_to_clean_values(objective: Objective) -> None:
    schedule = Schedule(objective)
    for n_steps in (10, 20, 50, 100, 500):
        first, second = (abs(moments(schedule, s, n_steps)[1] - VARIANCE**0.5) for s in ("ddim", "dpm++"))
        assert second < first / 4


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("n_steps", [1, 3, 20])
def test_ancestral_chain_keeps_the_marginals(objective: Objective, n_steps: int) -> None:
    n, schedule = 200_000, Schedule(objective)
    latest = schedule.level(tensor(schedule.grid(n_steps)[0]))
    generator = torch.Generator().manual_seed(7)
    noise = torch.randn(2, n, generator=generator, dtype=torch.float64)
    start = latest.signal * (MEAN + VARIANCE**0.5 * noise[0]) + latest.noise * noise[1]
    # With draws of the clean value instead of its mean, a chain of any length is exact.
    found = chain(schedule, "ancestral", start, n_steps, drawing(schedule, generator))
    assert abs(float(found.mean()) - MEAN) < 4.5 * (VARIANCE / n) ** 0.5
    assert abs(float(found.var()) / VARIANCE - 1) < 4.5 * (2 / n) ** 0.5


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_ancestral_chain_of_means_converges(objective: Objective) -> None:
    n, schedule = 20_000, Schedule(objective)
    normals = torch.randn(n, generator=torch.Generator().manual_seed(8), dtype=torch.float64)
    for n_steps, least, most in ((20, 0.1, 0.3), (500, 0.0, 0.015)):
        levels = [schedule.level(tensor(time)) for time in schedule.grid(n_steps)]
        first = levels[0]
        variance = float(first.signal**2 * VARIANCE + first.noise**2)
        found = chain(
            schedule, "ancestral", first.signal * MEAN + variance**0.5 * normals, n_steps, expecting(schedule)
        )
        # A mean has less variance than draws: every step loses some, and the loss vanishes with the size of the steps.
        for late, early in zip(levels[:-1], levels[1:], strict=True):
            (a, v), (b, w) = ((float(level.signal), float(level.noise) ** 2) for level in (late, early))
            gain, kept = a * VARIANCE / (a**2 * VARIANCE + v), a / b * w / v
            variance = (kept + (b - kept * a) * gain) ** 2 * variance + w - (a / b * w) ** 2 / v
        assert least < 1 - variance / VARIANCE < most
        assert abs(float(found.mean()) - MEAN) < 4.5 * (variance / n) ** 0.5
        assert abs(float(found.var()) / variance - 1) < 4.5 * (2 / n) ** 0.5


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_calls_of_the_denoiser(sampler: Sampler) -> None:
    schedule, times, inner = Schedule(), [], expecting(Schedule())

    def denoise(noised: dict[str, Tensor], time: float) -> dict[str, Tensor]:
        times.append(time)
        return inner(noised, time)

    start = torch.randn(5, generator=torch.Generator().manual_seed(0))
    kept = start.clone()
    found = chain(schedule, sampler, start, 6, denoise)
    assert times == schedule.grid(6)[:-1]
    assert torch.equal(start, kept)
    assert found.dtype == start.dtype


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_more_steps_than_the_grid_has(sampler: Sampler) -> None:
    schedule = Schedule("diffusion", 100)
    found = chain(
        schedule, sampler, torch.randn(4, generator=torch.Generator().manual_seed(0)), 500, expecting(schedule)
    )
    assert found.isfinite().all()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_parts_are_sampled_side_by_side(sampler: Sampler) -> None:
    schedule = Schedule()
    start = torch.randn(2, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = sample_chain(
        expecting(schedule),
        {"a": start[0], "b": start[1]},
        schedule,
        n_steps=9,
        sampler=sampler,
        generator=torch.Generator().manual_seed(0),
    )
    assert list(both) == ["a", "b"]
    alone = [chain(schedule, sampler, one, 9, expecting(schedule)) for one in start]
    assert torch.equal(both["a"], alone[0]) == (sampler != "ancestral")  # their noises are drawn in turn
    assert torch.equal(both["b"], alone[1]) == (sampler != "ancestral")
    assert abs(float(torch.corrcoef(torch.stack([both["a"], both["b"]]))[0, 1])) < 0.6


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_only_the_generator_given_is_drawn_from(sampler: Sampler) -> None:
    schedule = Schedule()
    start = {"x": torch.randn(50, generator=torch.Generator().manual_seed(0))}
    torch.manual_seed(5)
    before = torch.get_rng_state()
    found = {}
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        generator = torch.Generator().manual_seed(seed)
        kwargs = {"n_steps": 10, "sampler": sampler, "generator": generator}
        found[name] = sample_chain(expecting(schedule), start, schedule, **kwargs)["x"]
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found["one"], found["again"])
    assert torch.equal(found["one"], found["other"]) == (sampler != "ancestral")


def test_levels_of_a_step_may_be_of_any_schedule() -> None:
    # Variance exploding: signal 1, noise sigma. z_early given z_late and x as in Song et al. 2021.
    late, early = Level(tensor(1), tensor(5)), Level(tensor(1), tensor(2))
    zeros = torch.zeros(4, dtype=torch.float64)
    noise = ancestral_step(zeros, zeros, late, early, torch.Generator().manual_seed(0))
    units = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(noise, units * (4 * (25 - 4) / 25) ** 0.5)
    mean = ancestral_step(zeros + 3, zeros + 1, late, early, torch.Generator().manual_seed(0)) - noise
    torch.testing.assert_close(mean, zeros + 4 / 25 * 3 + 21 / 25)
