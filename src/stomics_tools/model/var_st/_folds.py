"""Folds of the training data: what is left out together when the model is asked what it says of unseen tissue."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from stomics_tools.data import ImageSpots

Kind = Literal["patient", "section", "block"]
MAX_FOLDS = 5
_N_BLOCKS = 3


class Folds(NamedTuple):
    """``fold`` int64 ``(n_obs,)``, what folds are made of, and ``group`` int64 ``(n_obs,)``: which of these a spot is in."""

    fold: np.ndarray
    kind: Kind
    group: np.ndarray

    @property
    def number(self) -> int:
        """Number of folds."""
        return int(self.fold.max()) + 1


def make_folds(spots: ImageSpots) -> Folds:
    """At most five folds of whole patients; of whole sections where there is one patient; else of stripes of the section."""
    if len(spots.patient_names) > 1:
        assert spots.patient is not None
        return Folds(_balanced(spots.patient), "patient", spots.patient)
    if len(spots.section_names) > 1:
        return Folds(_balanced(spots.section), "section", spots.section)
    place = np.arange(spots.n_obs, dtype=np.float64)
    if spots.coordinates is not None:
        centred = spots.coordinates - spots.coordinates.mean(axis=0)
        place = centred @ np.linalg.svd(centred, full_matrices=False)[2][0]
    rank = np.argsort(np.argsort(place, kind="stable"), kind="stable")
    block = rank * min(_N_BLOCKS, spots.n_obs) // spots.n_obs
    return Folds(block, "block", block)


def _balanced(groups: np.ndarray) -> np.ndarray:
    """Groups to folds of about the same number of spots: the largest first, each to the fold with the fewest."""
    sizes = np.bincount(groups)
    filled = np.zeros(min(MAX_FOLDS, len(sizes)), dtype=np.int64)
    fold_of = np.empty(len(sizes), dtype=np.int64)
    for group in np.argsort(-sizes, kind="stable"):
        fold_of[group] = filled.argmin()
        filled[fold_of[group]] += sizes[group]
    return fold_of[groups]
