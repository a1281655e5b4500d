"""Whether predicted positions keep the neighbourhoods of cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from stomics_tools._by_name import align_rows
from stomics_tools._validate import check_integer
from stomics_tools.metrics._labels import label_codes
from stomics_tools.metrics._matrices import check_per_spot
from stomics_tools.metrics._neighbors import Neighbors, blocks, check_n_neighbors
from stomics_tools.metrics._positions import TIE, centred_pair, gyration_radius


def neighbor_overlap(truth: Any, prediction: Any, *, n_neighbors: int = 100) -> float:
    """Share of a cell's true neighbours that are predicted to be its neighbours, beyond chance.

    ``(observed - chance) / (1 - chance)`` of the mean share, with chance ``k / (n_obs - 1)``. Cells at the distance of
    the k-th neighbour share the places left for them. O(n_obs x (k + log n_obs)) time, unless many cells lie on one
    point.

    Parameters
    ----------
    truth
        True positions ``(n_obs, 2 or 3)``.
    prediction
        Predicted positions ``(n_obs, 2 or 3)``.
    n_neighbors
        k, at most ``n_obs - 2``.

    Returns
    -------
    1 is perfect, 0 is chance. Invariant under rotation, reflection, translation and scaling of either.

    Raises
    ------
    ValueError
        If shapes differ, there are too few cells, or positions are not finite or all on one point.
    """
    x, y = centred_pair(truth, prediction)
    n_obs = len(x)
    k = check_n_neighbors(n_neighbors, n_obs, largest=n_obs - 2)
    near_x, near_y = Neighbors(x, k), Neighbors(y, k)
    shared = sum(near_x.weights(rows).minimum(near_y.weights(rows)).sum() for rows in blocks(np.arange(n_obs)))
    chance = k / (n_obs - 1)
    return float((shared / (n_obs * k) - chance) / (1 - chance))


def neighborhood_composition(truth: Any, prediction: Any, labels: Any, *, n_neighbors: int = 100) -> float:
    """How alike the cell types around each cell are in both layouts.

    Mean over the cells of the cosine between the frequencies of the types among the true and among the predicted
    neighbours. O(n_obs x k).

    Parameters
    ----------
    truth
        True positions ``(n_obs, 2 or 3)``.
    prediction
        Predicted positions ``(n_obs, 2 or 3)``.
    labels
        Type of each cell ``(n_obs,)``, none missing.
    n_neighbors
        Neighbours that are counted, the cell itself not; at most ``n_obs - 1``.

    Returns
    -------
    From 0 to 1, which is perfect. Chance is far above 0, as the overall frequencies agree anyway: compare it with the
    score of permuted positions. Invariant under rotation, reflection, translation and scaling of either.

    Raises
    ------
    ValueError
        If shapes differ, labels are missing, there are too few cells, or positions are not finite or all on one point.
    """
    truth, prediction, labels = align_rows({"truth": truth, "prediction": prediction, "labels": labels})
    x, y = centred_pair(truth, prediction)
    n_obs = len(x)
    k = check_n_neighbors(n_neighbors, n_obs, largest=n_obs - 1)
    codes = label_codes(check_per_spot(labels, n_obs, argument="labels"))
    one_hot = np.eye(codes.max() + 1)[codes]
    near_x, near_y = Neighbors(x, k), Neighbors(y, k)
    cosines = []
    for rows in blocks(np.arange(n_obs)):
        a, b = near_x.weights(rows) @ one_hot, near_y.weights(rows) @ one_hot
        cosines.append((a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))
    return float(np.concatenate(cosines).mean())


def trustworthiness(
    truth: Any, prediction: Any, *, n_neighbors: int = 100, max_obs: int = 10_000, seed: int = 0
) -> float:
    r"""Whether the predicted neighbours of a cell are near in truth.

    :math:`1 - \frac{2}{n k (2n - 3k - 1)} \sum_i \sum_{j \in N_k(i)} \max(0, r(i, j) - k)` with the predicted
    neighbours :math:`N_k(i)` and the rank :math:`r(i, j)` of cell j among the true neighbours of i. Cells at one
    distance have the mean of their ranks, and none of them is out of place if the k-th neighbour is one of them.
    O(n log n) time for each cell that is judged; no more memory than for the neighbours of a block of cells.

    Parameters
    ----------
    truth
        True positions ``(n_obs, 2 or 3)``.
    prediction
        Predicted positions ``(n_obs, 2 or 3)``.
    n_neighbors
        k, below half of `n_obs`.
    max_obs
        Of more cells than this as many are drawn at random, and the neighbours among all cells are judged for those.
    seed
        Of that draw.

    Returns
    -------
    1 is perfect; positions at random are at about 1/2 where k is small. Invariant under rotation, reflection,
    translation and scaling of either.

    Raises
    ------
    ValueError
        If shapes differ, there are too few cells, or positions are not finite or all on one point.

    Source: Venna and Kaski, 2001.
    """
    x, y = centred_pair(truth, prediction)
    n_obs = len(x)
    k = check_n_neighbors(n_neighbors, n_obs, largest=(n_obs - 1) // 2)
    rows = np.arange(n_obs)
    if n_obs > check_integer(max_obs, argument="max_obs"):
        rows = np.sort(np.random.default_rng(seed).choice(n_obs, max_obs, replace=False))
    predicted, tolerance = Neighbors(y, k), TIE * gyration_radius(x)
    axes = np.ascontiguousarray(x.T)  # sums along an axis of length 2 are slow otherwise
    penalty = 0.0
    for block in blocks(rows):
        weights = predicted.weights(block)
        for i, start, stop in zip(block, weights.indptr[:-1], weights.indptr[1:], strict=True):
            distance = np.sqrt(((axes - axes[:, [i]]) ** 2).sum(axis=0))
            candidates = distance[weights.indices[start:stop]]
            distance.sort()
            first = np.searchsorted(distance, candidates - tolerance)  # the cell itself takes the place before 1
            last = np.searchsorted(distance, candidates + tolerance, side="right") - 1
            penalty += float(weights.data[start:stop] @ np.where(first > k, (first + last) / 2 - k, 0.0))
    return 1 - 2 * penalty / (len(rows) * k * (2 * n_obs - 3 * k - 1))


def continuity(truth: Any, prediction: Any, *, n_neighbors: int = 100, max_obs: int = 10_000, seed: int = 0) -> float:
    """Whether the true neighbours of a cell are predicted near it: :func:`trustworthiness` of the layouts exchanged.

    Parameters
    ----------
    truth
        True positions ``(n_obs, 2 or 3)``.
    prediction
        Predicted positions ``(n_obs, 2 or 3)``.
    n_neighbors
        Below half of `n_obs`.
    max_obs
        Of more cells than this as many are drawn at random.
    seed
        Of that draw.

    Returns
    -------
    1 is perfect; as there.

    Raises
    ------
    ValueError
        As there.
    """
    centred_pair(truth, prediction)  # so that errors name the right argument
    return trustworthiness(prediction, truth, n_neighbors=n_neighbors, max_obs=max_obs, seed=seed)
