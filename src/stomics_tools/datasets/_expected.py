"""The best prediction of expression that anyone can make who knows what is visible of a spot, and how good it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import special

_LOWEST_SHARE = -16.0
_STEP = 0.1  # of the tables, in natural logarithms
_FEW_COUNTS = 64.0
_DRAWS = 32


def log_cp10k(counts: np.ndarray) -> np.ndarray:
    """``log(1 + counts per 10,000)`` of counts ``(n, n_genes)``; a spot without counts stays zero."""
    return np.log1p(1e4 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))


def mean_log_cp10k(share: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Mean of :func:`log_cp10k` over Poisson counts.

    The counts of the other genes enter by their mean, which costs about ``1 / (2 * depth)``.

    Parameters
    ----------
    share
        Share of the gene in the expected counts of its spot, in (0, 1].
    depth
        Expected counts of the spot, of a shape that broadcasts with `share`.

    Returns
    -------
    Float64 of the shape that both broadcast to.
    """
    mean = (share * depth)[..., None]
    others = np.maximum(depth[..., None] - mean, 1e-9)

    def average(count: np.ndarray, law: np.ndarray) -> np.ndarray:
        return (law * np.log1p(1e4 * count / (count + others))).sum(axis=-1) / law.sum(axis=-1)

    few = np.arange(2 * _FEW_COUNTS)
    poisson = np.exp(special.xlogy(few, mean) - special.gammaln(few + 1) - mean)
    nodes, weights = np.polynomial.hermite_e.hermegauss(11)
    many = np.maximum(mean + np.sqrt(mean) * nodes, 0.0)
    exact = average(few, np.where(mean < _FEW_COUNTS, poisson, 1.0))
    return np.where(mean[..., 0] < _FEW_COUNTS, exact, average(many, weights))


def expected_log_cp10k(
    log_rate: np.ndarray,
    log_depth: np.ndarray,
    *,
    loadings: np.ndarray,
    private_sd: np.ndarray,
    depth_sd: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Mean of :func:`log_cp10k` given what is visible of each spot.

    Counting and the hidden depth are averaged by quadrature, the hidden rates by draws on quantiles that all spots
    share, so that what error they leave hardly differs from spot to spot.

    Parameters
    ----------
    log_rate
        Visible part of the log rates ``(n, n_genes)``.
    log_depth
        Visible part of the log of the expected counts of a spot ``(n,)``.
    loadings
        Of the genes on hidden standard normal programmes ``(n_programmes, n_genes)``.
    private_sd
        Standard deviation of each gene's own hidden, normal part of the log rate ``(n_genes,)``.
    depth_sd
        Standard deviation of the hidden, normal part of the log depth.
    rng
        Source of randomness.

    Returns
    -------
    ``(n, n_genes)`` float32.
    """
    curves = _curves(log_depth, depth_sd)  # (n, n_shares)
    row = (np.arange(len(curves)) * curves.shape[1])[:, None]
    log_rate = (log_rate - log_rate.max(axis=1, keepdims=True)).astype(np.float32)
    rate = np.exp(log_rate)
    total = np.zeros_like(rate)
    for shift in _hidden_rates(loadings, private_sd, rng):
        log_share = log_rate + shift - np.log(rate @ np.exp(shift))[:, None]
        place = np.clip((log_share - _LOWEST_SHARE) / _STEP, 0, curves.shape[1] - 1.001)
        low = place.astype(np.int32)
        place -= low
        low = low + row
        total += (1 - place) * curves.take(low) + place * curves.take(low + 1)
    return total / np.float32(_DRAWS)


def _hidden_rates(loadings: np.ndarray, private_sd: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws of the hidden log rates ``(_DRAWS, n_genes)`` float32, those of each gene on the quantiles of its law."""
    drawn = rng.normal(size=(_DRAWS, len(loadings))) @ loadings + private_sd * rng.normal(
        size=(_DRAWS, len(private_sd))
    )
    quantiles = special.ndtri((np.arange(_DRAWS) + 0.5) / _DRAWS)
    ranks = drawn.argsort(axis=0).argsort(axis=0)
    sd = np.sqrt((loadings**2).sum(axis=0) + private_sd**2)
    return (sd * (quantiles / quantiles.std())[ranks]).astype(np.float32)


def _curves(log_depth: np.ndarray, depth_sd: float) -> np.ndarray:
    """Mean of ``log_cp10k`` over counting and hidden depth, at each spot and share of a gene ``(n, n_shares)``."""
    shares = np.exp(np.minimum(np.arange(_LOWEST_SHARE, _STEP / 2, _STEP), 0.0))
    depths = np.linspace(log_depth.min(), log_depth.max() + 1e-6, 2 + int(np.ptp(log_depth) / (2 * _STEP)))
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    table = sum(
        weight * mean_log_cp10k(shares[None], np.exp(depths + depth_sd * node)[:, None])
        for node, weight in zip(nodes, weights / weights.sum(), strict=True)
    )
    place = (log_depth - depths[0]) / (depths[1] - depths[0])
    low = np.minimum(place.astype(int), len(depths) - 2)
    part = (place - low)[:, None]
    return ((1 - part) * table[low] + part * table[low + 1]).astype(np.float32)


def pearson_within(predicted: np.ndarray, observed: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Correlation of columns inside each group, averaged over the groups.

    Parameters
    ----------
    predicted, observed
        ``(n, n_genes)``. A constant prediction counts as uncorrelated.
    group
        Codes ``(n,)``.

    Returns
    -------
    ``(n_genes,)`` float64; groups in which the observed is constant do not count, NaN where it is so in all.
    """
    found = np.full((len(np.unique(group)), predicted.shape[1]), np.nan)
    for row, code in zip(found, np.unique(group), strict=True):
        x, y = (part[group == code].astype(np.float64) for part in (predicted, observed))
        x, y = x - x.mean(axis=0), y - y.mean(axis=0)
        scale = np.sqrt((x**2).sum(axis=0) * (y**2).sum(axis=0))
        varies = np.abs(y).max(axis=0) > 0
        row[varies] = 0
        np.divide((x * y).sum(axis=0), scale, out=row, where=varies & (np.abs(x).max(axis=0) > 1e-6))
    return pd.DataFrame(found).mean().to_numpy()
