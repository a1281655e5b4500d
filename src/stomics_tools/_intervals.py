"""Intervals of new groups of observations, from residuals on groups that were left out of training.

Groups are patients, or sections. A residual is the effect of its group plus what is left within the group, and the
interval holds the sum of both. What is left within groups is taken as it was seen, each group with the same weight.
Effects are taken to be normal. A prediction holds the mean effect of the K groups of training, and that of a left-out
group the mean of the other K - 1, so that left-out residuals are K / (K - 1) (b_i - mean(b)), with a root mean square
of sqrt(K / (K - 1)) times the standard deviation s of the effects in the sample. The effect of a new group lies
s sqrt(1 + 1 / K) t from the prediction, with t of K - 1 degrees of freedom: that root mean square times
sqrt(1 - 1 / K^2) t.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.special import stdtr, stdtrit
from scipy.stats import norm

from stomics_tools import _validate

N_QUANTILES = 399
_AT = np.arange(1, N_QUANTILES + 1) / (N_QUANTILES + 1)
_WIDEST = 2.5
"""How many times as wide as with infinitely many groups an interval may be for want of groups."""
_STEPS = 20


class GroupResiduals(NamedTuple):
    """What is known of the residuals of each gene.

    ``within`` ``(N_QUANTILES, n_genes)``, quantiles of the deviations from the mean of the group; ``between``
    ``(n_genes,)``, root mean square of the means of groups; ``n_groups`` and ``n_values`` int ``(n_genes,)``, how many
    groups and observations these rest on. NaN and 0 where a gene was measured nowhere.
    """

    within: np.ndarray
    between: np.ndarray
    n_groups: np.ndarray
    n_values: np.ndarray


class LevelError(ValueError):
    """A level of an interval that the left-out groups cannot support."""


def group_residuals(residuals: np.ndarray, group: np.ndarray, *, normal: bool = False) -> GroupResiduals:
    """Summarise residuals of groups that were left out.

    Parameters
    ----------
    residuals
        ``(n_obs, n_genes)``; NaN where a gene was not measured.
    group
        Codes ``(n_obs,)``, from 0.
    normal
        Whether deviations within groups are taken to be normal instead of as they are.
    """
    known = np.isfinite(residuals)
    values = np.where(known, residuals, 0.0)
    sizes = np.stack([known[group == code].sum(axis=0) for code in range(int(group.max()) + 1)])  # (n_groups, n_genes)
    sums = np.stack([values[group == code].sum(axis=0, dtype=np.float64) for code in range(len(sizes))])
    means = np.divide(sums, sizes, out=np.zeros_like(sums), where=sizes > 0)
    n_groups = (sizes > 0).sum(axis=0)
    squares = np.divide(np.square(means).sum(axis=0), n_groups, out=np.full(len(n_groups), np.nan), where=n_groups > 0)
    within = np.full((N_QUANTILES, len(n_groups)), np.nan)
    for gene in np.flatnonzero(n_groups):
        own = known[:, gene]
        deviations = values[own, gene] - means[group[own], gene]
        weight = 1.0 / sizes[group[own], gene]
        if normal:
            within[:, gene] = norm.ppf(_AT) * np.sqrt(np.average(deviations**2, weights=weight))
        else:
            within[:, gene] = weighted_quantiles(deviations, weight, _AT)
    return GroupResiduals(within, np.sqrt(squares), n_groups, sizes.sum(axis=0))


def bounds(residuals: GroupResiduals, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bound of the residual of a new group, ``(n_genes,)`` each, that hold it with chance `level`.

    Raises
    ------
    LevelError
        If no gene was measured in groups and observations enough for `level`.
    """
    check_level(level, int(residuals.n_groups.max()), int(residuals.n_values.max()))
    lower, upper = np.full(len(residuals.between), np.nan), np.full(len(residuals.between), np.nan)
    for n_groups in np.unique(residuals.n_groups[residuals.n_groups > 0]):
        own = residuals.n_groups == n_groups
        within, between = residuals.within[:, own], residuals.between[own]
        lower[own], upper[own] = (_quantile(within, between, int(n_groups), (1 + side * level) / 2) for side in (-1, 1))
    return lower, upper


def check_level(level: float, n_groups: int, n_values: int) -> None:
    """Raise ``LevelError`` if `level` is beyond :func:`largest_level`."""
    _validate.check_number(level, argument="level", low=0, high=1, open_low=True)
    largest = largest_level(n_groups, n_values)
    if level > largest:
        raise LevelError(
            f"`level` is {level:g}, and {n_groups} left-out groups with {n_values} observations support at most "
            f"{np.floor(largest * 1000) / 1000:g}. Lower it, or train on more patients."
        )


def largest_level(n_groups: int, n_values: int) -> float:
    """Largest level of an interval that groups and their observations support.

    For want of groups the interval may be 2.5 times as wide as if infinitely many were known, which is 0.85 for 2
    groups, 0.97 for 3, 0.99 for 4 and more from 5 on; and a value must be seen beyond each bound, of at most 399
    quantiles that are kept, which is 0.995. One group alone supports none.
    """
    if n_groups < 2:
        return 0.0
    tail = 2 / (min(n_values, N_QUANTILES) + 1)

    def too_wide(outside: float) -> float:
        return _scale(n_groups) * stdtrit(n_groups - 1, 1 - outside / 2) - _WIDEST * norm.isf(outside / 2)

    if too_wide(tail) > 0:
        tail = brentq(too_wide, tail, 0.999)
    return float(1 - tail)


def _scale(n_groups: int) -> float:
    """What the root mean square of residuals of left-out groups is multiplied by, see the head of this file."""
    return float(np.sqrt(1 - 1 / n_groups**2)) if n_groups > 1 else 1.0


def _quantile(within: np.ndarray, between: np.ndarray, n_groups: int, chance: float) -> np.ndarray:
    """Quantile of the sum of a scaled t variable and a draw of `within` ``(n_quantiles, n_genes)``, ``(n_genes,)``."""
    freedom, between = max(n_groups - 1, 1), between * _scale(n_groups)
    effect = between * stdtrit(freedom, chance)
    low, high = effect + within[0], effect + within[-1]  # the quantile of the sum lies between these
    scale = np.maximum(between, 1e-9 * (within[-1] - within[0]))
    scale = np.where(scale > 0, scale, 1.0)  # all residuals are zero
    # A table of the distribution function is an order of magnitude faster than the function.
    grid = np.sinh(np.linspace(-7, 7, 2001))
    table = stdtr(freedom, grid)
    for _ in range(_STEPS):
        middle = (low + high) / 2
        below = np.interp((middle - within) / scale, grid, table).mean(axis=0) < chance
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def weighted_quantiles(values: np.ndarray, weight: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Smallest values below or at which the share `at` of the weight lies."""
    order = np.argsort(values, kind="stable")
    cumulative = np.cumsum(weight[order])
    rows = np.searchsorted(cumulative, at * cumulative[-1] * (1 - 1e-12))
    return values[order][np.minimum(rows, len(values) - 1)]
