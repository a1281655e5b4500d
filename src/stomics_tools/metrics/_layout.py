"""Size, shape and large-scale layout of predicted positions, whatever their pose."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial.distance import pdist
from scipy.stats import rankdata

from stomics_tools._validate import check_integer
from stomics_tools.metrics._positions import TIE, centred_pair, gyration_radius
from stomics_tools.metrics._procrustes import align


def distance_spearman(truth: Any, prediction: Any, *, n_pairs: int = 1_000_000, seed: int = 0) -> float:
    """Spearman correlation of the distances between cells.

    Parameters
    ----------
    truth
        True positions ``(n_obs, 2 or 3)``.
    prediction
        Predicted positions ``(n_obs, 2 or 3)``.
    n_pairs
        Pairs of cells drawn with replacement. All pairs count, once each, where there are no more than this.
    seed
        Of that draw.

    Returns
    -------
    1 if all distances are in the right order, about 0 for positions at random; NaN if either has but one distance.
    Invariant under rotation, reflection, translation and scaling of either.

    Raises
    ------
    ValueError
        If shapes differ, there are fewer than 3 cells, or either is not finite or all on one point.
    """
    x, y = centred_pair(truth, prediction)
    check_integer(n_pairs, argument="n_pairs", minimum=2)
    n_obs = len(x)
    if n_obs * (n_obs - 1) // 2 <= n_pairs:
        distances = [pdist(points) for points in (x, y)]
    else:
        rng = np.random.default_rng(seed)
        i, j = rng.integers(n_obs, size=n_pairs), rng.integers(n_obs - 1, size=n_pairs)
        j += j >= i
        distances = [np.linalg.norm(np.ascontiguousarray((points[i] - points[j]).T), axis=0) for points in (x, y)]
    ranks = [
        rankdata(np.round(d / (TIE * gyration_radius(points)))) for d, points in zip(distances, (x, y), strict=True)
    ]
    a, b = (r - r.mean() for r in ranks)
    scale = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / scale) if scale else float("nan")


def gyration_ratio(truth: Any, prediction: Any) -> float:
    """Predicted radius of gyration divided by the true one: whether the tissue has its size.

    Parameters
    ----------
    truth
        True positions ``(n_obs, 2 or 3)``.
    prediction
        Predicted positions ``(n_obs, 2 or 3)``, in the same unit.

    Returns
    -------
    1 for the right size, below it for the contracted layouts of regressors. Invariant under rotation, reflection and
    translation of either, and under every permutation of the cells.

    Raises
    ------
    ValueError
        As :func:`distance_spearman`.
    """
    x, y = centred_pair(truth, prediction)
    return gyration_radius(y) / gyration_radius(x)


def sliced_wasserstein(truth: Any, prediction: Any, *, n_projections: int = 100) -> float:
    r"""Distance of the shapes of two point clouds: whether the tissue is covered as it should be.

    :math:`\frac{1}{R_g} \cdot \frac{1}{m} \sum_{k=1}^m \frac{1}{n} \sum_{i=1}^n |(X u_k)_{(i)} - (\hat Y u_k)_{(i)}|`:
    the prediction is aligned (:func:`align`, reflections allowed, size kept), both are projected on evenly spread
    directions :math:`u_k`, the first-order Wasserstein distances of the projections are averaged and divided by the
    true radius of gyration :math:`R_g`, the root mean squared distance from the centre. O(m n log n).

    Parameters
    ----------
    truth
        True positions ``(n_obs, 2 or 3)``.
    prediction
        Predicted positions ``(n_obs, 2 or 3)``, in the same unit.
    n_projections
        Number of directions.

    Returns
    -------
    0 for the same cloud, even if the cells in it are exchanged. Invariant under rotation, reflection and translation of
    the prediction, under translation of the truth and scaling of both.

    Raises
    ------
    ValueError
        As :func:`distance_spearman`.
    """
    x, y = centred_pair(truth, prediction)
    y = align(x, y)
    directions = _directions(check_integer(n_projections, argument="n_projections"), x.shape[1])
    apart = [np.abs(np.sort(x @ u) - np.sort(y @ u)).mean() for u in directions]
    return float(np.mean(apart)) / gyration_radius(x)


def _directions(n: int, n_dimensions: int) -> np.ndarray:
    """Unit vectors spread evenly over half of the circle or sphere (a Fibonacci lattice), ``(n, n_dimensions)``."""
    step = (np.arange(n) + 0.5) / n
    if n_dimensions == 2:
        return np.column_stack([np.cos(np.pi * step), np.sin(np.pi * step)])
    turn, ring = np.pi * (3 - np.sqrt(5)) * np.arange(n), np.sqrt(1 - step**2)
    return np.column_stack([ring * np.cos(turn), ring * np.sin(turn), step])
