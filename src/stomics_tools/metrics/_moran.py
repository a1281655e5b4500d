"""Whether predicted expression is as smooth in space as the true one."""

from __future__ import annotations

from typing import Any

import numpy as np

from stomics_tools._by_name import align_rows
from stomics_tools._validate import check_coordinates
from stomics_tools.metrics._correlation import centred_genes
from stomics_tools.metrics._matrices import check_pair, mean_of_defined
from stomics_tools.metrics._neighbors import Neighbors, blocks, check_n_neighbors


def morans_i_error(truth: Any, prediction: Any, coordinates: Any, *, n_neighbors: int = 6) -> float:
    r"""Mean over the genes of the absolute difference of the true and the predicted Moran's I.

    :math:`I = \frac{n}{\sum_{ij} w_{ij}} \cdot \frac{\sum_{ij} w_{ij} z_i z_j}{\sum_i z_i^2}` of the deviations z of a
    gene from its mean, with weight 1 for each of the nearest neighbours of a spot; spots at one distance share the
    places left for them. O(n_obs x n_neighbors x n_genes).

    Parameters
    ----------
    truth
        True expression ``(n_obs, n_genes)``. NaN where a gene was not measured: there it does not count in either.
    prediction
        Predicted expression ``(n_obs, n_genes)``, finite: a mean, or a single sample.
    coordinates
        Positions of the spots of one section ``(n_obs, 2 or 3)``.
    n_neighbors
        Neighbours of each spot, at most ``n_obs - 1``.

    Returns
    -------
    0 if all genes are as smooth as they should be; invariant under rotation, reflection, translation and scaling of the
    coordinates. A gene that is constant in either has no I and is left out; NaN if none is left.

    Notes
    -----
    A conditional mean is smoother than what it predicts, by right: compare samples by this score.

    Raises
    ------
    ValueError
        If shapes differ, or predictions or coordinates are not finite.
    """
    truth, prediction, coordinates = align_rows({"truth": truth, "prediction": prediction, "coordinates": coordinates})
    true, predicted = check_pair(truth, prediction)
    xy = check_coordinates(coordinates, argument="coordinates", where="coordinates")
    if len(xy) != len(true):
        raise ValueError(f"`coordinates` has {len(xy)} rows, `truth` has {len(true)}: both must hold the same spots.")
    near = Neighbors(xy - xy.mean(axis=0), check_n_neighbors(n_neighbors, len(xy), largest=len(xy) - 1))
    measured = ~np.isnan(true)
    difference = _morans_i(true, measured, near) - _morans_i(predicted, measured, near)
    return float(mean_of_defined(np.abs(difference)))


def _morans_i(values: np.ndarray, measured: np.ndarray, near: Neighbors) -> np.ndarray:
    """Moran's I of each gene over the spots where it was measured, ``(n_genes,)``; NaN for a constant one."""
    z, m = centred_genes(values, measured), measured.astype(np.float64)
    products, weight = np.zeros(z.shape[1]), np.zeros(z.shape[1])
    for rows in blocks(np.arange(len(z))):
        w = near.weights(rows)
        products += (z[rows] * (w @ z)).sum(axis=0)
        weight += (m[rows] * (w @ m)).sum(axis=0)
    scale = weight * (z**2).sum(axis=0)
    return np.divide(m.sum(axis=0) * products, scale, out=np.full(len(scale), np.nan), where=scale > 0)
