"""Simulated molecules: what a modality sees of the tissue, and counts with depth, overdispersion, dropout and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import sparse

from stomics_tools._validate import check_integer, check_number, check_option
from stomics_tools.datasets._geometry import smooth_fields

_BLOCK_ENTRIES = 1 << 22
_PROGRAMMES = np.repeat([0.18, 0.4], [4, 3])  # strength of those smooth in space and of those from spot to spot


@dataclass(frozen=True)
class _Kind:
    """How one sort of measurement behaves; levels are on the scale of natural logarithms."""

    prefix: str
    n_features: int
    depth: float  # counts a spot (median)
    depth_sd: float
    level_sd: float  # spread of the features' mean levels
    marker_share: float  # features that tell groups apart
    fold: float  # mean log fold change of a marker
    shape: float | None  # of the gamma law in the negative binomial; None: Poisson
    dropout: float  # share of entries lost
    ambient: float  # share of the counts that is background, the same in every spot
    ceiling: int | None  # largest count


KINDS = {
    "rna": _Kind("gene", 400, 800.0, 0.45, 1.2, 0.35, 0.7, 3.0, 0.1, 0.0, None),
    "protein": _Kind("protein", 40, 3000.0, 0.35, 0.9, 0.6, 0.45, 8.0, 0.0, 0.4, None),
    "atac": _Kind("peak", 1000, 150.0, 0.45, 0.6, 0.35, 0.8, None, 0.1, 0.0, 2),
}
"""Sorts of measurement that can be simulated."""


@dataclass(frozen=True)
class Modality:
    """One modality of a simulated slice.

    Parameters
    ----------
    kind
        ``"rna"`` (overdispersed counts of genes, mostly zero), ``"protein"`` (deep counts of few features over a
        background) or ``"atac"`` (peaks, nearly all 0 or 1, at most 2).
    n_features
        Number of features. Default: 400 genes, 40 proteins, 1000 peaks.
    depth
        Median counts of a spot. Default: 2 a gene, 75 a protein, 0.15 a peak.
    contrast
        Factor on the log fold changes between the groups that the modality tells apart; 0 makes it blind.

    Raises
    ------
    TypeError, ValueError
        For an unknown kind, fewer than 2 features, a depth that is not positive or a negative contrast.
    """

    kind: Literal["rna", "protein", "atac"] = "rna"
    n_features: int | None = None
    depth: float | None = None
    contrast: float = 1.0

    def __post_init__(self) -> None:
        check_option(self.kind, list(KINDS), argument="kind")
        if self.n_features is not None:
            check_integer(self.n_features, argument="n_features", minimum=2)
        if self.depth is not None:
            check_number(self.depth, argument="depth", low=0.0, high=1e9, open_low=True)
        check_number(self.contrast, argument="contrast", low=0.0, high=100.0)


def views(n_groups: int, n_modalities: int, rng: np.random.Generator) -> np.ndarray:
    """Which groups each modality confuses: pairs, never the same pair in two neighbouring modalities.

    The pairs are the rounds of a tournament in which everyone meets everyone once, so that two groups that one
    modality confuses are told apart by the next. A modality on its own confuses nothing.

    Parameters
    ----------
    n_groups
        Domains or cell types, at least 3.
    n_modalities
        Number of modalities.
    rng
        Source of randomness.

    Returns
    -------
    Codes ``(n_modalities, n_groups)`` int64: groups of equal code in a row look alike to that modality.
    """
    if n_modalities == 1:
        return np.arange(n_groups)[None]
    n_players = n_groups + n_groups % 2  # with an odd number one group sits out each round
    seat = rng.permutation(n_players)
    codes = np.empty((n_modalities, n_players), dtype=np.int64)
    for m in range(n_modalities):
        order = np.concatenate([seat[:1], np.roll(seat[1:], m)])
        pair = np.arange(n_players)
        codes[m, order] = np.minimum(pair, pair[::-1])
    codes = codes[:, :n_groups]
    return np.stack([np.unique(row, return_inverse=True)[1] for row in codes])


def simulate_counts(
    spec: Modality,
    group: np.ndarray,
    positions: list[np.ndarray],
    *,
    noise: float,
    batch_effect: float,
    rng: np.random.Generator,
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Counts of one modality in all slices.

    Parameters
    ----------
    spec
        The modality.
    group
        What it sees of each spot: codes ``(n_obs,)``, slices one after the other.
    positions
        Positions of the spots of each slice ``(n, d)``, within about [-1, 1].
    noise
        Factor on all variation that has nothing to do with the groups: smooth in space (4 programmes), from spot to
        spot (3 programmes) and of depth.
    batch_effect
        Standard deviation of a slice's log shift of every feature and of its depth.
    rng
        Source of randomness.

    Returns
    -------
    Counts ``(n_obs, n_features)`` as float32 CSR of integers, and for each feature the group it marks
    ``(n_features,)``, -1 for none.
    """
    kind = KINDS[spec.kind]
    n_features = spec.n_features or kind.n_features
    depth = spec.depth or kind.depth * n_features / kind.n_features
    n_groups = int(group.max()) + 1

    level = rng.normal(scale=kind.level_sd, size=n_features)
    marks = rng.permutation(n_features) % n_groups
    marks[rng.random(n_features) >= kind.marker_share] = -1
    fold = spec.contrast * kind.fold * rng.gamma(4.0, 0.25, size=n_features)
    profile = level + fold * (marks == np.arange(n_groups)[:, None])
    loadings = _PROGRAMMES[:, None] * rng.normal(size=(7, n_features)) * (rng.random((7, n_features)) < 0.25)
    ambient = np.exp(level) / np.exp(level).sum()

    blocks = []
    start = 0
    step = max(1, _BLOCK_ENTRIES // n_features)
    for u in positions:
        shift = batch_effect * rng.normal(size=n_features) * (len(positions) > 1)
        log_depth = np.log(depth) + batch_effect * rng.normal() * (len(positions) > 1)
        smooth = smooth_fields(u, 5, 0.3, rng)
        scatter = rng.normal(size=(len(u), 4)).astype(np.float32)
        programmes = noise * np.concatenate([smooth[:, :4], scatter[:, :3]], axis=1)
        size = np.exp(log_depth + noise * kind.depth_sd * (0.5 * smooth[:, 4] + 0.85 * scatter[:, 3]))
        for low in range(0, len(u), step):
            rows = slice(low, min(low + step, len(u)))
            rate = programmes[rows] @ loadings.astype(np.float32)
            rate += (profile + shift).astype(np.float32)[group[start + rows.start : start + rows.stop]]
            np.exp(rate, out=rate)
            rate *= (1 - kind.ambient) / rate.sum(axis=1, keepdims=True)
            rate += (kind.ambient * ambient).astype(np.float32)
            rate *= size[rows, None].astype(np.float32)
            blocks.append(_sample(rate, kind, rng))
        start += len(u)
    return sparse.vstack(blocks, format="csr"), marks


def _sample(rate: np.ndarray, kind: _Kind, rng: np.random.Generator) -> sparse.csr_matrix:
    """Draw counts of mean `rate` ``(n, n_features)``; `rate` is overwritten."""
    if kind.shape is not None:
        rate *= rng.standard_gamma(kind.shape, size=rate.shape, dtype=np.float32) / np.float32(kind.shape)
    if kind.dropout:
        rate *= rng.random(rate.shape, dtype=np.float32) >= kind.dropout
    counts = rng.poisson(rate)
    if kind.ceiling is not None:
        np.minimum(counts, kind.ceiling, out=counts)
    return sparse.csr_matrix(counts.astype(np.float32))
