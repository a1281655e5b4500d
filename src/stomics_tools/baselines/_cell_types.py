"""What is known of a cell by its type alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from stomics_tools._validate import check_categories
from stomics_tools.baselines._base import Baseline
from stomics_tools.baselines._positions import PositionBaseline


class CellTypeMean(Baseline):
    """Mean of the training cells of the same type.

    `X` is one column of labels ``(n_obs, 1)`` or ``(n_obs,)``, as ``adata.obs["cell_type"]``. A type that was not
    trained on has the mean of all cells, so has a gene that was measured in no cell of the type.
    """

    def _features(self, X: Any) -> np.ndarray:
        return label_column(X)

    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        self._names, codes = np.unique(x[:, 0], return_inverse=True)
        self._means = np.tile(self.mean_, (len(self._names) + 1, 1))
        for code in range(len(self._names)):
            cells = y[codes == code]
            known = ~np.isnan(cells).all(axis=0)
            self._means[code, known] = np.nanmean(cells[:, known], axis=0)

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        codes = pd.Index(self._names).get_indexer(x[:, 0])  # -1, the row of the overall mean, for an unknown type
        return self._means[codes]


class CellTypeCentroid(PositionBaseline):
    """Mean position of the training cells of the same type.

    `X` is a column of labels as that of :class:`CellTypeMean`, the rest as in :class:`PositionKNN`. A type that was not
    trained on lies in the centre.

    Attributes
    ----------
    scale_
        Mean root-mean-square radius of the training sections, in the unit of `Y`.

    Notes
    -----
    On the STARmap sections as in :class:`PositionKNN`: Spearman correlation of distances .28 at a radius of .56.
    """

    def _features(self, X: Any) -> np.ndarray:
        return label_column(X)

    def _regression(self) -> Baseline:
        return CellTypeMean()


def label_column(X: Any) -> np.ndarray:
    """Check one column of labels and return it as strings ``(n_obs, 1)``.

    Raises ``ValueError`` for another shape and where labels are missing.
    """
    labels = np.asarray(X)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f"`X` must be one column of labels (n_obs, 1) that is not empty, found shape {labels.shape}.")
    codes, names = check_categories(pd.Series(labels), argument="X", where="X")
    return np.asarray(names)[codes][:, None]
