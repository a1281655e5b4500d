"""Where the spots of a slice lie, and columns that mean the same under many names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from anndata import AnnData
from mudata import MuData
from scipy import sparse

from stomics_tools._validate import check_categories
from stomics_tools.data import spatial_knn
from stomics_tools.pl._lookup import obs_column, spot_coordinates

_LABELS = ("domain", "layer", "region", "annotation", "final_annot", "ground_truth", "gt", "pathology", "cell_type")
_SLICES = ("slice", "section", "slide", "sample", "library_id", "batch")
_N_NEIGHBORS = 6


@dataclass(frozen=True)
class Annotation:
    """Coordinates ``(n_obs, 2 or 3)``, true labels and slices of the spots; of what is not there the key is None."""

    coordinates: np.ndarray
    label_key: str | None
    labels: pd.Series | None
    slice_key: str | None
    slices: pd.Series | None

    @classmethod
    def of(cls, data: AnnData | MuData, *, spatial_key: str, label_key: str | None, batch_key: str | None) -> Self:
        """Take the columns named, else the first with a usual name that holds two different values.

        Raises
        ------
        KeyError
            If a key that is named is not there.
        ValueError
            If coordinates are unusable, if labels do not vary, or if slices are missing.
        """
        coordinates = spot_coordinates(data, spatial_key, argument="spatial_key")
        if label_key is None:
            label_key = _usual(data, _LABELS)
        labels = None if label_key is None else obs_column(data, label_key, argument="label_key")
        if labels is not None and labels.nunique() < 2:
            raise ValueError(
                f"`label_key`: column {label_key!r} holds {labels.nunique()} different labels, at least 2 are needed. "
                "Name another column."
            )
        if batch_key is None:
            batch_key = _usual(data, _SLICES, complete=True)
        slices = None if batch_key is None else obs_column(data, batch_key, argument="batch_key")
        return cls(coordinates, label_key, labels, batch_key, slices)

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return 1 if self.slices is None else self.slices.nunique()

    @property
    def by_slices(self) -> str:
        """How many slices there are and what tells them apart, for a line of output."""
        return "" if self.slices is None else f" in {self.n_slices} slices by {self.slice_key!r}"

    def graph(self) -> sparse.csr_matrix:
        """Directed graph of the six nearest spots within each slice."""
        if self.slices is None:
            return spatial_knn(self.coordinates, _N_NEIGHBORS)
        codes, _ = check_categories(self.slices, argument="batch_key", where=f"obs[{self.slice_key!r}]")
        return spatial_knn(self.coordinates, _N_NEIGHBORS, codes)


def _usual(data: AnnData | MuData, names: tuple[str, ...], *, complete: bool = False) -> str | None:
    """The first of the columns that are there and hold two different values, and none missing if `complete`."""
    parts = data.mod.values() if isinstance(data, MuData) else []
    there = set(data.obs).union(*(part.obs for part in parts))
    for name in names:
        if name in there:
            column = obs_column(data, name, argument="obs")
            if column.nunique() > 1 and not (complete and column.isna().any()):
                return name
    return None
