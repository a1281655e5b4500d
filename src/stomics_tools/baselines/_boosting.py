"""Gradient boosting of a few components of the expression."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingRegressor

from stomics_tools._validate import check_integer
from stomics_tools.baselines._base import Baseline, components


class GradientBoosting(Baseline):
    """Histogram gradient boosting on principal components of the features, of principal components of the expression.

    With a target of low rank, any number of genes takes the time of `n_targets` regressions. Missing values of genes
    are filled with their training mean before the components of the expression are taken.

    Parameters
    ----------
    n_components
        Principal components of the features, as far as there are so many.
    n_targets
        Principal components of the expression, as far as there are so many.
    max_iter
        Trees of each regression.
    learning_rate
        Step of the boosting.
    max_depth
        Depth of the trees.
    min_samples_leaf
        Spots in a leaf, at least.
    seed
        Of the trees.
    """

    def __init__(
        self,
        n_components: int = 64,
        n_targets: int = 8,
        max_iter: int = 100,
        learning_rate: float = 0.05,
        max_depth: int = 3,
        min_samples_leaf: int = 20,
        seed: int = 0,
    ) -> None:
        self.n_components = n_components
        self.n_targets = n_targets
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.max_depth = max_depth
        self.min_samples_leaf = min_samples_leaf
        self.seed = seed

    def _fit(self, x: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> None:
        check_integer(self.n_components, argument="n_components")
        check_integer(self.n_targets, argument="n_targets")
        filled = np.where(np.isnan(y), self.mean_, y)
        n_targets = min(self.n_targets, *filled.shape)
        self._targets = PCA(n_targets, random_state=self.seed).fit(filled)
        self._components = components(x, self.n_components)
        z, targets = self._components.transform(x), self._targets.transform(filled)
        self._trees = [
            HistGradientBoostingRegressor(
                max_iter=self.max_iter,
                learning_rate=self.learning_rate,
                max_depth=self.max_depth,
                min_samples_leaf=self.min_samples_leaf,
                max_features=0.3,
                early_stopping=False,
                random_state=self.seed,
            ).fit(z, target)
            for target in targets.T
        ]

    def _predict(self, x: np.ndarray, groups: np.ndarray | None) -> np.ndarray:
        z = self._components.transform(x)
        return self._targets.inverse_transform(np.stack([trees.predict(z) for trees in self._trees], axis=1))
