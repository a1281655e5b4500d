"""Noise: how much of it there is at a time, and what is said of the clean value at that time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

Objective = Literal["diffusion", "flow"]
Target = Literal["residual", "x0", "v", "eps"]
_LATEST = 0.9995  # just before the signal is gone, where ratios of signal and noise are still numbers


class Level(NamedTuple):
    """Noised values are ``signal * x + noise * eps``."""

    signal: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Schedule:
    """Signal and noise over times from 0 (clean) to 1 (noise alone).

    ``"diffusion"``: variance-preserving with signal ``cos(pi t / 2)`` and noise ``sin(pi t / 2)`` (Nichol & Dhariwal 2021,
    without their offset); ``"flow"``: straight lines, signal ``1 - t`` and noise ``t`` (Lipman et al. 2023). Times are
    rounded to a grid of `n_steps`, and end just before 1.
    """

    objective: Objective = "diffusion"
    n_steps: int = 1000

    def draw(self, n: int) -> Tensor:
        """Times of the grid but 0, uniform, by torch's generator: float32 ``(n,)``."""
        return self.clip(torch.randint(1, self.n_steps + 1, (n,)) / self.n_steps)

    def clip(self, time: Tensor) -> Tensor:
        """Times not later than the last one."""
        return time.clamp(max=_LATEST)

    def grid(self, n: int) -> list[float]:
        """``n + 1`` falling times, all different, from the last to 0, on the grid where that is finer."""
        last = math.ceil(_LATEST * self.n_steps)
        if n > last:
            return torch.linspace(_LATEST, 0, n + 1, dtype=torch.float64).tolist()
        return self.clip(torch.linspace(last, 0, n + 1, dtype=torch.float64).round() / self.n_steps).tolist()

    def level(self, time: Tensor) -> Level:
        """Signal and noise at `time`, of its shape; exact at 0."""
        if self.objective == "flow":
            return Level(1 - time, time)
        return Level(torch.cos(time * (math.pi / 2)), torch.sin(time * (math.pi / 2)))


class Posterior(NamedTuple):
    """Clean value given the noised one alone: mean, and standard deviation."""

    mean: Tensor
    sd: Tensor


def gaussian_posterior(noised: Tensor, level: Level, prior_mean: Tensor, prior_variance: Tensor) -> Posterior:
    """Posterior of ``x ~ N(prior_mean, prior_variance)`` after ``noised = signal x + noise eps``, elementwise."""
    signal, noise = level
    total = signal.square() * prior_variance + noise.square()
    total = total.clamp(min=1e-12)
    gain = signal * prior_variance / total
    sd = noise * prior_variance.sqrt() / total.sqrt()
    mean = prior_mean + gain * (noised - signal * prior_mean)
    return Posterior(torch.where(noise == 0, noised, mean), sd)


def clean(output: Tensor, noised: Tensor, level: Level, posterior: Posterior, target: Target) -> Tensor:
    """Clean value that the output of the network stands for; the noised one itself where there is no noise.

    ``"v"`` is ``(signal eps - noise x) / (signal^2 + noise^2)``: that of Salimans & Ho (2022) for diffusion, and for
    flow the velocity ``eps - x`` less a multiple of the noised value.
    """
    signal, noise = level
    if target == "residual":
        found = posterior.mean + posterior.sd * output
    elif target == "x0":
        found = output
    elif target == "v":
        found = signal * noised / (signal.square() + noise.square()) - noise * output
    else:
        found = (noised - noise * output) / signal
    return torch.where(noise == 0, noised, found)


def wanted(x: Tensor, noised: Tensor, eps: Tensor, level: Level, posterior: Posterior, target: Target) -> Tensor:
    """Output of the network for the clean value `x`: the inverse of :func:`clean`."""
    signal, noise = level
    if target == "residual":
        return (x - posterior.mean) / posterior.sd.clamp(min=1e-6)
    if target == "x0":
        return x
    return (signal * eps - noise * x) / (signal.square() + noise.square()) if target == "v" else eps


def loss_weight(level: Level, target: Target, gamma: float | None) -> Tensor:
    """Weight of the squared error of an output: min-SNR (Hang et al. 2023), of ``min(SNR, gamma)`` on the clean value.

    Ones where `gamma` is None, and for residuals, whose targets have about unit variance at all times.
    """
    signal, noise = level
    if gamma is None or target == "residual":
        return torch.ones_like(signal)
    snr = signal.square() / noise.square().clamp(min=1e-12)
    least = snr.clamp(max=gamma)
    if target == "x0":
        return least
    return least * noise.square() if target == "v" else least / snr
