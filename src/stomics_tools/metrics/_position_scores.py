"""All scores of predicted positions at once."""

from __future__ import annotations

from typing import Any

from stomics_tools._by_name import align_rows
from stomics_tools._validate import check_number
from stomics_tools.metrics._layout import distance_spearman, gyration_ratio, sliced_wasserstein
from stomics_tools.metrics._neighborhoods import (
    continuity,
    neighbor_overlap,
    neighborhood_composition,
    trustworthiness,
)
from stomics_tools.metrics._procrustes import normalized_rmsd, rmsd


def score_positions(
    truth: Any,
    prediction: Any,
    *,
    labels: Any = None,
    unit_scale: float = 1.0,
    n_neighbors: int = 100,
    seed: int = 0,
) -> dict[str, float]:
    """Score predicted positions of cells, whatever the pose of the prediction.

    Parameters
    ----------
    truth
        True positions of the cells of one section ``(n_obs, 2 or 3)``. Cells and axes of DataFrames are joined by name;
        arrays go by position.
    prediction
        Predicted positions ``(n_obs, 2 or 3)``, in the same unit.
    labels
        Type of each cell ``(n_obs,)``: adds ``neighborhood_composition``.
    unit_scale
        Micrometres in one unit of the coordinates.
    n_neighbors
        Neighbours in the scores of neighbourhoods, below half of the number of cells.
    seed
        Of the pairs and cells that are drawn where there are too many to take them all.

    Returns
    -------
    ``nrmsd``, ``rmsd``
        :func:`normalized_rmsd`, and :func:`rmsd` in micrometres: 0 is perfect.
    ``distance_spearman``, ``neighbor_overlap``
        As the functions of these names: 1 is perfect, 0 is chance.
    ``trustworthiness``, ``continuity``, ``neighborhood_composition``
        As the functions of these names: 1 is perfect, chance is above 0.
    ``gyration_ratio``, ``sliced_wasserstein``
        As the functions of these names: 1 and 0 for the right size and shape, whichever cell is where.

    Raises
    ------
    ValueError
        If shapes or names differ, there are too few cells, or positions are not finite or all on one point.
    """
    unit = check_number(unit_scale, argument="unit_scale", low=0.0, open_low=True)
    truth, prediction, labels = align_rows({"truth": truth, "prediction": prediction, "labels": labels})
    pair = truth, prediction
    scores = {
        "nrmsd": normalized_rmsd(*pair),
        "rmsd": rmsd(*pair) * unit,
        "distance_spearman": distance_spearman(*pair, seed=seed),
        "neighbor_overlap": neighbor_overlap(*pair, n_neighbors=n_neighbors),
        "trustworthiness": trustworthiness(*pair, n_neighbors=n_neighbors, seed=seed),
        "continuity": continuity(*pair, n_neighbors=n_neighbors, seed=seed),
        "gyration_ratio": gyration_ratio(*pair),
        "sliced_wasserstein": sliced_wasserstein(*pair),
    }
    if labels is not None:
        scores["neighborhood_composition"] = neighborhood_composition(*pair, labels, n_neighbors=n_neighbors)
    return scores
