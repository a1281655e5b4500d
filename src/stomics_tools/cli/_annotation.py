"""Where the spots of a slice lie, and columns that mean the same under many names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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
NONE = "none"
"""What the user writes in place of a column to say that there is none."""
_SPOTS_OF_A_SLICE, _SPOTS_OF_A_LABEL = 10, 3
"""Spots that a slice, or a label, has on average at least, if its column was found by its name alone."""


@dataclass(frozen=True)
class Annotation:
    """Coordinates ``(n_obs, 2 or 3)``, true labels and slices of the spots; of what is not there the key is None.

    ``remarks`` say which columns were found by their names alone, and which were passed over.
    """

    coordinates: np.ndarray
    label_key: str | None
    labels: pd.Series | None
    slice_key: str | None
    slices: pd.Series | None
    remarks: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: AnnData | MuData, *, spatial_key: str, label_key: str | None, batch_key: str | None) -> Self:
        """Take the columns named, none if that is ``"none"``, else the first with a usual name that can be meant.

        Such a column holds two different values or more, but not nearly as many as there are spots.

        Raises
        ------
        KeyError
            If a key that is named is not there.
        ValueError
            If coordinates are unusable, if labels do not vary, or if slices are missing or of one spot each.
        """
        coordinates = spot_coordinates(data, spatial_key, argument="spatial_key")
        remarks: list[str] = []
        if label_key is None:
            label_key = _usual(data, _LABELS, "label_key", remarks)
        labels = None if label_key in (None, NONE) else obs_column(data, str(label_key), argument="label_key")
        if labels is not None and labels.nunique() < 2:
            raise ValueError(
                f"`label_key`: column {label_key!r} holds {labels.nunique()} different labels, at least 2 are needed. "
                f"Name another column, or {NONE!r}."
            )
        if batch_key is None:
            batch_key = _usual(data, _SLICES, "batch_key", remarks)
        slices = None if batch_key in (None, NONE) else obs_column(data, str(batch_key), argument="batch_key")
        if slices is not None and 2 * slices.nunique() > len(slices):
            raise ValueError(
                f"`batch_key`: column {batch_key!r} holds {slices.nunique()} different values in {len(slices)} spots, "
                f"which are no slices. Name another column, or {NONE!r} if there is one slice."
            )
        keys = (None if labels is None else label_key, None if slices is None else batch_key)
        return cls(coordinates, keys[0], labels, keys[1], slices, tuple(remarks))

    @property
    def n_slices(self) -> int:
        """Number of slices."""
        return 1 if self.slices is None else self.slices.nunique()

    @property
    def by_slices(self) -> str:
        """How many slices there are and what tells them apart, for a line of output."""
        return "" if self.slices is None else f" in {self.n_slices} slices by {self.slice_key!r}"

    @contextmanager
    def named(self) -> Iterator[None]:
        """Within this context, an error about slices names their column."""
        try:
            yield
        except (KeyError, ValueError) as error:
            if self.slice_key is not None and "slice" in str(error):
                error.add_note(
                    f"Slices are told apart by obs[{self.slice_key!r}]; `--batch-key` names another column, or "
                    f"{NONE!r} if there is one slice."
                )
            raise

    def graph(self) -> sparse.csr_matrix:
        """Directed graph of the six nearest spots within each slice."""
        if self.slices is None:
            return spatial_knn(self.coordinates, _N_NEIGHBORS)
        codes, _ = check_categories(self.slices, argument="batch_key", where=f"obs[{self.slice_key!r}]")
        return spatial_knn(self.coordinates, _N_NEIGHBORS, codes)


def _usual(data: AnnData | MuData, names: tuple[str, ...], argument: str, remarks: list[str]) -> str | None:
    """The first of the columns that are there and can be meant; a remark on it, and on those with too many values."""
    what, fewest = ("slices", _SPOTS_OF_A_SLICE) if argument == "batch_key" else ("labels", _SPOTS_OF_A_LABEL)
    flag = f"--{argument.replace('_', '-')}"
    parts = data.mod.values() if isinstance(data, MuData) else []
    there = set(data.obs).union(*(part.obs for part in parts))
    for name in names:
        if name not in there:
            continue
        column = obs_column(data, name, argument="obs")
        n_values = column.nunique()
        if n_values < 2:
            continue
        if argument == "batch_key" and column.isna().any():
            remarks.append(f"obs[{name!r}] has missing values and is not taken for slices")
            continue
        if n_values * fewest > len(column):
            remarks.append(f"obs[{name!r}] holds {n_values} values in {len(column)} spots and is not taken for {what}")
            continue
        remarks.append(
            f"{n_values} {what} in obs[{name!r}], found by its name; `{flag}` names another column, or {NONE!r}"
        )
        return name
    return None
