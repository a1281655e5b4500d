"""Steps from noise to clean values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from stomics_tools.model.masked_diffusion._schedule import Level, Schedule

Sampler = Literal["ddim", "ancestral", "dpm++"]
Denoiser = Callable[[dict[str, Tensor], float], dict[str, Tensor]]


def sample_chain(
    denoise: Denoiser,
    start: dict[str, Tensor],
    schedule: Schedule,
    *,
    n_steps: int,
    sampler: Sampler,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """Clean values, in `n_steps` calls of `denoise`.

    Parameters
    ----------
    denoise
        Noised values by name and their time, to the clean values expected.
    start
        Values at the last time of the schedule.
    sampler
        ``"ddim"``: deterministic (Song et al. 2021; for ``objective="flow"`` these are Euler steps); ``"ancestral"``:
        draws of the exact posterior of the step before given the clean value; ``"dpm++"``: DPM-Solver++ (2M) (Lu et
        al. 2022), the first step of first order.
    generator
        Of the noise of ancestral steps.
    """
    times = schedule.grid(n_steps)
    values, previous, previous_step = dict(start), None, 0.0
    for now, then in zip(times[:-1], times[1:], strict=True):
        found = denoise(values, now)
        if then == 0:
            return found
        a, b = (schedule.level(torch.tensor(time, dtype=torch.float64)) for time in (now, then))
        if sampler == "ancestral":
            values = {name: ancestral_step(values[name], found[name], a, b, generator) for name in values}
            continue
        expected, step = found, float(_log_snr(b) - _log_snr(a))
        if sampler == "dpm++" and previous is not None:
            ratio = step / (2 * previous_step)
            expected = {name: (1 + ratio) * found[name] - ratio * previous[name] for name in found}
        values = {name: ddim_step(values[name], expected[name], a, b) for name in values}
        previous, previous_step = found, step
    return values


def ddim_step(noised: Tensor, x: Tensor, now: Level, then: Level) -> Tensor:
    """The same noise at another level: first order in both DDIM and DPM-Solver++."""
    keep = float(then.noise / now.noise)
    return keep * noised + (float(then.signal) - keep * float(now.signal)) * x


def ancestral_step(noised: Tensor, x: Tensor, now: Level, then: Level, generator: torch.Generator) -> Tensor:
    """A draw of the noised value of an earlier time given the later one and the clean value.

    For ``z_t = (a_t / a_s) z_s + noise`` of variance ``n_t^2 - (a_t / a_s)^2 n_s^2`` (Ho et al. 2020, equations 6 and
    7, for any schedule).
    """
    ratio = now.signal / then.signal
    added = now.noise**2 - ratio**2 * then.noise**2
    from_noised = ratio * then.noise**2 / now.noise**2
    from_clean = then.signal * added / now.noise**2
    sd = (added * then.noise**2 / now.noise**2).clamp(min=0).sqrt()
    noise = torch.randn(noised.shape, generator=generator, device=generator.device, dtype=noised.dtype)
    return float(from_noised) * noised + float(from_clean) * x + float(sd) * noise.to(noised.device)


def _log_snr(level: Level) -> Tensor:
    return torch.log(level.signal / level.noise)
