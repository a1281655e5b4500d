"""Retrieval: the expression of the training spots that look most alike."""

from __future__ import annotations

from typing import Literal

import numpy as np
from sklearn.neighbors import NearestNeighbors

from stomics_tools._validate import check_integer, check_option
from stomics_tools.baselines._base import Baseline, components


class KNNRetrieval(Baseline):
    """Mean expression of the nearest training spots, in principal components of the standardised features.

    A gene that is missing in some of the neighbours is averaged over the others, and has its training mean where it is
    missing in all of them.

    Parameters
    ----------
    n_neighbors
        Training spots to average, as far as there are so many.
    metric
        ``"cosine"`` or ``"euclidean"``.
    n_components
        Principal components of the features, as far as there are so many.
    """

    def __init__(
        self, n_neighbors: int = 50, metric: Literal["cosine", "euclidean"] = "cosine", n_components: int = 64
    ) -> None:
        self.n_neighbors = n_neighbors
        self.metric = metric
        self.n_components = n_components

    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        check_integer(self.n_neighbors, argument="n_neighbors")
        check_integer(self.n_components, argument="n_components")
        check_option(self.metric, ("cosine", "euclidean"), argument="metric")
        self._components = components(x, self.n_components)
        self._search = NearestNeighbors(n_neighbors=min(self.n_neighbors, len(x)), metric=self.metric)
        self._search.fit(self._components.transform(x))
        self._expression = y

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        neighbors = self._search.kneighbors(self._components.transform(x), return_distance=False)
        return mean_of_neighbors(self._expression, neighbors, self.mean_)


def mean_of_neighbors(values: np.ndarray, neighbors: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Mean of the rows of `values` ``(n, n_genes)`` that `neighbors` ``(n_obs, k)`` names, over those that are no NaN.

    Where all of them are NaN it is `otherwise` ``(n_genes,)``.
    """
    shape = len(neighbors), values.shape[1]
    total, n = np.zeros(shape), np.zeros(shape)
    for column in neighbors.T:  # one neighbour of every spot at a time: no (n_obs, n_neighbors, n_genes)
        found = values[column]
        total += np.nan_to_num(found)
        n += ~np.isnan(found)
    return np.where(n > 0, total / np.maximum(n, 1), otherwise)
