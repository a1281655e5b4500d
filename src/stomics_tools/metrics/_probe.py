"""What a linear classifier finds in a frozen representation, on tissue that it was not trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from stomics_tools import _validate
from stomics_tools._by_name import align_rows
from stomics_tools.metrics._labels import label_codes


def spatial_blocks(coordinates: Any, n_blocks: int = 20, *, batch: Any = None, seed: int = 0) -> np.ndarray:
    """Cut tissue into compact blocks of similar numbers of spots, by k-means of the coordinates.

    Parameters
    ----------
    coordinates
        ``(n_obs, 2 or 3)``.
    n_blocks
        Blocks of all slices together, at least one a slice; they are shared out by numbers of spots.
    batch
        Slice of each spot ``(n_obs,)``; no block lies in two.
    seed
        Of k-means.

    Returns
    -------
    Block of each spot from 0 on, int64 ``(n_obs,)``.
    """
    coordinates, batch = align_rows({"coordinates": coordinates, "batch": batch})
    xy = _validate.check_coordinates(coordinates, argument="coordinates", where="coordinates")
    _validate.check_integer(n_blocks, argument="n_blocks")
    slices = np.zeros(len(xy), dtype=np.int64) if batch is None else np.unique(batch, return_inverse=True)[1]
    blocks = np.empty(len(xy), dtype=np.int64)
    first = 0
    for one in np.unique(slices):
        rows = np.flatnonzero(slices == one)
        wanted = min(max(round(n_blocks * len(rows) / len(xy)), 1), len(np.unique(xy[rows], axis=0)))
        blocks[rows] = first + KMeans(wanted, n_init=3, random_state=seed).fit_predict(xy[rows])
        first += wanted
    return blocks


def linear_probe(
    representation: Any,
    labels: Any,
    coordinates: Any,
    *,
    batch: Any = None,
    n_folds: int = 5,
    n_blocks: int = 20,
    margin: float = 3.0,
    seed: int = 0,
) -> dict[str, float]:
    """Predict labels from a frozen representation by logistic regression, blocks of tissue held out.

    Spots at random would not do: a spot's neighbours, which share its label and, in a spatial model, its
    representation, would stand on the other side.

    Parameters
    ----------
    representation
        ``(n_obs, n_features)``; standardised on training spots. Spots of Series and DataFrames are joined by name; arrays
        go by position.
    labels
        ``(n_obs,)``; spots without a label are left out.
    coordinates
        ``(n_obs, 2 or 3)``.
    batch
        Slice of each spot.
    n_folds
        Folds; the blocks are dealt out so that labels are spread as evenly as can be.
    n_blocks
        See :func:`spatial_blocks`.
    margin
        Spots nearer to a held-out one than so many times the median distance of neighbours are not trained on.
    seed
        Of blocks and folds.

    Returns
    -------
    ``macro_f1`` (mean F1 of the labels), ``accuracy`` and ``balanced_accuracy`` of the predictions of all held-out spots
    together; ``n_obs``, how many these are.

    Raises
    ------
    ValueError
        If lengths differ, values are not finite, or there are fewer than two labels or too few blocks.
    """
    representation, labels, coordinates, batch = align_rows(
        {"representation": representation, "labels": labels, "coordinates": coordinates, "batch": batch}
    )
    z = np.asarray(representation, dtype=np.float64)
    codes = label_codes(labels)
    xy = _validate.check_coordinates(coordinates, argument="coordinates", where="coordinates")
    _validate.check_integer(n_folds, argument="n_folds", minimum=2)
    _validate.check_number(margin, argument="margin", low=0)
    if z.ndim != 2 or not len(z) == len(codes) == len(xy):
        raise ValueError(
            f"`representation`, `labels` and `coordinates` must have a row each for every spot, found {z.shape}, "
            f"{len(codes)} and {xy.shape}."
        )
    _validate.check_finite(z, argument="representation", where="representation")
    kept = codes >= 0
    z, codes, xy = z[kept], codes[kept], xy[kept]
    slices = (
        np.zeros(len(xy), dtype=np.int64)
        if batch is None
        else np.unique(np.asarray(batch)[kept], return_inverse=True)[1]
    )
    if len(np.unique(codes)) < 2:
        raise ValueError(f"`labels`: at least two are needed, found {len(np.unique(codes))}.")
    blocks = spatial_blocks(xy, n_blocks, batch=slices, seed=seed)
    if len(np.unique(blocks)) < n_folds:
        raise ValueError(f"`n_blocks={n_blocks}` makes {len(np.unique(blocks))} blocks for {n_folds} folds. Raise it.")
    predicted = np.full(len(codes), -1)
    folds = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
    for train, test in folds.split(z, codes, groups=blocks):
        far = train[~_near(xy, slices, train, test, margin)]
        if len(np.unique(codes[far])) < 2:
            raise ValueError("A fold has fewer than two labels to train on. Raise `n_blocks` or lower `margin`.")
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        predicted[test] = classifier.fit(z[far], codes[far]).predict(z[test])
    return {
        "macro_f1": float(f1_score(codes, predicted, average="macro")),
        "accuracy": float((codes == predicted).mean()),
        "balanced_accuracy": float(balanced_accuracy_score(codes, predicted)),
        "n_obs": float(len(codes)),
    }


def _near(xy: np.ndarray, slices: np.ndarray, train: np.ndarray, test: np.ndarray, margin: float) -> np.ndarray:
    """Training spots ``(n_train,)`` that lie within the margin of a held-out spot of their slice."""
    near = np.zeros(len(train), dtype=bool)
    for one in np.unique(slices[test]):
        own, held_out = slices[train] == one, xy[test[slices[test] == one]]
        points = xy[slices == one]
        spacing = np.median(cKDTree(points).query(points, k=min(2, len(points)))[0][:, -1])
        if own.any() and margin > 0:
            near[own] = cKDTree(held_out).query(xy[train[own]])[0] <= margin * spacing
    return near
