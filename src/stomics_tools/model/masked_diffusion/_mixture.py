"""Mixtures of normal distributions as priors of a diffusion."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from stomics_tools.model.masked_diffusion._schedule import Level, Posterior


class Mixture(NamedTuple):
    """Of vectors ``(..., d)``: ``mean`` and ``variance`` that broadcast to ``(..., k, d)``, ``log_weight`` ``(..., k)``."""

    mean: Tensor
    variance: Tensor
    log_weight: Tensor

    def expected(self) -> Tensor:
        """Mean of the whole mixture, ``(..., d)``."""
        return (self.log_weight.softmax(-1)[..., None] * self.mean).sum(-2)

    def log_density(self, x: Tensor) -> Tensor:
        """Logarithm of the density at `x` ``(..., d)``."""
        gap = (x[..., None, :] - self.mean).square() / self.variance
        each = -(gap + self.variance.log() + math.log(2 * math.pi)).sum(-1) / 2
        return (self.log_weight.log_softmax(-1) + each).logsumexp(-1)


def mixture_posterior(noised: Tensor, level: Level, prior: Mixture) -> Posterior:
    """Posterior mean and standard deviation ``(..., d)`` of ``x`` of a mixture after ``noised = signal x + noise eps``.

    `level` is ``(..., 1)``.
    """
    signal, noise = (part[..., None, :] for part in level)
    total = (signal.square() * prior.variance + noise.square()).clamp(min=1e-12)
    gap = noised[..., None, :] - signal * prior.mean
    means = prior.mean + signal * prior.variance / total * gap
    variances = prior.variance * noise.square() / total
    share = (prior.log_weight - (gap.square() / total + total.log()).sum(-1) / 2).softmax(-1)[..., None]
    mean = (share * means).sum(-2)
    variance = (share * (variances + (means - mean[..., None, :]).square())).sum(-2)
    return Posterior(torch.where(level.noise == 0, noised, mean), variance.sqrt())
